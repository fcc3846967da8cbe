package node

import (
	"errors"
	"fmt"
	"iter"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/internal/tracing"
)

// Config is every setting of a worker. Each field is a flag, an environment variable (MILLRACE_ and the name in capitals)
// and a key of the configuration file, all under the name in its tag.
type Config struct {
	Listen          string   `name:"listen" default:"127.0.0.1:9000" help:"address of the public port: gRPC, gRPC-Web, Connect, HTTP/JSON"`
	Admin           string   `name:"admin" default:"127.0.0.1:9001" help:"address of the admin port: status, metrics, and what the command line asks"`
	Data            string   `name:"data" default:".millrace" help:"data directory: log/ (the data, on the embedded log) and store/ (a cache)"`
	Ephemeral       bool     `name:"ephemeral" default:"false" help:"keep everything in memory; it ends with the process"`
	App             string   `name:"app" default:"" help:"name of the app: the prefix of its topics, and what its workers find each other by. Required with brokers; by default millrace on the embedded log"`
	Partitions      int      `name:"partitions" default:"16" help:"partitions of a journal that is created, or that the data is of: a power of two up to 4096; a topic may have more, which are left alone"`
	Worker          string   `name:"worker" default:"" help:"name of this worker; by default one is made and kept in the data directory"`
	Brokers         []string `name:"brokers" default:"" help:"Kafka or Redpanda brokers, host:port; none: the embedded log"`
	Peer            string   `name:"peer" default:"127.0.0.1:9002" help:"address of the port for other workers of the app; only with brokers"`
	Advertise       string   `name:"advertise" default:"" help:"host:port under which other workers reach the peer port; by default its address"`
	AdvertisePublic string   `name:"advertise-public" default:"" help:"host:port under which callers reach the public port, as answers of other workers tell them; by default its address, unless only this machine reaches that"`
	Standbys        int      `name:"standbys" default:"1" help:"how many workers beside its owner follow each partition, to take over at once and to answer reads"`
	MovePatience    Duration `name:"move-patience" default:"15s" help:"how long a command waits for a partition to have an owner that is ready"`
	ServicesChanged bool     `name:"services-changed" default:"false" help:"start on a journal although its last workers served other entity types altogether, as after the only service was renamed: entities of the old types stay in the log, and no worker answers for them"`
	CreateTopics    bool     `name:"create-topics" default:"true" help:"create missing topics; otherwise print the commands that do and stop"`
	Replication     int      `name:"replication" default:"0" help:"replication factor of topics that are created; 0: 3, or as many as there are brokers"`
	SessionTimeout  Duration `name:"session-timeout" default:"6s" help:"how long the brokers wait for a silent worker before its partitions move; brokers bound it by group.min.session.timeout.ms"`
	ContractCheck   Duration `name:"contract-check" default:"1m" help:"how often the journal's topic settings are looked at again"`
	Function        string   `name:"function" default:"127.0.0.1:8080" help:"address of the user function"`
	ProtocolCheck   bool     `name:"protocol-check" default:"true" help:"refuse a function that does not report Cloudstate protocol 0.2; some SDKs report none"`
	SharedStream    bool     `name:"shared-stream" default:"true" help:"carry the sessions of all entities on one stream where the function can; false: a Cloudstate stream for each entity"`
	Reflection      bool     `name:"reflection" default:"true" help:"serve gRPC server reflection"`
	MaxRequest      Bytes    `name:"max-request" default:"4MiB" help:"largest request and reply"`
	MaxKey          Bytes    `name:"max-key" default:"1KiB" help:"longest entity id"`
	MaxCommit       Bytes    `name:"max-commit" default:"900KiB" help:"largest sum of what one command stores, with 50 to 200 bytes beside each record; the topic must take 124 KiB more (max.message.bytes)"`
	MaxRecords      int      `name:"max-commit-records" default:"1000" help:"largest number of records that one command stores"`
	WaitingEntity   int      `name:"max-waiting-entity" default:"128" help:"commands that may wait for one entity"`
	Waiting         int      `name:"max-waiting" default:"4096" help:"commands that may wait in one partition"`
	ActiveMemory    Bytes    `name:"active-memory" default:"256MiB" help:"memory of active entities before the least recently used leave"`
	BlockCache      Bytes    `name:"block-cache" default:"64MiB" help:"block cache of the store, and of the embedded log"`
	PassivateAfter  Duration `name:"passivate-after" default:"30s" help:"idle time after which an entity leaves memory, unless its type says otherwise"`
	DedupWindow     Duration `name:"dedup-window" default:"24h" help:"how long a command id is remembered"`
	FunctionWait    Duration `name:"function-wait" default:"10s" help:"how long a command waits for a function that is not there"`
	FunctionTime    Duration `name:"function-timeout" default:"30s" help:"how long a function may take for one command"`
	CallTimeout     Duration `name:"call-timeout" default:"0s" help:"cap on the time of a unary call, and the deadline of one that has none; 0: neither"`
	DrainTimeout    Duration `name:"drain-timeout" default:"10s" help:"how long calls may finish after a stop was asked for; those that hang then are cut off, and the process ends within 10s more"`
	DebugEndpoints  bool     `name:"debug-endpoints" default:"false" help:"serve Go's profiles at /debug/pprof/ of the admin port"`
	TraceEndpoint   string   `name:"trace-endpoint" default:"" help:"where spans of calls go, over OTLP/gRPC: host:port, http://host:port or https://host:port; none: there are no spans. OTEL_EXPORTER_OTLP_ENDPOINT is read too"`
	TraceSample     Share    `name:"trace-sample" default:"1" help:"share of calls that are traced, 0 to 1; calls that come with a traceparent are traced as that says"`
	GCPercent       int      `name:"gc-percent" default:"400" help:"how far the Go heap may grow between collections, in percent of what lives; GOGC wins. Beyond twice active-memory and 512 MiB it is collected more often, GOMEMLIMIT wins"`
	LogLevel        string   `name:"log-level" default:"info" help:"debug, info, warn or error"`
	LogFormat       string   `name:"log-format" default:"auto" help:"text, json, or auto: text on a terminal"`
}

// Share is a part of a whole, 0 to 1.
type Share float64

// UnmarshalText reads 0.05.
func (s *Share) UnmarshalText(b []byte) error {
	v, err := strconv.ParseFloat(string(b), 64)
	if err != nil || !(v >= 0 && v <= 1) { // also refuses what is not a number
		return fmt.Errorf("%q is not a share: write a number between 0 and 1, as in 0.05", b)
	}
	*s = Share(v)
	return nil
}

// MarshalText prints 0.05.
func (s Share) MarshalText() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(s), 'g', -1, 64), nil
}

// Duration is a time.Duration that reads and prints as 1m30s.
type Duration time.Duration

// UnmarshalText reads 1m30s.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a duration: write 500ms, 30s, 24h", b)
	}
	*d = Duration(v)
	return nil
}

// MarshalText prints 1m30s.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Bytes is a size that reads and prints as 4MiB.
type Bytes int64

var byteUnits = []struct { //nolint:gochecknoglobals // a table
	name string
	size int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// UnmarshalText reads 4MiB, 900KiB or a plain number of bytes.
func (n *Bytes) UnmarshalText(b []byte) error {
	s, unit := string(b), int64(1)
	for _, u := range byteUnits {
		if rest, found := strings.CutSuffix(s, u.name); found {
			s, unit = strings.TrimSpace(rest), u.size
			break
		}
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil || v < 0 || v > (1<<62)/unit {
		return fmt.Errorf("%q is not a size: write 900KiB, 4MiB, 1GiB", b)
	}
	*n = Bytes(v * unit)
	return nil
}

// MarshalText prints the size in its largest whole unit.
func (n Bytes) MarshalText() ([]byte, error) {
	for _, u := range byteUnits {
		if int64(n)%u.size == 0 && (n > 0 || u.size == 1) {
			return []byte(strconv.FormatInt(int64(n)/u.size, 10) + u.name), nil
		}
	}
	return nil, nil
}

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,99}$`)

// problem is what is wrong with one setting.
type problem struct{ setting, text string }

// Validate checks the settings as a whole and names every one that is wrong.
func (c *Config) Validate() error {
	var errs []error
	for _, p := range c.problems() {
		errs = append(errs, fmt.Errorf("setting %s: %s", p.setting, p.text))
	}
	return errors.Join(errs...)
}

// problems returns what is wrong with each setting, and with settings that do not go together.
func (c *Config) problems() []problem {
	var all []problem
	wrong := func(isWrong bool, name, format string, args ...any) {
		if isWrong {
			all = append(all, problem{name, fmt.Sprintf(format, args...)})
		}
	}
	const aName = "is not a name: use small letters, digits, '.', '_' and '-', at most 100"
	wrong(c.App == "" && len(c.Brokers) > 0, "app", "is not given: with brokers every app needs a name of its own, because all workers with one name share "+
		"its entities; name it after the service, as in --app shop (or MILLRACE_APP, app: in the configuration file, millrace.App in the program)")
	wrong(!validName.MatchString(c.App) && (c.App != "" || len(c.Brokers) == 0), "app", "%q %s", c.App, aName)
	wrong(c.Worker != "" && !validName.MatchString(c.Worker), "worker", "%q %s", c.Worker, aName)
	wrong(c.Partitions < 1 || c.Partitions > maxPartitions || c.Partitions&(c.Partitions-1) != 0,
		"partitions", "%d is not a power of two between 1 and %d", c.Partitions, maxPartitions)
	wrong(c.Replication < 0 || c.Replication > maxReplication, "replication", "%d is not between 0 and %d", c.Replication, maxReplication)
	wrong(c.Data == "" && !c.Ephemeral, "data", "is empty: name a directory, or set ephemeral")
	wrong(len(c.Brokers) > 0 && c.Ephemeral, "ephemeral", "has no meaning with brokers: the log is there")
	wrong(!slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel), "log-level", "%q is none of debug, info, warn, error", c.LogLevel)
	wrong(!slices.Contains([]string{"text", "json", "auto"}, c.LogFormat), "log-format", "%q is none of text, json, auto", c.LogFormat)
	for _, a := range append([]sourced{{c.Listen, "listen"}, {c.Admin, "admin"}, {c.Peer, "peer"}, {c.Function, "function"}}, c.brokers()...) {
		_, _, err := net.SplitHostPort(a.value)
		wrong(err != nil, a.where, "%q is not host:port: %v", a.value, err)
	}
	for _, a := range []sourced{{c.Advertise, "advertise"}, {c.AdvertisePublic, "advertise-public"}} {
		if a.value != "" {
			host, _, err := net.SplitHostPort(a.value)
			wrong(err != nil || host == "", a.where, "%q is not host:port as others reach it", a.value)
		}
	}
	if c.TraceEndpoint != "" {
		trouble := tracing.Problem(c.TraceEndpoint)
		wrong(trouble != "", "trace-endpoint", "%s", trouble)
	}
	wrong(c.Standbys < 0 || c.Standbys > maxStandbys, "standbys", "%d is not between 0 and %d", c.Standbys, maxStandbys)
	wrong(time.Duration(c.MovePatience) > maxMovePatience, "move-patience", "is above %v", maxMovePatience)
	for name, value := range c.aboveZero() {
		wrong(value <= 0, name, "must be above zero")
	}
	return all
}

// maxMovePatience is below the time for which an owner remembers a command that was forwarded to it.
const maxMovePatience = time.Minute

// Bounds of settings that are numbers without a unit. A slot is one of 4096, and Kafka has its replication in 16 bits.
const (
	maxPartitions  = 4096
	maxReplication = 1<<15 - 1
	maxStandbys    = 16
)

func (c *Config) brokers() []sourced {
	all := make([]sourced, 0, len(c.Brokers))
	for _, b := range c.Brokers {
		all = append(all, sourced{b, "brokers"})
	}
	return all
}

// aboveZero yields the settings in which zero would mean that nothing works.
func (c *Config) aboveZero() iter.Seq2[string, int64] {
	return func(yield func(string, int64) bool) {
		_ = yield("max-request", int64(c.MaxRequest)) && yield("max-key", int64(c.MaxKey)) && yield("max-commit", int64(c.MaxCommit)) &&
			yield("max-commit-records", int64(c.MaxRecords)) && yield("max-waiting-entity", int64(c.WaitingEntity)) &&
			yield("max-waiting", int64(c.Waiting)) && yield("active-memory", int64(c.ActiveMemory)) && yield("block-cache", int64(c.BlockCache)) &&
			yield("passivate-after", int64(c.PassivateAfter)) && yield("dedup-window", int64(c.DedupWindow)) &&
			yield("function-wait", int64(c.FunctionWait)) && yield("function-timeout", int64(c.FunctionTime)) &&
			yield("move-patience", int64(c.MovePatience)) &&
			yield("session-timeout", int64(c.SessionTimeout)) && yield("contract-check", int64(c.ContractCheck))
	}
}

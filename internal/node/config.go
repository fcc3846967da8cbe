package node

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Config is every setting of a worker. Each field is a flag, an environment variable (MILLRACE_ and the name in capitals)
// and a key of the configuration file, all under the name in its tag.
type Config struct {
	Listen         string   `name:"listen" default:"127.0.0.1:9000" help:"address of the public port: gRPC, gRPC-Web, Connect, HTTP/JSON"`
	Admin          string   `name:"admin" default:"127.0.0.1:9001" help:"address of the admin port: status, metrics, and what the command line asks"`
	Data           string   `name:"data" default:".millrace" help:"data directory: log/ (the data, on the embedded log) and store/ (a cache)"`
	Ephemeral      bool     `name:"ephemeral" default:"false" help:"keep everything in memory; it ends with the process"`
	App            string   `name:"app" default:"millrace" help:"name of the app: the prefix of its topics"`
	Partitions     int      `name:"partitions" default:"16" help:"partitions of a journal that is created: a power of two up to 4096"`
	Worker         string   `name:"worker" default:"" help:"name of this worker; by default one is made and kept in the data directory"`
	Brokers        []string `name:"brokers" default:"" help:"Kafka or Redpanda brokers, host:port; none: the embedded log"`
	CreateTopics   bool     `name:"create-topics" default:"true" help:"create missing topics; otherwise print the commands that do and stop"`
	Replication    int      `name:"replication" default:"0" help:"replication factor of topics that are created; 0: 3, or as many as there are brokers"`
	Function       string   `name:"function" default:"127.0.0.1:8080" help:"address of the user function"`
	ProtocolCheck  bool     `name:"protocol-check" default:"true" help:"refuse a function that does not report Cloudstate protocol 0.2; some SDKs report none"`
	Reflection     bool     `name:"reflection" default:"true" help:"serve gRPC server reflection"`
	MaxRequest     Bytes    `name:"max-request" default:"4MiB" help:"largest request and reply"`
	MaxKey         Bytes    `name:"max-key" default:"1KiB" help:"longest entity id"`
	MaxCommit      Bytes    `name:"max-commit" default:"900KiB" help:"largest sum of what one command stores; keep it below the topic's max.message.bytes"`
	MaxRecords     int      `name:"max-commit-records" default:"1000" help:"largest number of records that one command stores"`
	WaitingEntity  int      `name:"max-waiting-entity" default:"128" help:"commands that may wait for one entity"`
	Waiting        int      `name:"max-waiting" default:"4096" help:"commands that may wait in one partition"`
	ActiveMemory   Bytes    `name:"active-memory" default:"256MiB" help:"memory of active entities before the least recently used leave"`
	BlockCache     Bytes    `name:"block-cache" default:"64MiB" help:"block cache of the store, and of the embedded log"`
	PassivateAfter Duration `name:"passivate-after" default:"30s" help:"idle time after which an entity leaves memory, unless its type says otherwise"`
	DedupWindow    Duration `name:"dedup-window" default:"24h" help:"how long a command id is remembered"`
	FunctionWait   Duration `name:"function-wait" default:"10s" help:"how long a command waits for a function that is not there"`
	FunctionTime   Duration `name:"function-timeout" default:"30s" help:"how long a function may take for one command"`
	CallTimeout    Duration `name:"call-timeout" default:"0s" help:"cap on the time of a unary call, and the deadline of one that has none; 0: neither"`
	DrainTimeout   Duration `name:"drain-timeout" default:"10s" help:"how long calls may finish after a stop was asked for"`
	LogLevel       string   `name:"log-level" default:"info" help:"debug, info, warn or error"`
	LogFormat      string   `name:"log-format" default:"auto" help:"text, json, or auto: text on a terminal"`
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

// Validate checks the settings as a whole and names every one that is wrong.
func (c *Config) Validate() error {
	var errs []error
	wrong := func(name, format string, args ...any) {
		errs = append(errs, fmt.Errorf("setting %s: %s", name, fmt.Sprintf(format, args...)))
	}
	if !validName.MatchString(c.App) {
		wrong("app", "%q is not a name: use small letters, digits, '.', '_' and '-', at most 100", c.App)
	}
	if c.Worker != "" && !validName.MatchString(c.Worker) {
		wrong("worker", "%q is not a name: use small letters, digits, '.', '_' and '-', at most 100", c.Worker)
	}
	if c.Partitions < 1 || c.Partitions > 4096 || c.Partitions&(c.Partitions-1) != 0 {
		wrong("partitions", "%d is not a power of two between 1 and 4096", c.Partitions)
	}
	for _, a := range []struct{ name, address string }{{"listen", c.Listen}, {"admin", c.Admin}, {"function", c.Function}} {
		if _, _, err := net.SplitHostPort(a.address); err != nil {
			wrong(a.name, "%q is not host:port: %v", a.address, err)
		}
	}
	for _, b := range c.Brokers {
		if _, _, err := net.SplitHostPort(b); err != nil {
			wrong("brokers", "%q is not host:port: %v", b, err)
		}
	}
	if len(c.Brokers) > 0 && c.Ephemeral {
		wrong("ephemeral", "has no meaning with brokers: the log is there")
	}
	if c.Data == "" && !c.Ephemeral {
		wrong("data", "is empty: name a directory, or set ephemeral")
	}
	positive := []struct {
		name  string
		value int64
	}{
		{"max-request", int64(c.MaxRequest)}, {"max-key", int64(c.MaxKey)}, {"max-commit", int64(c.MaxCommit)}, {"max-commit-records", int64(c.MaxRecords)},
		{"max-waiting-entity", int64(c.WaitingEntity)}, {"max-waiting", int64(c.Waiting)}, {"active-memory", int64(c.ActiveMemory)},
		{"passivate-after", int64(c.PassivateAfter)}, {"dedup-window", int64(c.DedupWindow)}, {"function-wait", int64(c.FunctionWait)}, {"function-timeout", int64(c.FunctionTime)},
	}
	for _, p := range positive {
		if p.value <= 0 {
			wrong(p.name, "must be above zero")
		}
	}
	switch c.LogLevel {
	case "debug", "info", "warn", "error":
	default:
		wrong("log-level", "%q is none of debug, info, warn, error", c.LogLevel)
	}
	switch c.LogFormat {
	case "text", "json", "auto":
	default:
		wrong("log-format", "%q is none of text, json, auto", c.LogFormat)
	}
	return errors.Join(errs...)
}

package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"time"

	"github.com/millrace-io/millrace/broker-adapter/kafka"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/entities/host"
	"github.com/millrace-io/millrace/gateway"
	"github.com/millrace-io/millrace/internal/tracing"
	"github.com/millrace-io/millrace/partitions"
)

// The settings of each part, which declares them.
type (
	kafkaSettings     = kafka.Settings
	hostSettings      = host.Settings
	discoverySettings = discovery.Settings
	gatewaySettings   = gateway.Settings
)

// Config is every setting of a worker. Each field with a name in its tag is a flag, an environment
// variable (MILLRACE_ and the name in capitals) and a key of the configuration file. Package
// settings says what the tags mean.
type Config struct {
	Listen          string   `name:"listen" default:"127.0.0.1:9000" help:"address of the public port: gRPC, gRPC-Web, Connect, HTTP/JSON"`
	Admin           string   `name:"admin" default:"127.0.0.1:9001" help:"address of the admin port: status, metrics, admin service"`
	Data            string   `name:"data" default:".millrace" process:"worker" help:"data directory: log/ (the data, on the embedded log) and store/ (a cache)"`
	Ephemeral       bool     `name:"ephemeral" default:"false" process:"worker" help:"keep everything in memory; data is lost when the process exits"`
	App             string   `name:"app" default:"" help:"name of the app: prefix of its topics, and name of the group of its workers; required with brokers, otherwise millrace by default"`
	Partitions      int      `name:"partitions" default:"16" help:"number of partitions of the journal: a power of two up to 4096; further partitions of its topic are ignored"`
	Worker          string   `name:"worker" default:"" process:"worker" help:"name of this worker; by default generated, and kept in the data directory"`
	Brokers         []string `name:"brokers" default:"" help:"Kafka or Redpanda brokers, host:port; none: the embedded log"`
	Peer            string   `name:"peer" default:"127.0.0.1:9002" process:"worker" help:"address of the peer port, for other workers of the app; only with brokers"`
	Advertise       string   `name:"advertise" default:"" process:"worker" help:"host:port by which other workers reach the peer port; by default its address"`
	AdvertisePublic string   `name:"advertise-public" default:"" process:"worker" help:"host:port by which callers reach the public port, for answers of other workers; by default its address, unless that is a loopback address"`
	Standbys        int      `name:"standbys" default:"1" min:"0" max:"16" process:"worker" help:"hot standbys per partition, for failover and follower reads"`
	CreateTopics    bool     `name:"create-topics" default:"true" process:"worker" help:"create missing topics; false: print the commands that create them, and exit"`
	ServicesChanged bool     `name:"services-changed" default:"false" process:"worker" help:"start although none of the journal's entity types is served any more, as after the only service was renamed; entities of the old types stay in the log and are not served"`
	kafkaSettings

	Definitions string `name:"definitions" default:"" dev:"definitions" process:"worker" help:"directory with files of definitions (*.yaml): applied when the worker is ready, and again when they change; none: only what millrace apply has applied; with dev ./definitions by default"`

	Function string `name:"function" default:"127.0.0.1:8080" process:"worker" help:"address of the user function"`
	discoverySettings
	hostSettings

	gatewaySettings
	partitions.Limits
	BlockCache int `name:"block-cache" default:"64MiB" unit:"bytes" min:"1" process:"worker" help:"block cache of the store, and of the embedded log"`

	DrainTimeout   time.Duration `name:"drain-timeout" default:"10s" help:"how long in-flight calls may take to finish at shutdown; then they are aborted, and the process exits within another 10s"`
	DebugEndpoints bool          `name:"debug-endpoints" default:"false" help:"serve Go profiles at /debug/pprof/ of the admin port"`
	TraceEndpoint  string        `name:"trace-endpoint" default:"" help:"OTLP/gRPC endpoint for spans: host:port, http://host:port or https://host:port; none: no tracing; OTEL_EXPORTER_OTLP_ENDPOINT is read too"`
	TraceSample    float64       `name:"trace-sample" default:"1" help:"fraction of calls to trace, 0 to 1; a traceparent decides for its own call"`
	GCPercent      int           `name:"gc-percent" default:"400" help:"growth of the Go heap between collections, in percent, unless GOGC is set; above twice active-memory plus 512 MiB (gateway: 1 GiB) it is collected more often, unless GOMEMLIMIT is set"`
	LogLevel       string        `name:"log-level" default:"info" help:"debug, info, warn or error"`
	LogFormat      string        `name:"log-format" default:"auto" help:"text, json, or auto: text on a terminal"`
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
	wrong(c.Data == "" && !c.Ephemeral, "data", "is empty: name a directory, or set ephemeral")
	wrong(len(c.Brokers) > 0 && c.Ephemeral, "ephemeral", "has no meaning with brokers: the log is there")
	wrong(!slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel), "log-level", "%q is unknown: use debug, info, warn or error", c.LogLevel)
	wrong(!slices.Contains([]string{"text", "json", "auto"}, c.LogFormat), "log-format",
		"%q is unknown: use text, json or auto", c.LogFormat)
	for _, a := range append([]sourced{
		{c.Listen, "listen"},
		{c.Admin, "admin"},
		{c.Peer, "peer"},
		{c.Function, "function"},
	}, c.brokers()...) {
		_, port, err := net.SplitHostPort(a.value)
		wrong(err != nil, a.where, "%q is not host:port: %v", a.value, err)
		wrong(err == nil && !isPort(port), a.where, "%q is not host:port: %q is not a port", a.value, port)
	}
	for _, a := range []sourced{{c.Advertise, "advertise"}, {c.AdvertisePublic, "advertise-public"}} {
		if a.value != "" {
			host, port, err := net.SplitHostPort(a.value)
			wrong(err != nil || host == "" || !isPort(port), a.where, "%q is not host:port as others reach it", a.value)
		}
	}
	if c.TraceEndpoint != "" {
		trouble := tracing.Problem(c.TraceEndpoint)
		wrong(trouble != "", "trace-endpoint", "%s", trouble)
	}
	wrong(c.CORSProblem() != "", "cors-origins", "%s", c.CORSProblem())
	for _, s := range Settings() {
		outOfBounds := s.OutOfBounds(c)
		wrong(outOfBounds != "", s.Name, "%s", outOfBounds)
	}
	return all
}

// isPort reports whether a text is the number of a port, or a name that this machine knows for one.
func isPort(text string) bool {
	_, err := net.DefaultResolver.LookupPort(context.Background(), "tcp", text)
	return err == nil && text != ""
}

// maxPartitions is the number of slots.
const maxPartitions = 4096

func (c *Config) brokers() []sourced {
	all := make([]sourced, 0, len(c.Brokers))
	for _, b := range c.Brokers {
		all = append(all, sourced{b, "brokers"})
	}
	return all
}

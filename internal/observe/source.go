package observe

// Kind is the nature of a metric.
type Kind int

// The kinds of metrics.
const (
	// Counter only grows while the process lives; its name ends in _total.
	Counter Kind = iota
	// Gauge goes up and down.
	Gauge
	// Latency is a Histogram in seconds; its name ends in _seconds.
	Latency
)

// Metric describes one metric.
type Metric struct {
	// Name has the form millrace_<package>_<noun>_<unit>.
	Name string
	// Help is one sentence for the operator.
	Help string
	Kind Kind
	// Labels name the dimensions. Their values must be bounded: a partition, never an entity.
	Labels []string
}

// Source has the metrics of a package.
type Source struct {
	Metrics []Metric
	// Collect emits the present values of the metrics. It may be called from several goroutines at
	// once and must not block.
	Collect func(Emitter)
}

// Emitter takes the values during a Collect. An undeclared name, a wrong kind or a wrong number of
// label values fails the scrape with an error that names the metric.
type Emitter interface {
	// Value emits a Counter or Gauge.
	Value(name string, value float64, labels ...string)
	// Latency emits a Latency.
	Latency(name string, snapshot Snapshot, labels ...string)
}

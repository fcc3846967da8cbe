package observe

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

var metricName = regexp.MustCompile(`^millrace(_[a-z0-9]+){2,}$`)

// Collector exports the sources to Prometheus. The error lists every metric whose name, help or
// uniqueness breaks the rules.
func Collector(sources ...Source) (prometheus.Collector, error) {
	c := &collector{sources: sources, described: map[string]described{}}
	var broken []error
	for _, source := range sources {
		for _, metric := range source.Metrics {
			if _, twice := c.described[metric.Name]; twice {
				broken = append(broken, fmt.Errorf("metric %s is declared twice", metric.Name))
				continue
			}
			if err := metric.check(); err != nil {
				broken = append(broken, err)
			}
			c.described[metric.Name] = described{
				kind: metric.Kind,
				desc: prometheus.NewDesc(metric.Name, metric.Help, metric.Labels, nil),
			}
		}
	}
	return c, errors.Join(broken...)
}

func (m *Metric) check() error {
	suffix := map[Kind]string{Counter: "_total", Latency: "_seconds"}[m.Kind]
	switch {
	case !metricName.MatchString(m.Name):
		return fmt.Errorf("metric %q is not named millrace_<package>_<noun>_<unit>", m.Name)
	case !strings.HasSuffix(m.Name, suffix):
		return fmt.Errorf("metric %s must end in %s", m.Name, suffix)
	case m.Help == "":
		return fmt.Errorf("metric %s has no help", m.Name)
	}
	return nil
}

// described is a metric as Prometheus knows it.
type described struct {
	kind Kind
	desc *prometheus.Desc
}

// collector implements prometheus.Collector. It never changes after Collector made it.
type collector struct {
	sources   []Source
	described map[string]described
}

// Describe sends the descriptions of all metrics.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.described {
		out <- d.desc
	}
}

// Collect asks every source for its values.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	for _, source := range c.sources {
		source.Collect(emitter{c.described, out})
	}
}

// emitter sends what a source emits to Prometheus.
type emitter struct {
	described map[string]described
	out       chan<- prometheus.Metric
}

// Value implements Emitter.
func (e emitter) Value(name string, value float64, labels ...string) {
	d, ok := e.described[name]
	kind := prometheus.GaugeValue
	switch {
	case !ok || d.kind == Latency:
		e.refuse(name, errors.New("emitted as a value but not declared as one"))
		return
	case d.kind == Counter:
		kind = prometheus.CounterValue
	}
	metric, err := prometheus.NewConstMetric(d.desc, kind, value, labels...)
	e.send(name, metric, err)
}

// Latency implements Emitter.
func (e emitter) Latency(name string, s Snapshot, labels ...string) {
	d, ok := e.described[name]
	if !ok || d.kind != Latency {
		e.refuse(name, errors.New("emitted as a latency but not declared as one"))
		return
	}
	metric, err := prometheus.NewConstHistogram(d.desc, s.Count, s.Sum.Seconds(), s.cumulative(), labels...)
	e.send(name, metric, err)
}

func (e emitter) send(name string, metric prometheus.Metric, err error) {
	if err != nil {
		e.refuse(name, err)
		return
	}
	e.out <- metric
}

func (e emitter) refuse(name string, err error) {
	err = fmt.Errorf("metric %s: %w", name, err)
	e.out <- prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(err), err)
}

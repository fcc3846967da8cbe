package node

import (
	"log/slog"
	"sync/atomic"

	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/internal/tracing"
)

// newTracer returns what begins the spans of a process, nil when none are wanted. worker is empty
// for a gateway.
func (c *Config) newTracer(worker, version string, logger *slog.Logger) (*tracing.Tracer, error) {
	var failing atomic.Bool
	return tracing.New(tracing.Options{
		Endpoint: c.TraceEndpoint, Sample: c.TraceSample, App: c.App, Worker: worker, Version: version,
		OnError: func(err error) {
			switch was := failing.Swap(err != nil); {
			case err != nil && !was:
				logger.Warn("spans are dropped: they cannot be exported", observe.Address, c.TraceEndpoint, observe.Error, err)
			case err == nil && was:
				logger.Info("spans are exported again", observe.Address, c.TraceEndpoint)
			}
		},
	})
}

// traceMetrics count spans.
func traceMetrics(t *tracing.Tracer) observe.Source {
	type f = tracing.Stats
	columns := []column[f]{
		counter("millrace_tracing_exported_spans_total", "Spans that the endpoint has taken.",
			func(s f) uint64 { return s.Exported }),
		counter("millrace_tracing_dropped_spans_total", "Spans that could not be exported. Those that did not fit into the queue are not counted.",
			func(s f) uint64 { return s.Dropped }),
	}
	return measured(columns, func(take func(f, ...string)) {
		if t != nil {
			take(t.Stats())
		}
	})
}

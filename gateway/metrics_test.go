package gateway_test

import (
	"testing"

	"github.com/millrace-io/millrace/internal/observe"
)

// emitted collects what a source emits.
type emitted map[string]float64

func (e emitted) Value(name string, value float64, labels ...string) {
	for _, label := range labels {
		name += "/" + label
	}
	e[name] = value
}

func (e emitted) Latency(name string, snapshot observe.Snapshot, _ ...string) {
	e[name] = float64(snapshot.Count)
}

// The metrics pass the rules for names, and have the right values.
func TestMetrics(t *testing.T) {
	w := newWorld(t, &dispatcher{}, nil)
	w.always(w.reply("Cart", `{}`))
	w.http("POST", plainPath, `{"cartId":"1"}`, jsonType, jsonValue)
	w.http("POST", plainPath, `{}`, jsonType, jsonValue)

	source := w.server.Metrics()
	if _, err := observe.Collector(source); err != nil {
		t.Fatal(err)
	}
	got := emitted{}
	source.Collect(got)
	for name, want := range map[string]float64{
		"millrace_gateway_calls_total/OK": 1, "millrace_gateway_calls_total/InvalidArgument": 1, "millrace_gateway_calls_total/Internal": 0,
		"millrace_gateway_call_seconds": 2, "millrace_gateway_connections_total/http": 2, "millrace_gateway_connections_total/grpc": 0,
		"millrace_gateway_refused_connections_total": 0, "millrace_gateway_unsniffed_connections_total": 0, "millrace_gateway_waiting_calls": 0,
	} {
		if value, there := got[name]; !there || value != want {
			t.Errorf("%s is %v (%v)", name, value, there)
		}
	}
}

package tracing

import (
	"errors"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/millrace-io/millrace/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// The example of the W3C's recommendation, traced and not.
const (
	traceID   = "0af7651916cd43dd8448eb211c80319c"
	spanID    = "b7ad6b7169203331"
	traced    = "00-" + traceID + "-" + spanID + "-01"
	notTraced = "00-" + traceID + "-" + spanID + "-00"
)

// inMemory returns a tracer that samples calls without a trace context, or not, and its exporter.
func inMemory(t *testing.T, sampler sdktrace.Sampler) (*Tracer, *tracetest.InMemoryExporter) {
	t.Helper()
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans), sdktrace.WithSampler(sdktrace.ParentBased(sampler)))
	return &Tracer{tracer: provider.Tracer("test"), provider: provider}, spans
}

func TestProblem(t *testing.T) {
	for endpoint, fine := range map[string]bool{
		"localhost:4317": true, "http://localhost:4317": true, "https://collector.example": true, "[::1]:4317": true,
		"localhost": false, ":4317": false, "ftp://localhost:4317": false, "http://": false, "http://%": false,
	} {
		if problem := Problem(endpoint); (problem == "") != fine {
			t.Errorf("%s: %q", endpoint, problem)
		}
	}
}

// TestEnter: the caller decides whether a call is traced, or the sampler if there is no valid trace
// context.
func TestEnter(t *testing.T) {
	for name, c := range map[string]struct {
		parent  string
		sampler sdktrace.Sampler
		traced  bool
	}{
		"the caller wants it":            {traced, sdktrace.NeverSample(), true},
		"the caller does not want it":    {notTraced, sdktrace.AlwaysSample(), false},
		"the caller says nothing":        {"", sdktrace.AlwaysSample(), true},
		"not sampled":                    {"", sdktrace.NeverSample(), false},
		"a parent that is no hex":        {strings.Repeat("x", len(traced)), sdktrace.AlwaysSample(), true},
		"a parent that is cut":           {traced[:20], sdktrace.NeverSample(), false},
		"a parent without ids":           {"00-" + strings.Repeat("0", 32) + "-" + strings.Repeat("0", 16) + "-01", sdktrace.NeverSample(), false},
		"a parent with flags of no sort": {traced[:len(traced)-2] + "zz", sdktrace.AlwaysSample(), false},
	} {
		t.Run(name, func(t *testing.T) {
			tracer, spans := inMemory(t, c.sampler)
			_, span := tracer.Enter(t.Context(), "call", c.parent)
			span.End(nil)
			if got := len(spans.GetSpans()) == 1; got != c.traced || (span != nil) != c.traced {
				t.Errorf("traced: %t", got)
			}
		})
	}
}

// TestSpans: children have the span as their parent, through the trace context.
func TestSpans(t *testing.T) {
	tracer, spans := inMemory(t, sdktrace.NeverSample())
	_, outer := tracer.Enter(t.Context(), "outer", traced)
	_, inner := tracer.Begin(t.Context(), Internal, "inner", outer.Parent())
	inner.Set("entity", "cart")
	inner.SetInt("offset", 7)
	inner.Event("decided")
	inner.End(errors.New("it failed"))
	outer.End(nil)
	got := spans.GetSpans()
	if len(got) != 2 {
		t.Fatalf("%d spans", len(got))
	}
	if s := got[0]; s.Name != "inner" || s.Parent.SpanID() != got[1].SpanContext.SpanID() ||
		s.Status.Code != codes.Error || s.Status.Description != "it failed" ||
		len(s.Attributes) != 2 || len(s.Events) != 1 {
		t.Errorf("the inner span: %+v", s)
	}
	if s := got[1]; s.Name != "outer" || s.Parent.SpanID().String() != spanID ||
		s.SpanContext.TraceID().String() != traceID || s.Status.Code != codes.Unset {
		t.Errorf("the outer span: %+v", s)
	}
	if err := tracer.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestOff: without an endpoint there are no spans and no allocations.
func TestOff(t *testing.T) {
	tracer, err := New(Options{})
	if tracer != nil || err != nil {
		t.Fatalf("%v, %v", tracer, err)
	}
	failure, caller := errors.New("it failed"), t.Context()
	if n := testing.AllocsPerRun(100, func() {
		ctx, span := tracer.Enter(caller, "call", traced)
		_, below := tracer.Begin(ctx, Client, "hop", span.Parent())
		below.Set("entity", "cart")
		below.SetInt("offset", 7)
		below.Event("decided")
		below.End(failure)
		span.End(nil)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if s := tracer.Stats(); s != (Stats{}) {
		t.Errorf("%+v", s)
	}
	tracer.CloseInTime()
}

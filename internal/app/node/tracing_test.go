package node

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/millrace-io/millrace/entities"
	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
)

// spans is an endpoint that keeps what it is sent.
type spans struct {
	collector.UnimplementedTraceServiceServer
	mu  sync.Mutex
	all map[string]received // by span id
}

// received is a span, and the process that it came from.
type received struct {
	*tracev1.Span
	worker string
}

// Export takes spans.
func (s *spans) Export(_ context.Context,
	in *collector.ExportTraceServiceRequest,
) (*collector.ExportTraceServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range in.GetResourceSpans() {
		worker := ""
		for _, a := range r.GetResource().GetAttributes() {
			if a.GetKey() == "service.instance.id" {
				worker = a.GetValue().GetStringValue()
			}
		}
		for _, scope := range r.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				s.all[string(span.GetSpanId())] = received{span, worker}
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// path is the way from the root of a trace to the span of a function's call: each span's name, and
// in which process it was.
func (s *spans) path(trace []byte) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, span := range s.all {
		if span.GetName() != "function" || !bytes.Equal(span.GetTraceId(), trace) {
			continue
		}
		text := ""
		for known := true; known; span, known = s.all[string(span.GetParentSpanId())] {
			text = fmt.Sprintf(" > %s@%s", span.GetName(), span.worker) + text
		}
		return text
	}
	return ""
}

func (s *spans) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

func receiveSpans(t *testing.T) (*spans, string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &spans{all: map[string]received{}}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, s)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }() // ended by Stop
	t.Cleanup(func() {
		server.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s, l.Addr().String()
}

// TestOneTraceOverAllHops: from the port of one process over the link to the owner's function, and
// with the caller's own context above it. Without a sampled context and with a share of 0 there is
// nothing.
func TestOneTraceOverAllHops(t *testing.T) {
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "10") // ms until spans are sent
	s, endpoint := receiveSpans(t)
	a := newApp(t, 0)
	a.endpoint = endpoint
	a.add()
	a.add()
	a.balanced()
	g := startGateway(t, a)

	const method = "counter.v1.CounterService/Increment"
	id := "x"
	owner, _ := a.workers[0].routes.Current().Owner(entities.Partition(id, 4))
	other := a.workers[0]
	if owner.Name == other.identity.Worker {
		other = a.workers[1]
	}
	trace := []byte("0123456789abcdef")
	for i, c := range []struct{ address, want string }{
		{other.PublicAddress(), fmt.Sprintf(" > %s@%s > forward@%s > partition@%s > function@%s", method, other.identity.Worker, other.identity.Worker, owner.Name, owner.Name)},
		{g.Status(t.Context()).GetPublicAddress(), fmt.Sprintf(" > %s@ > forward@ > partition@%s > function@%s", method, owner.Name, owner.Name)},
	} {
		trace[0] = byte('a' + i)
		if _, err := a.increment(c.address, id, "traceparent", fmt.Sprintf("00-%x-00f067aa0ba902b7-01", trace)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the whole way of the call"+c.want, func() bool { return s.path(trace) == c.want })
	}

	before := s.count()
	client := counterv1.NewCounterServiceClient(dial(t, other.PublicAddress()))
	for _, parent := range []string{"", fmt.Sprintf("00-%x-00f067aa0ba902b7-00", trace)} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", parent)
		if _, err := client.Increment(ctx, &counterv1.IncrementRequest{CounterId: id}); err != nil {
			t.Fatal(err)
		}
	}
	trace[0] = 'z'
	if _, err := a.increment(other.PublicAddress(), id, "traceparent",
		fmt.Sprintf("00-%x-00f067aa0ba902b7-01", trace)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the last call", func() bool { return s.path(trace) != "" && s.count() >= before+6 })
	if n := s.count(); n != before+6 {
		t.Errorf("%d spans of three calls, of which one is to be traced with 6", n-before)
	}
}

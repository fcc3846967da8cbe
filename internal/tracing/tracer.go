package tracing

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Options configure a Tracer.
type Options struct {
	// Endpoint takes spans over OTLP/gRPC: host:port or http://host:port in plaintext,
	// https://host:port with TLS. The other variables of the standard, OTEL_EXPORTER_OTLP_HEADERS
	// and so on, are read from the environment.
	Endpoint string
	// Sample is the share of calls without a trace context that are traced, 0 to 1. Calls with a
	// trace context follow its flag.
	Sample float64
	// App, Worker and Version are attributes of all spans; Worker is empty for a gateway.
	App, Worker, Version string
	// OnError gets the error when spans could not be exported, and nil when export works again. It
	// must not block.
	OnError func(error)
}

// Tracer begins spans. Nil is off.
type Tracer struct {
	tracer   trace.Tracer
	provider *sdktrace.TracerProvider
	exporter *exporter
}

// Problem returns what is wrong with an endpoint; "" if nothing is.
func Problem(endpoint string) string {
	host := endpoint
	if scheme, _, isURL := strings.Cut(endpoint, "://"); isURL {
		u, err := url.Parse(endpoint)
		if err != nil || scheme != "http" && scheme != "https" {
			return fmt.Sprintf("%q is not host:port, http://host:port or https://host:port", endpoint)
		}
		if host = u.Host; u.Port() == "" {
			host = net.JoinHostPort(u.Hostname(), "4317")
		}
	}
	if name, _, err := net.SplitHostPort(host); err != nil || name == "" {
		return fmt.Sprintf("%q is not host:port, http://host:port or https://host:port", endpoint)
	}
	return ""
}

// New returns a tracer that exports to the endpoint, nil when there is none. It does not wait for a
// connection.
func New(o Options) (*Tracer, error) {
	if o.Endpoint == "" {
		return nil, nil //nolint:nilnil // nil is off
	}
	endpoint := o.Endpoint
	if !strings.Contains(endpoint, "://") {
		endpoint = "http://" + endpoint
	}
	// This does not dial: the connection is made in the background, with retries.
	client, err := otlptracegrpc.New(context.Background(), otlptracegrpc.WithEndpointURL(endpoint))
	if err != nil {
		return nil, fmt.Errorf("export spans to %s: %w", o.Endpoint, err)
	}
	attributes := []attribute.KeyValue{
		attribute.String("service.name", o.App), attribute.String("service.namespace", "millrace"),
		attribute.String("service.version", o.Version),
	}
	if o.Worker != "" {
		attributes = append(attributes, attribute.String("service.instance.id", o.Worker))
	}
	e := &exporter{to: client, onError: o.OnError}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(e),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(o.Sample))),
		sdktrace.WithResource(resource.NewSchemaless(attributes...)),
	)
	return &Tracer{tracer: provider.Tracer("github.com/millrace-io/millrace"), provider: provider, exporter: e}, nil
}

// Close exports what is left, until ctx ends, and ends the tracer's goroutines.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// Stats counts what a Tracer has done.
type Stats struct {
	// Exported spans were accepted by the endpoint, Dropped ones were not.
	Exported, Dropped uint64
}

// Stats returns the counters.
func (t *Tracer) Stats() Stats {
	if t == nil {
		return Stats{}
	}
	return Stats{Exported: t.exporter.exported.Load(), Dropped: t.exporter.dropped.Load()}
}

// exporter counts exported spans, and keeps errors from OpenTelemetry's own handler, which would
// print them.
type exporter struct {
	to                sdktrace.SpanExporter
	onError           func(error)
	exported, dropped atomic.Uint64
}

// ExportSpans sends spans.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.to.ExportSpans(ctx, spans)
	if err != nil {
		e.dropped.Add(uint64(len(spans)))
		err = fmt.Errorf("export spans: %w", err)
	} else {
		e.exported.Add(uint64(len(spans)))
	}
	if e.onError != nil {
		e.onError(err)
	}
	return nil
}

// Shutdown ends the connection.
func (e *exporter) Shutdown(ctx context.Context) error { return e.to.Shutdown(ctx) }

// Kind says which side of a call a span is.
type Kind = trace.SpanKind

// The kinds of spans.
const (
	Internal Kind = trace.SpanKindInternal
	Server   Kind = trace.SpanKindServer
	Client   Kind = trace.SpanKindClient
)

// Enter begins the span of a call that enters the app. parent is the caller's W3C trace context, ""
// for none; it decides here whether the call is traced. The span is nil if it is not.
func (t *Tracer) Enter(ctx context.Context, name, parent string) (context.Context, *Span) {
	if t == nil {
		return ctx, nil
	}
	inner, span := t.tracer.Start(remote(ctx, parent), name, trace.WithSpanKind(Server))
	if !span.IsRecording() {
		return ctx, nil
	}
	return inner, &Span{span}
}

// Begin begins a span under a parent, given as W3C trace context. The span is nil when the parent
// is not traced.
func (t *Tracer) Begin(ctx context.Context, kind Kind, name, parent string) (context.Context, *Span) {
	if t == nil || !Sampled(parent) {
		return ctx, nil
	}
	inner, span := t.tracer.Start(remote(ctx, parent), name, trace.WithSpanKind(kind)) //nolint:spancheck // the caller ends it
	return inner, &Span{span}                                                          //nolint:spancheck // the same
}

// Span is a span of a traced call. Nil: the call is not traced.
type Span struct{ span trace.Span }

// Parent returns the W3C trace context for children of the span; "" for nil.
func (s *Span) Parent() string {
	if s == nil {
		return ""
	}
	c := s.span.SpanContext()
	return "00-" + c.TraceID().String() + "-" + c.SpanID().String() + "-" + c.TraceFlags().String()
}

// Set sets an attribute of the span.
func (s *Span) Set(key, value string) {
	if s != nil {
		s.span.SetAttributes(attribute.String(key, value))
	}
}

// SetInt sets a numeric attribute of the span.
func (s *Span) SetInt(key string, value int64) {
	if s != nil {
		s.span.SetAttributes(attribute.Int64(key, value))
	}
}

// Event adds an event at the present time.
func (s *Span) Event(name string) {
	if s != nil {
		s.span.AddEvent(name)
	}
}

// End ends the span; err is nil if the work succeeded.
func (s *Span) End(err error) {
	if s == nil {
		return
	}
	if err != nil {
		s.span.SetStatus(statusError, err.Error())
	}
	s.span.End()
}

// closeTimeout is how long the last spans may take to be exported.
const closeTimeout = 2 * time.Second

// CloseInTime is Close with closeTimeout, for the end of a process. Spans that cannot be exported
// by then are dropped.
func (t *Tracer) CloseInTime() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = t.Close(ctx)
}

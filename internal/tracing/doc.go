// Package tracing makes OpenTelemetry spans of commands and exports them. It is the only package
// that knows OpenTelemetry.
//
// A nil *Tracer is off: its methods, and those of the nil *Span that they return, do nothing and do
// not allocate. That is the case unless an endpoint is configured. Whether a call is
// traced is decided once, where it enters the app: below, a span begins only under a parent that is
// sampled, which travels as W3C trace context in entities.Command.TraceParent.
//
// A Tracer that exports has goroutines of the OpenTelemetry SDK, which gather spans and send them;
// Close ends them. A Tracer may be used from many goroutines, a Span by one at a time. Spans that
// cannot be exported are dropped, counted and reported to Options.OnError; no command waits for
// them.
package tracing

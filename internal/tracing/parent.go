package tracing

import (
	"context"
	"encoding/hex"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

const statusError = codes.Error

// A W3C trace context of version 0: 00-trace id-span id-flags.
const (
	traceAt, spanAt, flagsAt = 3, 36, 53
	parentLen                = 55
)

// Sampled reports whether a W3C trace context asks for the call to be traced.
func Sampled(parent string) bool {
	if len(parent) != parentLen {
		return false
	}
	flags, err := hex.DecodeString(parent[flagsAt:])
	return err == nil && trace.TraceFlags(flags[0]).IsSampled()
}

// remote makes a parent of a W3C trace context. An invalid one is ignored.
func remote(ctx context.Context, parent string) context.Context {
	if len(parent) != parentLen {
		return trace.ContextWithSpanContext(ctx, trace.SpanContext{})
	}
	var c trace.SpanContextConfig
	c.TraceID, _ = trace.TraceIDFromHex(parent[traceAt : spanAt-1])
	c.SpanID, _ = trace.SpanIDFromHex(parent[spanAt : flagsAt-1])
	if Sampled(parent) {
		c.TraceFlags = trace.FlagsSampled
	}
	c.Remote = true
	return trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(c))
}

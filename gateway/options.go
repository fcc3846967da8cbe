package gateway

import (
	"log/slog"
	"time"

	"github.com/millrace-io/millrace/internal/clock"
	"github.com/millrace-io/millrace/internal/settings"
	"github.com/millrace-io/millrace/internal/tracing"
)

// Settings are the settings of a gateway.
type Settings struct {
	// MaxRequest bounds one message, as uncompressed protobuf, in either direction. 0: its default.
	MaxRequest int `name:"max-request" default:"4MiB" unit:"bytes" min:"1" help:"maximum size of a request or a reply"`
	// CallTimeout bounds the time of a unary call, and is the deadline of one that has none. 0: no
	// bound.
	CallTimeout time.Duration `name:"call-timeout" default:"0s" help:"maximum time of a unary call, and its deadline if the caller sets none; 0: none"`
	// Reflection serves gRPC server reflection.
	Reflection bool `name:"reflection" default:"true" help:"serve gRPC server reflection"`
	// CORSOrigins are the origins whose pages may call from a browser; none: only those of the
	// public port itself.
	CORSOrigins []string `name:"cors-origins" default:"" dev:"localhost" help:"origins whose pages may call from a browser: https://app.example.com, https://*.example.com, http://host:* (any port), localhost (this machine, any port) or *; none: the same origin only; with dev localhost by default"`
	// CORSCredentials lets these pages send cookies and client certificates.
	CORSCredentials bool `name:"cors-credentials" default:"false" help:"allow pages of cors-origins to send cookies and client certificates; not together with *"`
	// CORSMaxAge is how long a browser keeps what it was told of an origin.
	CORSMaxAge time.Duration `name:"cors-max-age" default:"2h" help:"how long browsers may cache the answer to a preflight request"`
}

// Options configure a Server. Dispatcher is required; a zero value of another field means its
// default.
type Options struct {
	Settings
	// Dispatcher runs the commands.
	Dispatcher Dispatcher
	// DispatcherOf returns the dispatcher of a service, or nil for Dispatcher. It is called for
	// each call and must not block. Nil: Dispatcher runs all.
	DispatcherOf func(service string) Dispatcher
	// App is the app whose tokens are accepted.
	App string
	// Log gets what no caller gets: connections that broke the protocol, errors of the inner
	// servers. Nil: nothing is logged.
	Log *slog.Logger
	// Tracer begins the spans of calls; nil: none.
	Tracer *tracing.Tracer
	// Unsure says why a method that is not served here may be served elsewhere or in a moment, as
	// during a rolling upgrade: its caller should try again. Empty: it is not served. Nil: always
	// empty.
	Unsure func() string
	// Clock is the wall clock except in tests.
	Clock clock.Clock

	// MaxHeaderBytes bounds the headers of one request.
	MaxHeaderBytes int `default:"16KiB" unit:"bytes"`
	// MaxStreams bounds the calls that run at once on one HTTP/2 connection.
	MaxStreams int `default:"250"`
	// MaxConnections bounds the open connections; one above it is closed at once.
	MaxConnections int `default:"16384"`

	// BodyTimeout is how long the body of a request with one message may take to arrive over
	// net/http.
	BodyTimeout time.Duration `default:"30s"`
	// SniffTimeout is how long a new connection may take to show its protocol, or the header of an
	// HTTP/1.1 request to arrive.
	SniffTimeout time.Duration `default:"10s"`
	// MaxSniffBytes bounds what a connection may send before its first HTTP/2 request is complete.
	MaxSniffBytes int `default:"64KiB" unit:"bytes"`

	// FunctionWait is how long a call waits for the first catalog, MaxEarly how many may wait.
	// FunctionWait 0: none.
	FunctionWait time.Duration
	MaxEarly     int `default:"1024"`
	// RetireAfter is how long calls of a replaced catalog may go on before they are aborted.
	RetireAfter time.Duration `default:"1m"`

	// KeepaliveTime is the silence after which a native gRPC connection is probed, KeepaliveTimeout
	// how long it has to answer, MinPingInterval the least time between the pings of a client.
	KeepaliveTime    time.Duration `default:"1m"`
	KeepaliveTimeout time.Duration `default:"20s"`
	MinPingInterval  time.Duration `default:"10s"`
	// MaxConnectionAge makes clients of native gRPC reconnect after a time, so that they spread
	// over workers. 0: never.
	MaxConnectionAge time.Duration
	// IdleTimeout closes a connection of net/http on which nothing happens.
	IdleTimeout time.Duration `default:"2m"`
}

func (o *Options) setDefaults() {
	if o.Dispatcher == nil {
		panic("gateway: Options.Dispatcher is nil")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = clock.Wall{}
	}
	settings.Fill(o)
}

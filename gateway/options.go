package gateway

import (
	"log/slog"
	"time"

	"github.com/millrace-io/millrace/internal/clock"
	"github.com/millrace-io/millrace/internal/settings"
	"github.com/millrace-io/millrace/internal/tracing"
)

// Settings bound what callers may ask for.
type Settings struct {
	// MaxRequest bounds one message, uncompressed, in either direction. 0: its default.
	MaxRequest int `name:"max-request" default:"4MiB" unit:"bytes" min:"1" help:"largest request and reply"`
	// CallTimeout caps the time of a unary call, and is what one gets that comes without a
	// deadline. 0: neither.
	CallTimeout time.Duration `name:"call-timeout" default:"0s" help:"cap on the time of a unary call, and the deadline of one that has none; 0: neither"`
	// Reflection serves gRPC server reflection.
	Reflection bool `name:"reflection" default:"true" help:"serve gRPC server reflection"`
}

// Options configure a Server. Dispatcher is required; zero in one of the other fields means its
// default.
type Options struct {
	Settings
	// Dispatcher runs the commands.
	Dispatcher Dispatcher
	// DispatcherOf returns what runs the commands of one service instead; nil: Dispatcher does. It is asked for each call, and must
	// not block. Nil: Dispatcher runs all.
	DispatcherOf func(service string) Dispatcher
	// App is the app whose tokens are honoured.
	App string
	// Log gets what cannot be told to a caller: connections that broke the protocol, faults of the inner servers. Nil: nothing.
	Log *slog.Logger
	// Tracer begins the spans of calls; nil: there are none.
	Tracer *tracing.Tracer
	// Mixed says whether the workers of the app serve different things at the moment, as during a rolling upgrade: then a method that is
	// not known here may be known elsewhere, and a caller is told to come again. Nil: they never do.
	Mixed func() bool
	// Clock is the wall clock unless a test turns another.
	Clock clock.Clock

	// MaxHeaderBytes bounds the headers of one request.
	MaxHeaderBytes int `default:"16KiB" unit:"bytes"`
	// MaxStreams bounds the calls that run at once on one HTTP/2 connection.
	MaxStreams int `default:"250"`
	// MaxConnections bounds the open connections; one above it is closed at once.
	MaxConnections int `default:"16384"`

	// BodyTimeout is how long the body of a request with one message may take to arrive over net/http.
	BodyTimeout time.Duration `default:"30s"`
	// SniffTimeout is how long a new connection may take to show its protocol, or the header of an HTTP/1.1 request to arrive.
	SniffTimeout time.Duration `default:"10s"`
	// MaxSniffBytes bounds what a connection may send before its first HTTP/2 request is complete.
	MaxSniffBytes int `default:"64KiB" unit:"bytes"`

	// FunctionWait is how long a call waits for the first catalog, MaxEarly how many may.
	// FunctionWait 0: none does.
	FunctionWait time.Duration
	MaxEarly     int `default:"1024"`
	// RetireAfter is how long calls of a replaced catalog may go on before they are cut.
	RetireAfter time.Duration `default:"1m"`

	// KeepaliveTime is the silence after which a native gRPC connection is probed, KeepaliveTimeout how long it has to
	// answer, MinPingInterval the least time between the pings of a client.
	KeepaliveTime    time.Duration `default:"1m"`
	KeepaliveTimeout time.Duration `default:"20s"`
	MinPingInterval  time.Duration `default:"10s"`
	// MaxConnectionAge makes clients of native gRPC connect anew after a time, so that they spread over workers. 0: never.
	MaxConnectionAge time.Duration
	// IdleTimeout closes a connection of net/http on which nothing happens.
	IdleTimeout time.Duration `default:"2m"`
}

func (o *Options) setDefaults() {
	if o.Dispatcher == nil {
		panic("gateway: Options.Dispatcher is nil: pass what runs the commands")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = clock.Wall{}
	}
	settings.Fill(o)
}

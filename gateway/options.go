package gateway

import (
	"log/slog"
	"time"

	"github.com/millrace-io/millrace/internal/clock"
	"github.com/millrace-io/millrace/internal/tracing"
)

// Defaults of Options.
const (
	DefaultMaxRequestBytes  = 4 << 20
	DefaultMaxReplyBytes    = 4 << 20
	DefaultMaxHeaderBytes   = 16 << 10
	DefaultMaxStreams       = 250
	DefaultMaxConnections   = 16384
	DefaultSniffTimeout     = 10 * time.Second
	DefaultMaxSniffBytes    = 64 << 10
	DefaultDiscoveryWait    = 10 * time.Second
	DefaultMaxWaiting       = 1024
	DefaultRetireAfter      = time.Minute
	DefaultBodyTimeout      = 30 * time.Second
	DefaultKeepaliveTime    = time.Minute
	DefaultKeepaliveTimeout = 20 * time.Second
	DefaultMinPingInterval  = 10 * time.Second
	DefaultIdleTimeout      = 2 * time.Minute
)

// Options configure a Server. Dispatcher is required; the zero value of every other field means its default.
type Options struct {
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

	// MaxRequestBytes and MaxReplyBytes bound one message, uncompressed, in either direction.
	MaxRequestBytes, MaxReplyBytes int
	// MaxHeaderBytes bounds the headers of one request.
	MaxHeaderBytes int
	// MaxStreams bounds the calls that run at once on one HTTP/2 connection.
	MaxStreams int
	// MaxConnections bounds the open connections; one above it is closed at once.
	MaxConnections int

	// UnaryTimeout caps the time of a unary call, and is what one gets that comes without a deadline. 0: neither.
	UnaryTimeout time.Duration
	// BodyTimeout is how long the body of a request with one message may take to arrive over net/http.
	BodyTimeout time.Duration
	// SniffTimeout is how long a new connection may take to show its protocol, or the header of an HTTP/1.1 request to arrive.
	SniffTimeout time.Duration
	// MaxSniffBytes bounds what a connection may send before its first HTTP/2 request is complete.
	MaxSniffBytes int

	// DiscoveryWait is how long a call waits for the first catalog, MaxWaiting how many may.
	DiscoveryWait time.Duration
	MaxWaiting    int
	// RetireAfter is how long calls of a replaced catalog may go on before they are cut.
	RetireAfter time.Duration

	// KeepaliveTime is the silence after which a native gRPC connection is probed, KeepaliveTimeout how long it has to
	// answer, MinPingInterval the least time between the pings of a client.
	KeepaliveTime, KeepaliveTimeout, MinPingInterval time.Duration
	// MaxConnectionAge makes clients of native gRPC connect anew after a time, so that they spread over workers. 0: never.
	MaxConnectionAge time.Duration
	// IdleTimeout closes a connection of net/http on which nothing happens.
	IdleTimeout time.Duration

	// NoReflection leaves server reflection out.
	NoReflection bool
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
	orDefault(&o.MaxRequestBytes, DefaultMaxRequestBytes)
	orDefault(&o.MaxReplyBytes, DefaultMaxReplyBytes)
	orDefault(&o.MaxHeaderBytes, DefaultMaxHeaderBytes)
	orDefault(&o.MaxStreams, DefaultMaxStreams)
	orDefault(&o.MaxConnections, DefaultMaxConnections)
	orDefault(&o.BodyTimeout, DefaultBodyTimeout)
	orDefault(&o.SniffTimeout, DefaultSniffTimeout)
	orDefault(&o.MaxSniffBytes, DefaultMaxSniffBytes)
	orDefault(&o.DiscoveryWait, DefaultDiscoveryWait)
	orDefault(&o.MaxWaiting, DefaultMaxWaiting)
	orDefault(&o.RetireAfter, DefaultRetireAfter)
	orDefault(&o.KeepaliveTime, DefaultKeepaliveTime)
	orDefault(&o.KeepaliveTimeout, DefaultKeepaliveTimeout)
	orDefault(&o.MinPingInterval, DefaultMinPingInterval)
	orDefault(&o.IdleTimeout, DefaultIdleTimeout)
}

// orDefault replaces what is not positive.
func orDefault[T int | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

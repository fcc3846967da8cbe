package peer

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/backoff"
	"github.com/millrace-io/millrace/internal/clock"
)

// Protocol is the version of the messages on a link. Both sides must have the same.
const Protocol = 1

// Defaults of the options. A full link holds 64 MiB on each side at most, and a process that is
// connected with 1024 others has that many links, most of them idle.
const (
	DefaultMaxInFlight      = 4096
	DefaultMaxInFlightBytes = 64 << 20
	// DefaultMaxFrameBytes has room for a payload of 4 MiB, which is the limit of the gateway, and for
	// its metadata.
	DefaultMaxFrameBytes = 4<<20 + 128<<10
	DefaultMaxLinks      = 1024
	DefaultMaxPeers      = 1024
	DefaultIdleRunners   = 256
	DefaultDialTimeout   = 2 * time.Second
	DefaultRetireTimeout = 5 * time.Second
	DefaultDisownTimeout = 250 * time.Millisecond
)

const (
	// overloadRetry is when to try again after a limit was reached.
	overloadRetry = 100 * time.Millisecond

	// The windows of the connection's flow control. They are fixed, so that gRPC does not measure the
	// line.
	streamWindow     = 4 << 20
	connectionWindow = 16 << 20

	// The kernels notice a line that was cut: if it is silent by probes, if it has unacknowledged
	// bytes by their age. A process that was stopped is kept alive by its kernel, until it has
	// answered no ping for pingAfter and lineTimeout.
	probeAfter    = 2 * time.Second
	probeInterval = time.Second
	probeCount    = 3
	lineTimeout   = 5 * time.Second
	pingAfter     = 10 * time.Second
)

// Identity identifies a process to its peers.
type Identity struct {
	// Layout is that of the journal. Both sides must have the same, because partition numbers depend
	// on it.
	Layout entities.Layout
	// Worker is the process's name, empty for one that owns no partitions; Incarnation names the
	// process itself.
	Worker      string
	Incarnation uint64
}

// Peer is a worker to stay connected with.
type Peer struct {
	Name, Address string
	Incarnation   uint64
}

// Hooks observe connections. They must not block; each may be nil. The goroutine of the connection
// calls them.
type Hooks struct {
	// Dead: the process of a watched connection is gone, not merely slow. Its connection ended without
	// a leave message, and its address refuses a new one. Called once for an incarnation.
	Dead func(name, address string, incarnation uint64)
	// Connected: a link is open.
	Connected func(name, address string)
	// Lost: a link ended, or could not be opened, and why. It is tried again.
	Lost func(name, address string, err error)
}

// ClientOptions configure a Client. Identity is required; every other zero field has its default.
type ClientOptions struct {
	Identity Identity
	Hooks    Hooks
	// Clock is the wall clock unless a test sets another.
	Clock clock.Clock
	// Credentials secure the connections. Nil: plaintext.
	Credentials credentials.TransportCredentials

	// MaxInFlight bounds the commands without an answer on one link, MaxInFlightBytes their size
	// together, MaxFrameBytes the size of one. The other side's limits count where they are lower.
	MaxInFlight, MaxInFlightBytes, MaxFrameBytes int
	// MaxPeers bounds the workers to which there are connections.
	MaxPeers int
	// DialTimeout bounds one attempt to open a link, Backoff is the pause between attempts.
	DialTimeout time.Duration
	Backoff     backoff.Policy
	// RetireTimeout is how long calls on a connection that is no longer wanted may go on,
	// DisownTimeout how long commands of entities may: they can be sent again to the present owner.
	RetireTimeout, DisownTimeout time.Duration
}

func (o *ClientOptions) setDefaults() {
	orDefault(&o.MaxInFlight, DefaultMaxInFlight)
	orDefault(&o.MaxInFlightBytes, DefaultMaxInFlightBytes)
	orDefault(&o.MaxFrameBytes, DefaultMaxFrameBytes)
	orDefault(&o.MaxPeers, DefaultMaxPeers)
	orDefault(&o.DialTimeout, DefaultDialTimeout)
	orDefault(&o.RetireTimeout, DefaultRetireTimeout)
	orDefault(&o.DisownTimeout, DefaultDisownTimeout)
	if o.Backoff == (backoff.Policy{}) {
		o.Backoff = backoff.Policy{First: 20 * time.Millisecond, Max: time.Second, Jitter: 0.3}
	}
	if o.Clock == nil {
		o.Clock = clock.Wall{}
	}
	if o.Credentials == nil {
		o.Credentials = insecure.NewCredentials()
	}
	if o.Hooks.Dead == nil {
		o.Hooks.Dead = func(string, string, uint64) {}
	}
	if o.Hooks.Connected == nil {
		o.Hooks.Connected = func(string, string) {}
	}
	if o.Hooks.Lost == nil {
		o.Hooks.Lost = func(string, string, error) {}
	}
}

// ServerOptions configure a Server. Identity is required; every other zero field has its default.
type ServerOptions struct {
	Identity Identity
	// Credentials secure the connections. Nil: plaintext.
	Credentials credentials.TransportCredentials
	// MaxInFlight bounds the commands that run at once for one link, MaxInFlightBytes their size
	// together, MaxFrameBytes the size of one command and of one answer.
	MaxInFlight, MaxInFlightBytes, MaxFrameBytes int
	// MaxLinks bounds the links.
	MaxLinks int
	// IdleRunners is how many goroutines wait for commands, instead of being made for each.
	IdleRunners int
	// Register adds other services of this worker for processes of the app; see Client.Conn. Nil:
	// none.
	Register func(grpc.ServiceRegistrar)
}

func (o *ServerOptions) setDefaults() {
	orDefault(&o.MaxInFlight, DefaultMaxInFlight)
	orDefault(&o.MaxInFlightBytes, DefaultMaxInFlightBytes)
	orDefault(&o.MaxFrameBytes, DefaultMaxFrameBytes)
	orDefault(&o.MaxLinks, DefaultMaxLinks)
	orDefault(&o.IdleRunners, DefaultIdleRunners)
	if o.Credentials == nil {
		o.Credentials = insecure.NewCredentials()
	}
}

// orDefault replaces a value that is not positive.
func orDefault[T int | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

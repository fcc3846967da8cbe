package peer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/multiplex"
	"github.com/millrace-io/millrace/internal/plural"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
	peerv1 "github.com/millrace-io/millrace/proto/gen/millrace/peer/v1"
)

// Worker is what a Server offers to other processes. Its methods are called from many goroutines.
type Worker interface {
	// Dispatch runs a command on this worker; it is not sent on again, except for what the command
	// itself causes. ctx ends with the caller's deadline, its cancellation, and its link.
	Dispatch(ctx context.Context, cmd *entities.Command, hops int) (*entities.Reply, error)
	// DispatchStream runs a streamed call of an action here.
	DispatchStream(ctx context.Context, s *entities.Stream) error
	// Resolve finds the type and the key of a command again from its payload.
	Resolve(t entities.Target) (*entities.Command, error)
	// Position returns how far a partition is committed now, confirmed by the log.
	Position(ctx context.Context, partition int32) (int64, error)
	// Spec returns the spec of the user function, a name for this version of it, and a channel that is
	// closed when there is another one. A nil spec: there is none yet.
	Spec() (spec *cloudstate.EntitySpec, version string, changed <-chan struct{})
	// Status returns the status page.
	Status(ctx context.Context) (*adminv1.StatusResponse, error)
	// Drain hands the partitions over and returns when that is done. last: also if no other worker
	// would take them.
	Drain(ctx context.Context, last bool) error
}

// Server runs the commands of other processes on a Worker.
type Server struct {
	peerv1.UnimplementedPeerServiceServer

	worker  Worker
	options ServerOptions
	stats   counters
	grpc    *grpc.Server
	runners multiplex.Runners
	// stopping is closed when Shutdown begins.
	stopping chan struct{}

	mu    sync.Mutex // guards what follows
	links map[*served]struct{}
	// stopped: stopping is closed.
	stopped bool
}

// NewServer returns a server that does not listen yet. It panics when the identity has no app.
func NewServer(w Worker, o ServerOptions) *Server {
	if o.Identity.Layout.App == "" {
		panic("peer: ServerOptions.Identity has no app")
	}
	o.setDefaults()
	s := &Server{worker: w, options: o, stopping: make(chan struct{}), links: map[*served]struct{}{}}
	s.runners.Most = o.IdleRunners
	s.grpc = grpc.NewServer(
		grpc.Creds(o.Credentials),
		grpc.ForceServerCodecV2(multiplex.Codec{}),
		grpc.MaxRecvMsgSize(o.MaxFrameBytes+multiplex.MessageBytes),
		grpc.MaxSendMsgSize(math.MaxInt32),
		// A connection has one link; its other streams are single and streamed calls.
		grpc.MaxConcurrentStreams(uint32(o.MaxLinks+o.MaxInFlight)), //nolint:gosec // small positive numbers
		grpc.InitialWindowSize(streamWindow),
		grpc.InitialConnWindowSize(connectionWindow),
		// Timeout is also how long the kernel waits for bytes to be acknowledged.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingAfter, Timeout: lineTimeout}),
		// Clients ping every pingAfter; twice as often is still allowed, for clocks that differ.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingAfter / 2, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
	)
	peerv1.RegisterPeerServiceServer(s.grpc, s)
	if o.Register != nil {
		o.Register(s.grpc)
	}
	return s
}

// Serve accepts connections until Shutdown; then it returns nil, and otherwise why the listener
// failed. It closes the listener.
func (s *Server) Serve(l net.Listener) error {
	err := s.grpc.Serve(probing{l})
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// probing is a listener whose silent connections are probed by the kernel.
type probing struct{ net.Listener }

// Accept implements net.Listener.
func (p probing) Accept() (net.Conn, error) {
	c, err := p.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok && err == nil {
		if err := tcp.SetKeepAliveConfig(probes); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, err
}

// ErrHanging is returned by Shutdown if commands did not end although they were cut.
var ErrHanging = errors.New("commands did not end after they were aborted: their function hangs and ignores its context")

// hangingAfter is how long Shutdown waits for the commands that it has cut. Those that check their
// context end at once.
const hangingAfter = time.Second

// Shutdown sends a leave message on every link, so that its end is not taken for the death of this
// process, answers what is under way and returns. If ctx ends first, it cuts the rest and returns
// ctx's error, and ErrHanging as well if some commands have not ended a second later.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.stopped {
		s.stopped = true
		close(s.stopping)
	}
	links := make([]*served, 0, len(s.links))
	for l := range s.links {
		links = append(links, l)
	}
	s.mu.Unlock()
	var orderly sync.WaitGroup
	for _, l := range links {
		orderly.Go(l.sendLeave) // a link whose other side does not read is ended by Stop
	}
	// Both are waited for below; Stop ends them when ctx does.
	orderly.Go(s.grpc.GracefulStop)
	gone := context.AfterFunc(ctx, s.grpc.Stop)
	ended := make(chan struct{})
	go func() { // ends with the commands that are cut; one whose function hangs ends with the process
		defer close(ended)
		orderly.Wait()
		s.runners.Close()
	}()
	select {
	case <-ended:
		if !gone() {
			return context.Cause(ctx)
		}
		return nil
	case <-ctx.Done():
	}
	patience := time.NewTimer(hangingAfter)
	defer patience.Stop()
	select {
	case <-ended:
		return context.Cause(ctx)
	case <-patience.C:
		return fmt.Errorf("%w (%w)", ErrHanging, context.Cause(ctx))
	}
}

// enter admits a link.
func (s *Server) enter(l *served) *entities.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.stopped:
		return entities.Errorf(entities.Unavailable, entities.NotApplied, "worker %q is stopping", s.options.Identity.Worker)
	case len(s.links) >= s.options.MaxLinks:
		return entities.Errorf(
			entities.Overloaded, entities.NotApplied, "worker %q has %s, which is its limit",
			s.options.Identity.Worker, plural.Of(len(s.links), "link"),
		)
	}
	s.links[l] = struct{}{}
	s.stats.links.Add(1)
	return nil
}

// exit frees the place of a link that has ended.
func (s *Server) exit(l *served) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.links, l)
	s.stats.links.Add(-1)
}

// check refuses a hello for another process: one of another app or layout, whose partition numbers
// mean something else, or for a process that had this address before.
func (s *Server) check(h *peerv1.Hello) *entities.Error {
	me := s.options.Identity
	switch {
	case h.GetProtocol() == Protocol && proto.Equal(h.GetLayout(), layoutOf(me.Layout)) &&
		(h.GetToWorker() == "" || h.GetToWorker() == me.Worker) &&
		(h.GetToIncarnation() == 0 || h.GetToIncarnation() == me.Incarnation):
		return nil
	default:
		return entities.Errorf(entities.Unavailable, entities.NotApplied, "this is %s; the link is from %s, for worker %q, incarnation %x; both must have the same --app and --partitions",
			describe(Protocol, layoutOf(me.Layout), me.Worker, me.Incarnation),
			describe(h.GetProtocol(), h.GetLayout(), h.GetWorker(), h.GetIncarnation()),
			h.GetToWorker(), h.GetToIncarnation())
	}
}

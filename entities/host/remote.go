package host

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

// The channel to a function. Windows are large because many entities share one connection and one
// of them may replay a long history; reconnecting is quick because callers wait for a restarted
// function.
const (
	streamWindowBytes     = 1 << 20
	connectionWindowBytes = 16 << 20
	reconnectFirst        = 100 * time.Millisecond
	reconnectMax          = 500 * time.Millisecond
	reconnectJitter       = 0.2
	// connectTimeout bounds one attempt.
	connectTimeout = 2 * time.Second
	// maxReports is the number of reports that may wait to be sent.
	maxReports = 16
)

var errRemoteClosed = errors.New("the connection to the user function was closed")

// RemoteOptions say how a connection to a remote function is made.
type RemoteOptions struct {
	Options
	// Info describes this proxy to the function; nil means NewProxyInfo("millrace", "").
	Info *cloudstate.ProxyInfo
	// Policy says how long and how often discovery is tried.
	Policy discovery.Policy
	// Discovery says how its answer is checked.
	Discovery discovery.Options
	// DialOptions are added to those of the channel. They must not add statistics handlers or
	// interceptors that keep messages: a session sends the same ones again and again.
	DialOptions []grpc.DialOption
}

// Remote is a user function behind the Cloudstate protocol, on one channel.
type Remote struct {
	address string
	options Options
	conn    *grpc.ClientConn
	catalog *discovery.Catalog
	stats   counters

	// lifetime ends with Close; every session's stream hangs on it.
	lifetime context.Context //nolint:containedctx // the object's own lifetime
	end      context.CancelCauseFunc
	reports  chan string
	// warned has the methods about whose replies the function was warned.
	warned sync.Map
	// refusedBeside has the methods whose refusals carried what is dropped, and were reported.
	refusedBeside sync.Map
	// linking has room for the goroutine that looks for the link, and opens it if need be.
	linking chan struct{}
	link    *link

	// mu guards closed, so that no goroutine begins once Close waits for them.
	mu     sync.Mutex
	closed bool
	work   sync.WaitGroup
}

// Connect dials a function at an address such as 127.0.0.1:8080 and asks it what it is. It waits
// until the function answers or ctx ends. A *discovery.RejectedError means that what it answered
// cannot be served; it has been reported to the function.
func Connect(ctx context.Context, address string, options RemoteOptions) (*Remote, error) {
	options.Options = options.Options.withDefaults()
	if options.Info == nil {
		options.Info = discovery.NewProxyInfo("millrace", "")
	}
	conn, err := dial(address, options)
	if err != nil {
		return nil, fmt.Errorf("user function at %s: %w", address, err)
	}
	catalog, err := discovery.Handshake(ctx, conn, options.Info, options.Policy, options.Discovery)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("user function at %s: %w", address, err), conn.Close())
	}
	r := &Remote{
		address: address,
		options: options.Options,
		conn:    conn,
		catalog: catalog,
		reports: make(chan string, maxReports),
		linking: make(chan struct{}, 1),
	}
	r.lifetime, r.end = context.WithCancelCause(context.WithoutCancel(ctx))
	// Ends with the lifetime; Close waits for it.
	r.work.Go(r.sendReports)
	return r, nil
}

func dial(address string, options RemoteOptions) (*grpc.ClientConn, error) {
	return grpc.NewClient(address, append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithInitialWindowSize(streamWindowBytes),
		grpc.WithInitialConnWindowSize(connectionWindowBytes),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(options.MaxMessageBytes)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: grpcbackoff.Config{
				BaseDelay: reconnectFirst, Multiplier: 2, Jitter: reconnectJitter,
				MaxDelay: reconnectMax,
			},
			MinConnectTimeout: connectTimeout,
		}),
	}, options.DialOptions...)...)
}

// Catalog returns what the function serves.
func (r *Remote) Catalog() *discovery.Catalog { return r.catalog }

// Address returns where the function is.
func (r *Remote) Address() string { return r.address }

// Follow tells on whether the function can be reached, at once and after each change, until ctx or
// the Remote ends. It keeps the channel connected, so that the end of a function shows although no
// call is made.
func (r *Remote) Follow(ctx context.Context, on func(reachable bool)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.lifetime, cancel)()
	for {
		state := r.conn.GetState()
		on(state == connectivity.Ready)
		if state == connectivity.Idle {
			r.conn.Connect()
		}
		if !r.conn.WaitForStateChange(ctx, state) {
			return
		}
	}
}

// Stats returns what happened so far.
func (r *Remote) Stats() Stats { return r.stats.read() }

// Close cuts all sessions and calls, and waits for their goroutines. Close sessions before, to end
// them in order. It may be called more than once.
func (r *Remote) Close() error {
	r.mu.Lock()
	already := r.closed
	r.closed = true
	r.mu.Unlock()
	r.end(errRemoteClosed)
	r.work.Wait()
	if already {
		return nil
	}
	return r.conn.Close()
}

// start runs a named goroutine for which Close waits; false when Close was called.
func (r *Remote) start(run func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.work.Go(run)
	return true
}

// Report reports a mistake in the function to its author and to the operator. When too many reports
// wait, only the operator gets it.
func (r *Remote) Report(message string) {
	r.stats.warnings.Add(1)
	r.options.Hooks.OnWarning(message)
	select {
	case r.reports <- message:
	default:
	}
}

// sendReports is the one goroutine that calls reportError. The function's answer to a report is
// ignored.
func (r *Remote) sendReports() {
	for {
		select {
		case message := <-r.reports:
			if err := discovery.ReportError(r.lifetime, r.conn, message); err != nil {
				r.options.Hooks.OnWarning(fmt.Sprintf("user function at %s did not take a report: %v", r.address, err))
			}
		case <-r.lifetime.Done():
			return
		}
	}
}

// warnOfReply reports a reply of another type than its method declares, once for each method. The
// reply is sent all the same.
func (r *Remote) warnOfReply(m *discovery.Method, reply *entities.Reply) {
	if reply == nil || reply.NoPayload || reply.Payload.TypeURL == m.OutputType {
		return
	}
	if _, before := r.warned.LoadOrStore(m, true); before {
		return
	}
	r.Report(fmt.Sprintf("Warning: %s replied with %q, and its declared output is %s", m.FullName,
		reply.Payload.TypeURL, m.OutputType))
}

// warnOfRefusal reports that a refusal carried what is dropped, once for each method.
func (r *Remote) warnOfRefusal(m *discovery.Method) {
	if _, before := r.refusedBeside.LoadOrStore(m, true); !before {
		r.Report(refusedBeside(m))
	}
}

// announced reports whether the function understands an optional part of the protocol.
func (r *Remote) announced(x cloudstate.MillraceExtension) bool { return r.catalog.Announced(x) }

// awaitReady waits, bounded, for the channel to the function, so that commands survive its restart.
func (r *Remote) awaitReady(ctx context.Context) error {
	if r.conn.GetState() == connectivity.Ready {
		return nil
	}
	bounded, cancel := context.WithTimeoutCause(ctx, r.options.FunctionWait, errNotReady)
	defer cancel()
	stop := context.AfterFunc(r.lifetime, cancel)
	defer stop()
	for state := r.conn.GetState(); state != connectivity.Ready; state = r.conn.GetState() {
		r.conn.Connect()
		if r.conn.WaitForStateChange(bounded, state) {
			continue
		}
		if ctx.Err() != nil {
			return callerGone(ctx)
		}
		return r.unreachable(entities.NotApplied, fmt.Errorf("the channel is in the state %s", state))
	}
	return nil
}

var errNotReady = errors.New("the user function is not ready")

func (r *Remote) unreachable(outcome entities.OutcomeClass, cause error) *entities.Error {
	return &entities.Error{
		Reason:     entities.Unavailable,
		Outcome:    outcome,
		Message:    fmt.Sprintf("function at %s is not reachable: start it, or check its address and log", r.address),
		RetryAfter: time.Second,
		Cause:      cause,
	}
}

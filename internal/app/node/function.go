package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/entities/host"
	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/partitions/core"
)

// readiness is what a worker knows of its function, which Ready waits for.
type readiness struct {
	waiting     chan struct{}
	waitingOnce sync.Once
	// restarted gets a signal when a supervised function was started again.
	restarted chan struct{}
	// remote is the function behind the protocol, nil while there is none. It belongs to the
	// function task, and when that has ended to close.
	remote *host.Remote
	// following are the goroutines that watch whether remote functions can be reached; they end with
	// the stop.
	following sync.WaitGroup

	mu       sync.Mutex
	function hosted
	// catalog is what it and the runtime's functions serve; nil while there is no function.
	catalog *discovery.Catalog
	// gone: the remote function cannot be reached at present.
	gone bool
	// changed is closed when there is another function, or the catalog is another one.
	changed chan struct{}
}

// hosted is a function that counts what it does: one in this process, or a remote one.
type hosted interface {
	host.Function
	Stats() host.Stats
}

func newReadiness() readiness {
	return readiness{waiting: make(chan struct{}), restarted: make(chan struct{}, 1), changed: make(chan struct{})}
}

// isGone reports whether there is a remote function, and it cannot be reached.
func (r *readiness) isGone() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.gone
}

// reached notes whether a remote function can be reached. It returns false when nothing changed, or
// when it is not the present one.
func (r *readiness) reached(f hosted, reachable bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.function != f || r.gone == !reachable {
		return false
	}
	r.gone = !reachable
	return true
}

// present returns the function that serves, nil while there is none.
func (r *readiness) present() hosted {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.function
}

// watch returns what the function and the runtime serve, nil while there is no function, and what
// is closed when that changes.
func (r *readiness) watch() (*discovery.Catalog, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.catalog, r.changed
}

// user returns what the function alone serves, nil while there is none, and what is closed when
// there is another one. Workers of one app compare that: what the runtime serves differs with its
// version and with the definitions that a worker knows of.
func (r *readiness) user() (*discovery.Catalog, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.function == nil {
		return nil, r.changed
	}
	return r.function.Catalog(), r.changed
}

// set changes what is known of the function, if change is not nil, and the catalog to that of the
// host.
func (r *readiness) set(h *host.Host, change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if change != nil {
		change()
	}
	r.catalog = h.Catalog() // with the lock held: of two changes the later one counts
	close(r.changed)
	r.changed = make(chan struct{})
}

var errStopping = errors.New("stopping")

// NotReady returns why the node does not serve, nil when it does.
func (n *Node) NotReady() error {
	if n.stopping() {
		return errStopping
	}
	if n.host.Catalog() == nil {
		if err := n.troubles.of(taskFunction).err; err != nil {
			return fmt.Errorf("waiting for the user function at %s: %w", n.config.Function, err)
		}
		return fmt.Errorf("waiting for the user function at %s", n.config.Function)
	}
	if n.readiness.isGone() {
		return fmt.Errorf("the user function at %s is unreachable: calls wait up to function-wait for it; start it, or check its address and log", n.config.Function)
	}
	for _, l := range n.loops {
		if err := l.failure(); err != nil {
			return fmt.Errorf("the %s cannot be written: %w", l.name, err)
		}
	}
	return n.notOwned()
}

// notOwned returns why not every partition that this worker should have is owned, or why it is not
// known what is defined; nil when all is there.
func (n *Node) notOwned() error {
	switch {
	case n.isDrained():
		return errors.New(drained)
	case n.manager.Draining():
		return errors.New("draining: partitions are moving to other workers")
	}
	if err := n.manager.Contract(); err != nil { // why they are not
		return err
	}
	owned, known := n.manager.Owned()
	if !known {
		if err := n.troubles.of(taskPartitions).err; err != nil {
			return fmt.Errorf("not a member of the group yet: %w", err)
		}
		return errors.New("not a member of the group yet")
	}
	for _, p := range owned {
		if s := p.Status(); s.State != core.Active && s.State != core.Suspect {
			if s.Halted != nil {
				return fmt.Errorf("partition %d is halted: %w; see `millrace repair`", s.Partition, s.Halted)
			}
			return fmt.Errorf("partition %d is %s", s.Partition, s.State)
		}
	}
	return n.readSide.notKnown()
}

// checkReady is called whenever something that Ready waits for has changed.
func (n *Node) checkReady() {
	poke(n.poked)
	switch {
	case n.cluster != nil && n.options.Local == nil && n.host.Catalog() == nil: // it joins when it knows what it serves
		n.readiness.waitingOnce.Do(func() { close(n.readiness.waiting) })
	case n.notOwned() != nil:
	case n.host.Catalog() != nil:
		n.markReady()
	case n.options.Local == nil:
		n.readiness.waitingOnce.Do(func() { close(n.readiness.waiting) })
	}
}

// hosting says how functions are hosted.
func (n *Node) hosting() host.Options {
	return host.Options{
		Settings: n.config.hostSettings, MaxCommitRecords: n.config.MaxCommitRecords,
		Hooks: host.Hooks{
			OnWarning: func(message string) { n.logger.Warn("user function", observe.Error, message) },
			OnSessionFault: func(key entities.Key, err *entities.Error) {
				n.warnOfFault(err, observe.Entity, key.String())
			},
			OnActionFault: func(method string, err *entities.Error) {
				n.warnOfFault(err, observe.Command, method)
			},
		},
	}
}

// warnOfFault logs how the function failed, and at what: an entity or a method.
func (n *Node) warnOfFault(err *entities.Error, key, what string) {
	attrs := append(fault(err), key, what)
	switch {
	case host.Stack(err) != "":
		n.logger.Warn("user function failed: handler panicked", attrs...)
	case err.Reason == entities.Unavailable:
		n.logger.Warn("connection to user function lost", attrs...)
	default:
		n.logger.Warn("user function failed", attrs...)
	}
}

// fault returns what the log says of a failure of the function.
func fault(err *entities.Error) []any {
	said := []any{observe.Error, err.Message}
	if err.Cause != nil {
		said = append(said, observe.Cause, err.Cause)
	}
	if err.Reference != "" {
		said = append(said, observe.Reference, err.Reference)
	}
	if stack := host.Stack(err); stack != "" {
		said = append(said, observe.Stack, stack)
	}
	return said
}

// runFunction discovers the function, and again each time it is started with another spec.
func (n *Node) runFunction(ctx context.Context) error {
	options := n.hosting()
	if n.options.Local != nil {
		f, err := host.NewInProcess(n.options.Local, options, discovery.Options{Settings: n.config.discoverySettings})
		if err != nil {
			return err
		}
		return n.attach(f)
	}
	err := n.discoverRemote(ctx, host.RemoteOptions{
		Options: options, Info: discovery.NewProxyInfo("millrace", n.options.Version),
		Discovery: discovery.Options{Settings: n.config.discoverySettings},
		Policy: discovery.Policy{OnRetry: func(attempt int, err error, _ time.Duration) {
			err = unreachable(err)
			n.troubles.note(taskFunction, err)
			n.logger.Debug("user function is not reachable yet", observe.Address, n.config.Function, observe.Attempt, attempt,
				observe.Error, err)
		}},
	})
	if err != nil || n.readiness.remote == nil {
		return err
	}
	n.readiness.following.Wait()
	<-n.settled // the sessions have ended in order; now a function that is stopped need not wait for its connection
	return n.readiness.remote.Close()
}

// unreachable is why a function did not answer, without what gRPC wraps around a refused
// connection.
func unreachable(err error) error {
	text := status.Convert(err).Message()
	if _, why, isDial := strings.Cut(text, "Error while dialing: "); isDial {
		text = strings.TrimSuffix(why, `"`)
	}
	return errors.New(text)
}

// attach lets traffic reach a function. The error says what of it cannot be served; then nothing
// has changed.
func (n *Node) attach(f hosted) error {
	if err := n.setUser(f); err != nil {
		return err
	}
	if len(f.Catalog().Services()) == 0 {
		n.logger.Warn("the user function declares no services: it gets no commands; register its services before it starts to serve")
	}
	n.readiness.set(n.host, func() { n.readiness.function, n.readiness.gone = f, false })
	n.troubles.note(taskFunction, nil)
	n.checkReady()
	return nil
}

// setUser hosts the user's function. Where it has a service or a route that the runtime has made of
// a definition, the function's counts, and no service of definitions is served.
func (n *Node) setUser(f hosted) error {
	_, err := n.host.Set(host.User, f, n.gateway.SetCatalog)
	if err == nil {
		return nil
	}
	queries, failed := n.host.Remove(ownerQueries, n.showCatalog)
	if failed != nil || queries == nil {
		return err
	}
	if _, again := n.host.Set(host.User, f, n.gateway.SetCatalog); again != nil {
		_, failed = n.host.Set(ownerQueries, queries, n.showCatalog)
		return errors.Join(again, failed)
	}
	n.logger.Error("the user function contradicts the queries of the definitions, which are not served",
		observe.Error, err)
	n.troubles.note(taskDefinitions,
		fmt.Errorf("the user function contradicts the queries, which are not served: %w", err))
	return nil
}

// discoverRemote discovers the remote function once, and once more each time the supervisor has
// started it again, until ctx ends.
func (n *Node) discoverRemote(ctx context.Context, options host.RemoteOptions) error {
	for {
		remote, err := host.Connect(ctx, n.config.Function, options)
		_, isRejected := errors.AsType[*discovery.RejectedError](err)
		switch {
		case ctx.Err() != nil:
			if remote != nil {
				return remote.Close()
			}
			return nil
		case err == nil:
			err = n.replace(ctx, remote)
		case !isRejected:
			return err
		}
		if err != nil {
			// The function's author fixes it and starts it again; without a supervisor the operator restarts
			// this process.
			n.troubles.note(taskFunction, err)
			n.logger.Error("the user function cannot be served", observe.Address, n.config.Function, observe.Error, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.readiness.restarted:
		}
	}
}

// replace puts a function that was just discovered in the place of the one before, which stays if
// both serve the same.
func (n *Node) replace(ctx context.Context, remote *host.Remote) error {
	before := n.readiness.remote
	if before != nil && before.Catalog().Version() == remote.Catalog().Version() {
		n.troubles.note(taskFunction, nil)
		return remote.Close()
	}
	if before != nil {
		if err := n.stillBelongs(remote.Catalog()); err != nil {
			return errors.Join(err, remote.Close())
		}
	}
	if err := n.attach(remote); err != nil {
		return errors.Join(err, remote.Close())
	}
	if before != nil && n.cluster != nil {
		n.cluster.group.Rebalance() // its join data tells the other workers what this one serves
	}
	n.readiness.remote = remote
	n.readiness.following.Go(func() { // ends with ctx, or with remote; the function task waits for it
		remote.Follow(ctx, func(reachable bool) {
			if n.readiness.reached(remote, reachable) {
				n.checkReady()
			}
		})
	})
	if before != nil {
		return before.Close()
	}
	return nil
}

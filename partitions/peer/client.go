package peer

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/plural"
)

// Client is this process's side of the connections to other workers. Its methods may be called from
// many goroutines.
type Client struct {
	options ClientOptions
	stats   counters
	// ctx ends with Close, and with it every connection.
	ctx    context.Context //nolint:containedctx // the object's own lifetime
	cancel context.CancelCauseFunc
	// peers has the connections by address. The map is replaced, never changed, so that Dispatch reads
	// it without a lock.
	peers atomic.Pointer[map[string]*peer]
	// work are the goroutines of the connections; Close waits for them.
	work sync.WaitGroup

	mu     sync.Mutex // guards changes of peers, and closed
	closed bool
}

// NewClient returns a client without a connection. It panics when the identity has no app.
func NewClient(o ClientOptions) *Client {
	if o.Identity.Layout.App == "" {
		panic("peer: ClientOptions.Identity has no app")
	}
	o.setDefaults()
	c := &Client{options: o}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.peers.Store(&map[string]*peer{})
	return c
}

// Dispatch runs a command on the worker at an address and returns its answer. hops is how many
// commands came before this one in its chain. It waits for a connection that is being opened, and
// does not try again: a Moved or Overloaded error with outcome NotApplied means that the command
// did not leave this process, or that the other worker refused it. LostOutcome means that it left
// and will not be answered. Every other error is the other worker's, unchanged.
func (c *Client) Dispatch(
	ctx context.Context, address string, cmd *entities.Command, hops int,
) (*entities.Reply, error) {
	if cmd.Timer != nil { // its firing is checked against the rows of the partition that holds it
		return nil, entities.Errorf(entities.Internal, entities.NotApplied, "the timer %q of %s fires on the partition that holds it, and was sent to the worker at %s", cmd.Timer.Name, cmd.Key, address)
	}
	l, problem := c.link(ctx, address)
	if problem == nil {
		var reply *entities.Reply
		if reply, problem = l.dispatch(ctx, cmd, hops); problem == nil {
			return reply, nil
		}
	}
	c.stats.failed(problem)
	return nil, problem
}

// link returns the open link to an address, which it opens if there is none.
func (c *Client) link(ctx context.Context, address string) (*link, *entities.Error) {
	if p := (*c.peers.Load())[address]; p != nil {
		return p.ready(ctx)
	}
	p, problem := c.peerAt(address)
	if problem != nil {
		return nil, problem
	}
	return p.ready(ctx)
}

// peerAt begins a connection that Watch has not named. The next Watch ends it, unless it names it.
func (c *Client) peerAt(address string) (*peer, *entities.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	peers := *c.peers.Load()
	switch p := peers[address]; {
	case c.closed:
		return nil, unreachable(address, errClosed, 0)
	case p != nil:
		return p, nil
	case len(peers) >= c.options.MaxPeers:
		return nil, overloaded(address, "this process has "+plural.Of(len(peers), "link")+", which is its limit")
	}
	p := c.start(Peer{Address: address}, false)
	peers = maps.Clone(peers)
	peers[address] = p
	c.peers.Store(&peers)
	return p, nil
}

// Watch keeps one connection to each of these workers, whatever the keys of the map, and ends all
// others when what is under way on them is answered. A worker under the same address with another
// incarnation is another one.
func (c *Client) Watch(wanted map[string]Peer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	// The new connections are in the map before the old ones are retired, so that a command that
	// comes in between finds one that takes it.
	before, now := *c.peers.Load(), make(map[string]*peer, len(wanted))
	for _, w := range wanted {
		if p := before[w.Address]; p != nil && p.watch(w) {
			now[w.Address] = p
		} else {
			now[w.Address] = c.start(w, true)
		}
	}
	c.peers.Store(&now)
	for address, p := range before {
		if now[address] != p {
			p.retire()
		}
	}
}

// forget removes a connection that its keeper gave up.
func (c *Client) forget(p *peer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	peers := *c.peers.Load()
	if peers[p.address] == p {
		peers = maps.Clone(peers)
		delete(peers, p.address)
		c.peers.Store(&peers)
	}
}

// Close cuts all connections and waits for their goroutines. Commands under way end with an unknown
// outcome: let them end before. It returns nil, and may be called more than once.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel(errClosed)
	c.work.Wait()
	return nil
}

package simlog

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

var _ broker.Log = (*Client)(nil)

// maxWaiting bounds the queue of a client's goroutine.
const maxWaiting = 4096

// Client is one process's view of a World.
type Client struct {
	world *World
	name  string

	// What follows is guarded by world.mu.

	// open holds the appends without a result, queue those not yet handled by the goroutine.
	open   map[int]*op
	queue  []*op
	closed bool
	// crashed: closed by Crash. memberships are its running calls of Assignments.
	crashed     bool
	memberships []*member
	// stale is the end of partitions as shown to the client, if lower than the truth.
	stale map[broker.Partition]int64

	// closing is closed with the client; ended waits for its goroutine.
	closing chan struct{}
	ended   sync.WaitGroup
}

// Client makes a client. Several may have the same name: a restarted process is a new client.
func (w *World) Client(name string) *Client {
	c := &Client{
		world: w, name: name, open: map[int]*op{}, stale: map[broker.Partition]int64{}, closing: make(chan struct{}),
	}
	if !w.opts.Manual {
		c.ended.Go(c.serve) // Close or Crash ends it, Close waits for it
	}
	return c
}

// Stale makes a partition appear to this client to end at the given offset, as from a paused former
// leader. A negative end undoes it.
func (c *Client) Stale(p broker.Partition, end int64) {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	if end < 0 {
		delete(c.stale, p)
	} else {
		c.stale[p] = end
	}
	c.world.wake()
}

// shownEnd returns the end as shown to the client. The lock is held.
func (c *Client) shownEnd(p broker.Partition, part *partitionLog) int64 {
	if stale, ok := c.stale[p]; ok {
		return min(stale, part.end())
	}
	return part.end()
}

// Append writes and acknowledges from the client's goroutine, or in a manual world adds an Op to
// the network. If the client is closed already, Append calls done itself.
func (c *Client) Append(p broker.Partition, records []broker.Record, done func(broker.AppendResult)) {
	w := c.world
	w.mu.Lock()
	for len(c.queue) >= maxWaiting && !c.closed {
		w.waitUnlocked()
	}
	if c.closed {
		w.mu.Unlock()
		done(broker.AppendResult{Err: c.closedError("append")})
		return
	}
	o := w.admit(c, p, records, done)
	c.open[o.ID] = o
	if w.opts.Manual {
		w.ops[o.ID] = o
	} else {
		c.queue = append(c.queue, o)
	}
	w.wake()
	w.mu.Unlock()
}

// waitUnlocked waits for any change. The lock is held before and after.
func (w *World) waitUnlocked() {
	changed := w.changed
	w.mu.Unlock()
	<-changed
	w.mu.Lock()
}

// serve is the goroutine of a client in an automatic world: one append after the other, written and
// acknowledged.
func (c *Client) serve() {
	w := c.world
	for {
		w.mu.Lock()
		for len(c.queue) == 0 && !c.closed {
			w.waitUnlocked()
		}
		if c.closed {
			w.mu.Unlock()
			return
		}
		o := c.queue[0]
		c.queue = c.queue[1:]
		w.apply(o)
		w.mu.Unlock()
		w.tell(o, o.result())
	}
}

func (c *Client) closedError(doing string) error {
	return fmt.Errorf("%s by client %s: %w", doing, c.name, broker.ErrClosed)
}

// Start returns the offset of the oldest record.
func (c *Client) Start(_ context.Context, p broker.Partition) (int64, error) {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	if c.closed {
		return 0, c.closedError("start")
	}
	_, part, err := c.world.partition(p)
	if err != nil {
		return 0, fmt.Errorf("start: %w", err)
	}
	return part.start, nil
}

// End returns the end of a partition as shown to this client.
func (c *Client) End(_ context.Context, p broker.Partition) (int64, error) {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	if c.closed {
		return 0, c.closedError("end")
	}
	_, part, err := c.world.partition(p)
	if err != nil {
		return 0, fmt.Errorf("end: %w", err)
	}
	return c.shownEnd(p, part), nil
}

// Describe describes a topic.
func (c *Client) Describe(_ context.Context, topic string) (broker.TopicInfo, error) {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	if c.closed {
		return broker.TopicInfo{}, c.closedError("describe")
	}
	t := c.world.topics[topic]
	if t == nil {
		return broker.TopicInfo{}, fmt.Errorf("describe topic %s: %w", topic, broker.ErrUnknownTopic)
	}
	return broker.TopicInfo{
		Name: topic, Partitions: t.spec.Partitions, ID: t.id, MaxAppendBytes: t.spec.MaxRecordBytes,
		Durability: "simulated in memory", Violations: slices.Clone(t.violations),
	}, nil
}

// Create makes a topic unless it exists.
func (c *Client) Create(_ context.Context, spec broker.TopicSpec) error {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	if c.closed {
		return c.closedError("create")
	}
	if spec.Name == "" || spec.Partitions < 1 {
		return fmt.Errorf("create topic %q with %d partitions: a name and at least one partition are needed", spec.Name,
			spec.Partitions)
	}
	c.world.create(spec)
	return nil
}

// CreateCommand says that nothing needs to be done.
func (c *Client) CreateCommand(spec broker.TopicSpec) string {
	return fmt.Sprintf("# the simulated log creates topic %s by itself", spec.Name)
}

// Expedite does nothing: readers get records at once.
func (c *Client) Expedite() (end func()) { return func() {} }

// SingleProcess returns Options.SingleProcess.
func (c *Client) SingleProcess() bool { return c.world.opts.SingleProcess }

// Close fails open appends with ErrClosed and waits for the client's goroutine. Appends in the
// network of a manual world stay there and may still be applied.
func (c *Client) Close() error {
	w := c.world
	c.stop()
	c.ended.Wait()
	w.mu.Lock()
	open := slices.Collect(maps.Values(c.open))
	w.mu.Unlock()
	slices.SortFunc(open, func(a, b *op) int { return a.ID - b.ID })
	for _, o := range open {
		w.tell(o, broker.AppendResult{Err: c.closedError("append")})
	}
	return nil
}

// Crash simulates the death of the process: open appends never get a result, later calls get
// ErrClosed. Its memberships stay in their groups until they are evicted, or the worker joins
// again. Close may be called after it, to wait for the client's goroutine.
func (c *Client) Crash() {
	c.world.mu.Lock()
	for _, o := range c.open {
		o.Answered = true
	}
	clear(c.open)
	c.crashed = c.crashed || !c.closed
	for _, m := range c.memberships {
		m.dead = c.crashed
	}
	c.world.mu.Unlock()
	c.stop()
}

// stop refuses later calls and wakes all waiters.
func (c *Client) stop() {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	if !c.closed {
		c.closed = true
		close(c.closing)
		c.world.wake()
	}
}

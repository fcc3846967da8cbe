package simlog

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// Op is an append in the network of a manual world, as a test sees it.
type Op struct {
	// ID counts the appends of a world from 1, in the order of the Append calls.
	ID        int
	Client    string
	Partition broker.Partition
	Records   []broker.Record
	// Applied is how often the log wrote it, Base where it did so first.
	Applied int
	Base    int64
	// Answered: the client has its result, or has crashed.
	Answered bool
}

// op is an append in the network. Everything but records is guarded by World.mu.
type op struct {
	Op
	client *Client
	// refused is the error of an append that is never written.
	refused error
	done    func(broker.AppendResult)
}

// result returns the client's result of an applied or refused op.
func (o *op) result() broker.AppendResult {
	if o.refused != nil {
		return broker.AppendResult{Err: o.refused}
	}
	return broker.AppendResult{Base: o.Base, Last: o.Base + int64(len(o.Records)) - 1}
}

// admit makes and checks an op. The lock is held.
func (w *World) admit(c *Client, p broker.Partition, records []broker.Record, done func(broker.AppendResult)) *op {
	o := &op{Op: Op{ID: w.nextOp, Client: c.name, Partition: p}, client: c, done: done}
	w.nextOp++
	for i := range records {
		o.Records = append(o.Records, cloneRecord(&records[i]))
	}
	t, _, err := w.partition(p)
	switch {
	case err != nil:
		o.refused = fmt.Errorf("append: %w", err)
	case len(records) == 0:
		o.refused = fmt.Errorf("append to topic %s, partition %d: no records given", p.Topic, p.ID)
	case t.spec.MaxRecordBytes > 0 && broker.Size(records) > t.spec.MaxRecordBytes:
		o.refused = fmt.Errorf("append of %d bytes to topic %s, partition %d, which takes %d: %w",
			broker.Size(records), p.Topic, p.ID, t.spec.MaxRecordBytes, broker.ErrTooLarge)
	case t.spec.Compacted && broker.LacksKey(records):
		o.refused = fmt.Errorf("append to topic %s, partition %d: %w", p.Topic, p.ID, broker.ErrNoKey)
	}
	return o
}

// apply makes the log write an op. The lock is held.
func (w *World) apply(o *op) {
	if o.refused != nil {
		return
	}
	_, part, err := w.partition(o.Partition)
	if err != nil {
		o.refused = fmt.Errorf("append: %w", err) // the topic was made again with fewer partitions meanwhile
		return
	}
	base := w.write(part, o.Records)
	if o.Applied == 0 {
		o.Base = base
	}
	o.Applied++
}

// Pending returns the ops that a manual world has in the network, in the order of the Append calls.
func (w *World) Pending() []Op {
	w.mu.Lock()
	defer w.mu.Unlock()
	pending := make([]Op, 0, len(w.ops))
	for _, o := range w.ops {
		pending = append(pending, o.Op)
	}
	slices.SortFunc(pending, func(a, b Op) int { return cmp.Compare(a.ID, b.ID) })
	return pending
}

// Await waits until at least n ops are in the network and unanswered, and returns those. It is for
// tests whose code under test appends from goroutines of its own.
func (w *World) Await(ctx context.Context, n int) ([]Op, error) {
	for {
		w.mu.Lock()
		changed := w.changed
		w.mu.Unlock()
		open := slices.DeleteFunc(w.Pending(), func(o Op) bool { return o.Answered })
		if len(open) >= n {
			return open, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return open, fmt.Errorf("%d of %d appends are in the network: %w", len(open), n, ctx.Err())
		}
	}
}

// Apply makes the log write an op; again, if it has done so.
func (w *World) Apply(id int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.apply(w.mustOp(id))
}

// Answer sends the client the result of an applied or refused op. The op leaves the network.
func (w *World) Answer(id int) {
	o := w.takeAnswer(id)
	w.tell(o, o.result())
}

// takeAnswer takes an op that has a result out of the network.
func (w *World) takeAnswer(id int) *op {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := w.mustOp(id)
	if o.Applied == 0 && o.refused == nil {
		panic(fmt.Sprintf("simlog: answer op %d: the log has not written it; call Apply first, or Fail", id))
	}
	delete(w.ops, id)
	return o
}

// Deliver is Apply and Answer.
func (w *World) Deliver(id int) {
	w.Apply(id)
	w.Answer(id)
}

// DeliverAll delivers everything that is in the network now and unanswered, in order. Late arrivals
// stay.
func (w *World) DeliverAll() {
	for _, o := range w.Pending() {
		switch {
		case o.Answered:
		case o.Applied > 0:
			w.Answer(o.ID)
		default:
			w.Deliver(o.ID)
		}
	}
}

// Fail sends the client an error for an op, whether the log wrote it or not. The op stays in the
// network.
func (w *World) Fail(id int, err error) {
	o := w.find(id)
	w.tell(o, broker.AppendResult{Err: fmt.Errorf("append to topic %s, partition %d: %w", o.Partition.Topic,
		o.Partition.ID, err)})
}

// Discard takes an op out of the network. A client that has no answer yet never gets one, until it
// is closed.
func (w *World) Discard(id int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.ops, w.mustOp(id).ID)
}

// mustOp finds an op. The lock is held.
func (w *World) mustOp(id int) *op {
	o := w.ops[id]
	if o == nil {
		panic(fmt.Sprintf("simlog: no op %d in the network", id))
	}
	return o
}

func (w *World) find(id int) *op {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mustOp(id)
}

// tell runs the client's callback, once.
func (w *World) tell(o *op, r broker.AppendResult) {
	w.mu.Lock()
	answered := o.Answered
	o.Answered = true
	delete(o.client.open, o.ID)
	w.wake()
	w.mu.Unlock()
	if !answered {
		o.done(r)
	}
}

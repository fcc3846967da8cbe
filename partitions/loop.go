package partitions

import (
	"context"
	"fmt"
	"math"
	"runtime/debug"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/clock"
	"github.com/millrace-io/millrace/internal/failpoint"
	"github.com/millrace-io/millrace/internal/invariant"
	"github.com/millrace-io/millrace/internal/multiplex"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions/core"
)

// loop drives partitions: only the goroutine that drives it touches their cores. That is the loop's
// own, or that of a caller that posts when the loop is idle (mailbox.go). One commit of the store
// holds what a turn commits for all of them.
type loop struct {
	partitions []*Partition
	mail       *mailbox
	store      materializer.Store
	clock      clock.Clock
	// runners run the function for callers that may leave while it works (leave.go).
	runners multiplex.Runners
	// ctx ends with the loop; it is set before any other goroutine drives it.
	ctx context.Context //nolint:containedctx // the loop's own lifetime, for turns on the goroutines of callers
	// inputs is the mailbox's other buffer.
	inputs []message
	// rows are folded and not committed yet.
	rows materializer.Batch
	// touched are the partitions to which something happened in this turn.
	touched []*Partition
}

// borrowedTurns bounds the turns that a caller drives for others before it waits for its own
// answer.
const borrowedTurns = 4

// post adds an input. It returns false if the loop has ended.
func (l *loop) post(in message) bool { return l.mail.post(in) }

// submit is post for a caller, whose goroutine drives the turn if no other one drives the loop.
func (l *loop) submit(in message) bool {
	posted, drive := l.mail.postAndDrive(in)
	if drive {
		defer crash()
		l.drive(borrowedTurns)
	}
	return posted
}

// crash ends the process if a turn panics on a caller's goroutine, as it would on the loop's:
// net/http recovers from the panic of a request, and the loop would stand still.
func crash() {
	if v := recover(); v != nil {
		trace := debug.Stack()
		go func() { panic(fmt.Sprintf("%v\n\n%s", v, trace)) }() // ends with the process
		select {}
	}
}

// run takes inputs until ctx ends; then all calls that wait are completed.
func (l *loop) run(ctx context.Context) {
	l.ctx = ctx
	for _, p := range l.partitions {
		p.time.start()
		p.expiry.last = p.time.began
	}
	l.drive(borrowedTurns)
	ticks, stop := l.clock.After(tick)
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			continue
		case <-ticks:
		case <-l.mail.ready:
			select { // what comes first when both are there must not be left to chance: a simulation is to be repeatable
			case <-ticks:
			default:
				if l.mail.tryDrive() {
					l.drive(math.MaxInt)
				}
				continue
			}
		}
		ticks, stop = l.clock.After(tick)
		if posted, drive := l.mail.postAndDrive(message{}); posted && drive {
			l.drive(math.MaxInt)
		}
	}
	stop()
	l.mail.end()
	l.end(ctx)
}

// drive runs at most so many turns while inputs wait. The caller drives, and no longer does when
// drive returns.
func (l *loop) drive(most int) {
	for n := 0; ; n++ {
		taken := l.mail.take(l.inputs, n < most)
		if taken == nil {
			return
		}
		l.turn(l.ctx, taken)
		clear(taken)
		l.inputs = taken
	}
}

// ticked passes the time to all partitions of the loop, those to which nothing has happened too.
func (l *loop) ticked() {
	for _, p := range l.partitions {
		l.touch(p)
		p.core.Ticked()
		p.expire()
	}
}

// turn passes inputs to the cores and performs their effects.
func (l *loop) turn(ctx context.Context, inputs []message) {
	for _, m := range inputs {
		if m.input == nil {
			l.ticked()
			continue
		}
		l.touch(m.to)
		if asksStore(m.input) {
			l.perform(ctx) // what was just committed may be this very command: the store must have that before it is asked
		}
		m.input.receive(m.to)
	}
	for _, p := range l.touched {
		p.core.Flush()
	}
	l.perform(ctx)
	for i, p := range l.touched {
		p.publish()
		p.tellQuiet()
		p.turn.touched = false
		l.touched[i] = nil
	}
	l.touched = l.touched[:0]
}

// asksStore reports whether the store is read for an input before the core gets it.
func asksStore(in input) bool {
	switch in := in.(type) {
	case inSubmitted:
		return in.Named()
	case inConcluded, inResolve:
		return true
	default:
		return false
	}
}

// touch counts a partition among those of the turn, and sets its core's time, once in a turn: all
// inputs of a turn have the same time.
func (l *loop) touch(p *Partition) {
	if !p.turn.touched {
		p.turn.touched = true
		l.touched = append(l.touched, p)
		p.advance()
	}
}

// end answers all calls that still wait, and waits for what the partitions started.
func (l *loop) end(ctx context.Context) {
	for _, p := range l.partitions {
		p.tasks.stopReading()
		l.touch(p)
		p.core.Ended()
	}
	l.perform(ctx)
	l.awaitCalls()
	for _, p := range l.partitions {
		p.tasks.wait()
	}
	for _, m := range l.mail.close() {
		p, stopping := m.to, "the worker is stopping"
		switch in := m.input.(type) {
		case inSubmitted:
			p.core.Refuse(in.Call, entities.PartitionMoved(p.id, stopping))
		case inPosition:
			p.core.Refuse(in.Call, entities.PartitionMoved(p.id, stopping))
		case inConcluded:
			p.core.Refuse(in.Call, entities.PartitionMoved(p.id, stopping))
		case inDecided, inSessionEnded, inOpened:
			in.receive(p)
		case inResolve:
			in.Done(false)
		case inRepair:
			in.Err = entities.PartitionMoved(p.id, stopping)
			in.Done(in.Repair)
		case inQuiet:
			in.quiet(true)
		case inRevoked:
			p.released = append(p.released, in.released)
			p.core.Revoked() // it has ended: this only answers the release
		default:
		}
	}
	l.perform(ctx)
	for _, p := range l.partitions {
		p.tasks.wait()
		p.replica.Close()
		p.repair.Close()
		p.publish()
		p.tellQuiet()
	}
	if l.rows != nil {
		_ = l.rows.Close()
	}
}

// awaitCalls waits for the functions that run for the partitions, at most as long as an orderly
// release may take: a function that hangs does not keep its worker from stopping. A later decision
// is refused, because the mailbox is closed by then; its goroutine ends with the process.
func (l *loop) awaitCalls() {
	ended := make(chan struct{})
	go func() { // ends with the calls, or with the process
		defer close(ended)
		for _, p := range l.partitions {
			p.tasks.waitCalls()
		}
		l.runners.Close()
	}()
	late, stop := l.clock.After(l.partitions[0].limits.ReleaseTimeout)
	defer stop()
	select {
	case <-ended:
	case <-late:
	}
}

// perform performs the cores' effects until there are no more. Changes of the store come first, as
// one commit for all batches that are acknowledged by now: the effects after them may read the
// store, and nothing else depends on the order between them.
func (l *loop) perform(ctx context.Context) {
	for more := true; more; {
		more = false
		l.commit()
		for _, p := range l.touched {
			for ; p.turn.performed < p.turn.committed; p.turn.performed++ {
				more = true
				p.do(ctx, p.core.Effects()[p.turn.performed])
			}
		}
	}
	for _, p := range l.touched {
		p.core.Performed()
		p.turn.committed, p.turn.performed = 0, 0
	}
}

// commit writes the acknowledged batches among the effects to the store, in one commit, and
// completes their calls. The store is a cache of the log: what it does not take is not lost, and
// not answered.
func (l *loop) commit() {
	committing := false
	var err error
	for _, p := range l.touched {
		fresh := p.core.Effects()[p.turn.committed:]
		committed := false
		for i := range fresh {
			switch do := fresh[i].Do.(type) {
			case core.Skip:
				p.skip(do.Gap)
			case core.Commit:
				committed = true
				if err == nil {
					err = l.apply(p, do.Batch)
				}
			default:
			}
		}
		if committed && err == nil {
			err = p.fold.WriteMeta(l.rows)
		}
		committing = committing || committed
	}
	if committing && err == nil {
		failpoint.Hit(failpoint.AfterAck)
		err = l.rows.Commit()
		failpoint.Hit(failpoint.AfterApply)
	}
	if err != nil {
		_ = l.rows.Close() // what is in it is folded again from the log
		l.rows = nil
	}
	for _, p := range l.touched {
		p.committed(err)
	}
}

// apply folds an acknowledged batch into rows that are not committed yet.
func (l *loop) apply(p *Partition, b *core.Batch) error {
	if l.rows == nil {
		l.rows = l.store.NewBatch()
	}
	for i := range b.Entries {
		verdict, err := p.fold.Step(l.rows, &b.Entries[i])
		if err != nil {
			return err
		}
		invariant.Check(
			verdict != record.Void, "%s: the owner's own record at offset %d is void", p.image.Address, b.Entries[i].Offset,
		)
	}
	return nil
}

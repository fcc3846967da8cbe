package sim

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/materializer/memstore"
)

// queues returns the appends in the network in order, for each client and partition.
func (w *world) queues(want func(simlog.Op) bool) [][]simlog.Op {
	var order []string
	byLine := map[string][]simlog.Op{}
	for _, op := range w.log.Pending() {
		if !want(op) {
			continue
		}
		line := fmt.Sprintf("%s/%d", op.Client, op.Partition.ID)
		if byLine[line] == nil {
			order = append(order, line)
		}
		byLine[line] = append(byLine[line], op)
	}
	slices.Sort(order)
	queues := make([][]simlog.Op, 0, len(order))
	for _, line := range order {
		queues = append(queues, byLine[line])
	}
	return queues
}

func (w *world) pick(want func(simlog.Op) bool) []simlog.Op {
	queues := w.queues(want)
	if len(queues) == 0 {
		return nil
	}
	return queues[w.rng.IntN(len(queues))]
}

// deliver is the normal case: the oldest append of a queue is written and answered.
func (w *world) deliver(*testing.T) {
	queue := w.pick(func(op simlog.Op) bool { return !op.Answered && !w.isFrozen(op.Client) })
	if queue == nil {
		return
	}
	op := queue[0]
	w.fits(&op)
	w.note("log answers op %d of %s, partition %d", op.ID, op.Client, op.Partition.ID)
	if op.Applied == 0 {
		w.log.Apply(op.ID)
	}
	w.log.Answer(op.ID)
}

// applyOnly writes an append whose answer is delayed.
func (w *world) applyOnly(*testing.T) {
	queue := w.pick(func(op simlog.Op) bool { return op.Applied == 0 && !op.Answered })
	if queue == nil {
		return
	}
	w.fault("answer delayed")
	w.note("log writes op %d of %s, partition %d", queue[0].ID, queue[0].Client, queue[0].Partition.ID)
	w.log.Apply(queue[0].ID)
}

var errTimeout = errors.New("timed out")

// lose loses an answer or a request: the client gets a timeout. The request may still arrive.
func (w *world) lose(*testing.T) {
	queue := w.pick(func(op simlog.Op) bool { return !op.Answered })
	if queue == nil {
		return
	}
	op := queue[0]
	switch {
	case op.Applied > 0:
		w.fault("answer lost")
	case w.rng.IntN(2) == 0:
		w.log.Apply(op.ID)
		w.fault("answer lost")
	default:
		w.fault("request lost or late")
	}
	w.note("op %d of %s, partition %d fails; written %v", op.ID, op.Client, op.Partition.ID, op.Applied)
	w.log.Fail(op.ID, errTimeout)
}

// late delivers a request whose client has timed out.
func (w *world) late(*testing.T) {
	queue := w.pick(func(op simlog.Op) bool { return op.Answered && op.Applied == 0 })
	if queue == nil {
		return
	}
	w.fault("late arrival")
	w.note("op %d of %s, partition %d arrives late", queue[0].ID, queue[0].Client, queue[0].Partition.ID)
	w.log.Apply(queue[0].ID)
	w.log.Discard(queue[0].ID)
}

func (w *world) duplicate(*testing.T) {
	queue := w.pick(func(op simlog.Op) bool { return op.Applied == 1 && !op.Answered })
	if queue == nil {
		return
	}
	w.fault("duplicate")
	w.note("op %d of %s, partition %d is written twice", queue[0].ID, queue[0].Client, queue[0].Partition.ID)
	w.log.Apply(queue[0].ID)
}

// reorder writes a later append of a queue before an earlier one.
func (w *world) reorder(*testing.T) {
	for _, queue := range w.queues(func(op simlog.Op) bool { return op.Applied == 0 && !op.Answered }) {
		if len(queue) > 1 {
			w.fault("reordering")
			w.note("op %d of %s, partition %d overtakes op %d", queue[1].ID, queue[1].Client, queue[1].Partition.ID, queue[0].ID)
			w.log.Apply(queue[1].ID)
			return
		}
	}
}

// crash kills a worker, with all or some of what its store had, and starts it again.
func (w *world) crash(t *testing.T) {
	i := w.rng.IntN(workers)
	old := w.workers[i]
	store := old.store.Clone()
	switch w.rng.IntN(3) {
	case 0:
		store = old.saved
		w.fault("crash, store falls back")
	case 1:
		store = memstore.New()
		w.fault("crash, store gone")
	default:
		w.fault("crash")
	}
	w.note("%s dies", old.name)
	w.endLife(old)
	w.start(t, i, store.Clone())
	for p, has := range old.has {
		if has && w.rng.IntN(3) > 0 {
			w.assign(i, int32(p))
		}
	}
}

// endLife ends a process. Nothing that it sends from now on arrives.
func (w *world) endLife(life *worker) {
	life.dead = true
	if w.links != nil {
		w.links.set(life.name, nil)
	}
	life.client.Crash()
	life.stop()
	for alive := true; alive; {
		for _, g := range w.functions.calls() {
			if g.worker == life.name {
				w.functions.release(g, crash)
				synctest.Wait()
			}
		}
		synctest.Wait()
		select {
		case <-life.ended:
			alive = false
		default:
			w.clock.pass(100 * time.Millisecond)
		}
	}
	w.takeIn(nil)
}

// move moves a partition from one worker to the other: revoked, lost, or without an event for the
// first.
func (w *world) move(*testing.T) {
	p := int32(w.rng.IntN(parts))
	for i, life := range w.workers {
		if !life.has[p] {
			continue
		}
		switch w.rng.IntN(3) {
		case 0:
			w.fault("partition released")
			w.tell(life, broker.AssignmentEvent{Revoked: []int32{p}})
		case 1:
			w.fault("partition lost")
			w.tell(life, broker.AssignmentEvent{Lost: []int32{p}})
		default:
			w.fault("owner not informed")
			w.assign((i+1)%workers, p)
			return
		}
		life.has[p] = false
		w.note("%s gives up partition %d", life.name, p)
		w.assign((i+1)%workers, p)
		return
	}
	w.assign(w.rng.IntN(workers), p)
}

// duel assigns a partition to both workers.
func (w *world) duel(*testing.T) {
	w.fault("duelling claims")
	p := int32(w.rng.IntN(parts))
	for i := range w.workers {
		w.assign(i, p)
	}
}

func (w *world) freeze(*testing.T) {
	life := w.workers[w.rng.IntN(workers)]
	life.frozen = !life.frozen
	if life.frozen {
		w.fault("worker frozen")
	}
	w.note("%s frozen: %v", life.name, life.frozen)
}

func (w *world) foreign(*testing.T) {
	w.fault("foreign record")
	p := broker.Partition{Topic: topic, ID: int32(w.rng.IntN(parts))}
	w.note("a foreign record in partition %d", p.ID)
	w.log.Inject(p, broker.Record{Key: []byte("x"), Value: []byte("garbage")})
}

// stale shows a worker an old end of a partition for a while, like a paused former leader.
func (w *world) stale(*testing.T) {
	life := w.workers[w.rng.IntN(workers)]
	p := broker.Partition{Topic: topic, ID: int32(w.rng.IntN(parts))}
	if w.rng.IntN(2) == 0 {
		life.client.Stale(p, -1)
		return
	}
	end := len(w.log.Records(p))
	w.fault("old end shown")
	w.note("%s sees an old end of partition %d", life.name, p.ID)
	life.client.Stale(p, int64(end-w.rng.IntN(min(end, 3)+1)))
}

func (w *world) showAll(life *worker) {
	for p := range int32(parts) {
		life.client.Stale(broker.Partition{Topic: topic, ID: p}, -1)
	}
}

func (w *world) pass(*testing.T) {
	d := time.Duration(1+w.rng.IntN(400)) * time.Millisecond
	if w.rng.IntN(10) == 0 {
		d = time.Duration(w.rng.IntN(40)) * time.Second
	}
	if d > 5*time.Second { // no leader is that far behind for so long
		for _, life := range w.workers {
			w.showAll(life)
		}
	}
	w.note("%v pass", d)
	w.clock.pass(d)
}

func (w *world) save(*testing.T) {
	life := w.workers[w.rng.IntN(workers)]
	life.saved = life.store.Clone()
}

package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/partitions"
)

const (
	topic      = "app.journal"
	group      = "app"
	parts      = 2
	workers    = 2
	steps      = 260
	maxClients = 5
	maxOps     = 70
)

// worker is one life of a worker.
type worker struct {
	name   string
	client *simlog.Client
	router *partitions.Router
	m      *partitions.Manager
	store  *memstore.Store
	// saved is what of the store would survive a crash: some moment before now.
	saved  *memstore.Store
	stop   context.CancelFunc
	ended  chan struct{}
	dead   bool
	frozen bool
	// has are the partitions that were assigned to it.
	has [parts]bool
}

// world is one simulation.
type world struct {
	seed      uint64
	rng       *rand.Rand
	log       *simlog.World
	functions *functions
	clock     *virtual
	workers   [workers]*worker
	lives     int
	history   []*operation
	moment    int64
	faults    map[string]int
	quiet     bool
	// ctx outlives every worker.
	ctx context.Context

	mu sync.Mutex
	// finished are operations with an answer that the scheduler has not taken in yet.
	finished []*attempt
	open     int
	script   []string
	broken   []error
}

// attempt is one sending of an operation.
type attempt struct {
	operation *operation
	worker    *worker
	reply     *entities.Reply
	err       error
}

func (w *world) note(format string, args ...any) {
	w.script = append(w.script, fmt.Sprintf("%4d ", w.moment)+fmt.Sprintf(format, args...))
}

func (w *world) fault(kind string) { w.faults[kind]++ }

func (w *world) wrong(format string, args ...any) {
	w.broken = append(w.broken, fmt.Errorf(format, args...))
}

// simulate runs one seed inside a bubble of virtual time.
func simulate(t *testing.T, seed uint64) *world {
	t.Helper()
	w := &world{seed: seed, functions: &functions{}, clock: newVirtual(), faults: map[string]int{}}
	w.rng = rand.New(rand.NewPCG(seed, 1))
	synctest.Test(t, func(t *testing.T) {
		w.ctx = context.WithoutCancel(t.Context())
		w.log = simlog.New(simlog.Options{Manual: true, ManualAssignments: true, Clock: w.clock})
		for i := range w.workers {
			w.start(t, i, memstore.New())
		}
		for p := range int32(parts) {
			w.assign(int(p)%workers, p)
		}
		for range steps {
			w.moment++
			w.step(t)
			synctest.Wait()
			w.takeIn(t)
		}
		w.heal(t)
	})
	w.check()
	return w
}

// start brings a worker to life.
func (w *world) start(t *testing.T, i int, store *memstore.Store) {
	t.Helper()
	w.lives++
	name := fmt.Sprintf("w%d", i)
	c := w.log.Client(name)
	if err := c.Create(t.Context(), broker.TopicSpec{Name: topic, Partitions: parts, MaxRecordBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	info, err := c.Describe(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	life := uint64(w.lives)
	m := partitions.NewManager(partitions.Options{
		App: "app", Worker: name, Topic: info, Membership: broker.Membership{Group: group, Worker: name, Topic: topic},
		Log: c, Store: store, Functions: hosted{w.functions, name}, Clock: w.clock, Loops: 1,
		// By the moment, not in the order of calls: goroutines that run at the same time may ask in any order.
		Random: func() uint64 { return rand.NewPCG(w.seed^life<<32, uint64(w.clock.Now().UnixNano())).Uint64() },
	})
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	born := &worker{name: name, client: c, m: m, router: partitions.NewRouter(m, nil), store: store, saved: store.Clone(), stop: stop, ended: make(chan struct{})}
	go func() { // ended by stop, in crash or heal
		defer close(born.ended)
		_ = m.Run(ctx)
	}()
	w.workers[i] = born
	synctest.Wait()
}

func (w *world) assign(i int, p int32) {
	w.workers[i].has[p] = true
	w.log.Assign(group, w.workers[i].name, broker.AssignmentEvent{Assigned: []int32{p}})
	w.note("assign partition %d to %s", p, w.workers[i].name)
}

// step is one event.
func (w *world) step(t *testing.T) {
	choices := []struct {
		weight int
		do     func(*testing.T)
	}{
		{22, w.send},
		{24, w.answerFunction},
		{34, w.deliver},
		{5, w.applyOnly},
		{3, w.lose},
		{2, w.late},
		{1, w.duplicate},
		{1, w.reorder},
		{2, w.crash},
		{2, w.move},
		{1, w.duel},
		{2, w.freeze},
		{1, w.foreign},
		{1, w.stale},
		{6, w.pass},
		{2, w.save},
	}
	total := 0
	for _, c := range choices {
		total += c.weight
	}
	n := w.rng.IntN(total)
	for _, c := range choices {
		if n -= c.weight; n < 0 {
			c.do(t)
			return
		}
	}
}

var keys = []string{"a0", "a1", "a2", "s0", "s1"}

// send lets a client ask for something.
func (w *world) send(*testing.T) {
	if w.open >= maxClients || len(w.history) >= maxOps {
		return
	}
	key := keys[w.rng.IntN(len(keys))]
	text := "get"
	switch n := w.rng.IntN(10); {
	case key[0] == 's' && n < 7:
		text = fmt.Sprintf("send %d b%s", 1+w.rng.IntN(3), key[1:])
	case n < 5:
		text = fmt.Sprintf("add %d", 1+w.rng.IntN(5))
	case n < 7 && key[0] == 'a':
		text = fmt.Sprintf("cas %d %d", w.rng.IntN(6), w.rng.IntN(6))
	}
	if key[0] == 's' && text != "get" && text[0] == 'a' {
		text = "get"
	}
	o := &operation{number: len(w.history), key: key, text: text, called: w.next()}
	if w.rng.IntN(3) > 0 {
		o.id = fmt.Sprintf("c%d", o.number)
	}
	w.history = append(w.history, o)
	w.attempt(o)
}

func (w *world) next() int64 {
	w.moment++
	return w.moment
}

// attempt sends an operation to some worker: mostly to one that should have the partition.
func (w *world) attempt(o *operation) {
	p := entities.Partition(o.key, parts)
	var able []*worker
	for _, life := range w.workers {
		if !life.dead && (life.has[p] || (!w.quiet && w.rng.IntN(8) == 0)) {
			able = append(able, life)
		}
	}
	if len(able) == 0 {
		able = w.workers[:]
	}
	life := able[w.rng.IntN(len(able))]
	o.attempts++
	w.open++
	w.note("%s to %s, attempt %d", o, life.name, o.attempts)
	cmd := command(o.key, o.text)
	cmd.ID = o.id
	a := &attempt{operation: o, worker: life}
	go func() { // ends when the worker answers, at the latest when it ends
		ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
		defer cancel()
		a.reply, a.err = life.router.Dispatch(ctx, cmd)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.finished = append(w.finished, a)
	}()
}

// takeIn looks at the answers that have come.
func (w *world) takeIn(*testing.T) {
	w.mu.Lock()
	finished := w.finished
	w.finished = nil
	w.mu.Unlock()
	slices.SortFunc(finished, func(a, b *attempt) int { return a.operation.number - b.operation.number })
	for _, a := range finished {
		w.open--
		o := a.operation
		r := w.judge(a)
		w.note("%s answered by %s: %d %q %v", o, a.worker.name, r.class, r.text, a.err)
		if o.result = merge(o, r); o.result.class == unknown && o.id != "" && o.attempts < 4 && !w.quiet {
			w.attempt(o) // again, under the same id
			synctest.Wait()
			continue
		}
		o.returned = w.next()
	}
}

// judge is what an answer says. One of a worker that died is none: the client's connection broke.
func (w *world) judge(a *attempt) result {
	if a.worker.dead {
		return result{class: unknown}
	}
	if a.err == nil {
		return result{class: done, text: string(a.reply.Payload.Value)}
	}
	e, ok := errors.AsType[*entities.Error](a.err)
	switch {
	case !ok:
		return result{class: unknown}
	case e.Outcome == entities.Refused:
		return result{class: refused, text: e.Message}
	case e.Outcome == entities.NotApplied:
		return result{class: never}
	default:
		return result{class: unknown}
	}
}

// merge is what is known after another attempt: what one attempt left open, a later failure does not settle.
func merge(o *operation, r result) result {
	if o.attempts > 1 && (r.class == never || r.class == refused) {
		return result{class: unknown} // the one before may have taken effect, or may yet
	}
	return r
}

func (w *world) answerFunction(*testing.T) {
	calls := slices.DeleteFunc(w.functions.calls(), func(g *gated) bool { return w.isFrozen(g.worker) })
	if len(calls) == 0 {
		return
	}
	g := calls[w.rng.IntN(len(calls))]
	v := decide
	switch n := w.rng.IntN(40); {
	case n == 0:
		v = crash
		w.fault("function crashes")
	case n == 1 && g.id != "" && g.id[0] == 'c':
		v = refuse
		w.fault("function refuses")
	case n < 5:
		w.fault("function hangs")
		return
	}
	w.note("function of %s handles %s %q: %d", g.worker, g.key, g.text, v)
	w.functions.release(g, v)
}

func (w *world) isFrozen(name string) bool {
	return slices.ContainsFunc(w.workers[:], func(l *worker) bool { return l.name == name && l.frozen })
}

// queues returns what is in the network: for each client and partition the appends in order.
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

// deliver is what a log does that works: the oldest append of a line is written and answered.
func (w *world) deliver(*testing.T) {
	queue := w.pick(func(op simlog.Op) bool { return !op.Answered && !w.isFrozen(op.Client) })
	if queue == nil {
		return
	}
	op := queue[0]
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

// lose loses an answer, or a request: the client hears of a timeout. The request may still arrive.
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

// late lets a request arrive that its client has given up.
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

// reorder writes a later append of a line before an earlier one.
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
	w.bury(old)
	w.start(t, i, store.Clone())
	for p, has := range old.has {
		if has && w.rng.IntN(3) > 0 {
			w.assign(i, int32(p))
		}
	}
}

// bury ends a life. The log hears nothing from it any more, and whatever it still says is not heard by anybody.
func (w *world) bury(life *worker) {
	life.dead = true
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

// move takes a partition from one worker and gives it to the other: in order, as lost, or without telling the first.
func (w *world) move(*testing.T) {
	p := int32(w.rng.IntN(parts))
	for i, life := range w.workers {
		if !life.has[p] {
			continue
		}
		switch w.rng.IntN(3) {
		case 0:
			w.fault("partition released")
			w.log.Assign(group, life.name, broker.AssignmentEvent{Revoked: []int32{p}})
		case 1:
			w.fault("partition lost")
			w.log.Assign(group, life.name, broker.AssignmentEvent{Lost: []int32{p}})
		default:
			w.fault("owner not told")
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

// duel gives a partition to both.
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

// stale shows a worker an old end of a partition for a while, as a leader would that was paused.
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

// heal ends all faults, gives everything to one worker, and waits until nobody waits.
func (w *world) heal(t *testing.T) {
	w.quiet = true
	w.note("faults end")
	w.functions.mu.Lock()
	w.functions.open = true
	w.functions.mu.Unlock()
	for _, life := range w.workers {
		life.frozen = false
		w.showAll(life)
		for p := range int32(parts) {
			if life != w.workers[0] {
				w.log.Assign(group, life.name, broker.AssignmentEvent{Lost: []int32{p}})
				life.has[p] = false
			}
		}
	}
	for p := range int32(parts) {
		w.assign(0, p)
	}
	w.settle(t, "what was asked before is answered", func() bool { return w.open == 0 })
	w.readAll(t) // what was on its way when the faults ended may still cost an ownership
	w.readAll(t) // each works again, and says where it stands
	for _, o := range w.history[len(w.history)-7:] {
		if o.result.class != done {
			w.wrong("after the faults have ended, %s is answered %+v", o, o.result)
		}
	}
	w.settle(t, "effects are settled", func() bool { return w.openEffects() == 0 })
	w.compareStore(t)
	w.compareEffects()
	for _, life := range w.workers {
		w.bury(life)
	}
}

func (w *world) readAll(t *testing.T) {
	t.Helper()
	for _, key := range []string{"a0", "a1", "a2", "s0", "s1", "b0", "b1"} {
		o := &operation{number: len(w.history), key: key, text: "get", called: w.next()}
		w.history = append(w.history, o)
		w.attempt(o)
		synctest.Wait()
	}
	w.settle(t, "reads after the faults are answered", func() bool { return w.open == 0 })
}

// settle delivers everything until something holds; a minute of virtual time is enough for whatever works.
func (w *world) settle(t *testing.T, what string, holds func() bool) {
	for range 1200 {
		for _, g := range w.functions.calls() {
			w.functions.release(g, decide)
			synctest.Wait()
		}
		for _, op := range w.log.Pending() {
			if op.Answered {
				w.log.Discard(op.ID)
			}
		}
		w.deliverAll()
		w.takeIn(t)
		if holds() && len(w.log.Pending()) == 0 {
			return
		}
		w.clock.pass(50 * time.Millisecond)
	}
	w.wrong("%s: not within a minute: %d operations are open", what, w.open)
	for _, p := range w.workers[0].m.Partitions() {
		w.note("status %+v", p.Status())
	}
}

// deliverAll delivers one append after the other, in an order that does not depend on how goroutines were scheduled.
func (w *world) deliverAll() {
	for {
		queues := w.queues(func(op simlog.Op) bool { return !op.Answered })
		if len(queues) == 0 {
			return
		}
		op := queues[0][0]
		if op.Applied == 0 {
			w.log.Apply(op.ID)
		}
		w.log.Answer(op.ID)
		synctest.Wait()
	}
}

func (w *world) openEffects() int {
	n := 0
	for p := range parts {
		view := materializer.Partition{Rows: w.workers[0].store, Address: materializer.Address{Generation: 1, Partition: uint16(p)}}
		if err := view.Outbox(0, func(materializer.Effect) bool { n++; return true }); err != nil {
			w.wrong("read the outbox: %v", err)
		}
	}
	return n
}

// compareStore compares the owner's rows with a fold of the log from nothing.
func (w *world) compareStore(t *testing.T) {
	t.Helper()
	for p := range parts {
		address := materializer.Address{Generation: 1, Partition: uint16(p)}
		want := memstore.New()
		fold := materializer.NewFold(address, topicID(w), materializer.Meta{})
		batch := want.NewBatch()
		records := w.log.Records(broker.Partition{Topic: topic, ID: int32(p)})
		for i := range records {
			if _, err := fold.Record(batch, &records[i]); err != nil {
				w.wrong("fold partition %d from nothing: %v", p, err)
			}
		}
		if err := errors.Join(fold.WriteMeta(batch), batch.Commit()); err != nil {
			t.Fatal(err)
		}
		lower, upper := address.Range()
		var a, b []string
		rows := func(into *[]string) func(k, v []byte) bool {
			return func(k, v []byte) bool {
				if kind := k[4]; kind == 'm' || kind == 'q' { // times of claims are not known to their owner; 'q' is swept
					return true
				}
				*into = append(*into, fmt.Sprintf("%x=%x", k, v))
				return true
			}
		}
		if err := errors.Join(w.workers[0].store.Scan(lower, upper, rows(&a)), want.Scan(lower, upper, rows(&b))); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(a, b) {
			w.wrong("the store of partition %d is not the fold of its log: %d rows, %d wanted", p, len(a), len(b))
		}
	}
}

func topicID(w *world) string {
	info, err := w.workers[0].client.Describe(w.ctx, topic)
	if err != nil {
		return ""
	}
	return info.ID
}

// compareEffects: what a cell s has sent is what its cell b has got.
func (w *world) compareEffects() {
	for _, n := range []string{"0", "1"} {
		if s, b := w.stored("s"+n), w.stored("b"+n); !bytes.Equal(s, b) {
			w.wrong("s%s has sent %q, b%s has got %q", n, s, n, b)
		}
	}
}

func (w *world) stored(id string) []byte {
	view := materializer.Partition{Rows: w.workers[0].store, Address: materializer.Address{Generation: 1, Partition: uint16(entities.Partition(id, parts))}}
	loaded, err := view.Load(entities.Key{Type: "cell", ID: id})
	if err != nil {
		w.wrong("load %s: %v", id, err)
	}
	if loaded.Value == nil {
		return nil
	}
	return loaded.Value.Value
}

// check looks at the history.
func (w *world) check() {
	var clients []*operation
	for _, o := range w.history {
		if o.key[0] != 'b' { // those change by effects, too
			clients = append(clients, o)
		}
	}
	if err := linearizable(clients, w.moment+1); err != nil {
		w.wrong("%w", err)
	}
}

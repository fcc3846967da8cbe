package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/partitions"
	"github.com/millrace-io/millrace/partitions/routing"
)

const (
	topic      = "app.journal"
	group      = "app"
	parts      = 2
	workers    = 2
	steps      = 260
	maxClients = 5
	maxCrowd   = 12
	maxOps     = 70
	// seedsPerCollection is how many seeds run between two garbage collections.
	seedsPerCollection = 8
)

// worker is one process of a worker.
type worker struct {
	name   string
	client *simlog.Client
	router *routing.Router
	m      *partitions.Manager
	store  *memstore.Store
	// saved is what would survive of the store in a crash: an earlier moment.
	saved  *memstore.Store
	stop   context.CancelFunc
	ended  chan struct{}
	dead   bool
	frozen bool
	// has are the partitions assigned to it.
	has [parts]bool
	// tails are the consumers of its feeds, side is its read side, nil in seeds without one.
	tails []*tail
	side  *sideOf
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
	// links are those between workers; nil: none. owners are those of the correct routing table,
	// generation is that of the last table.
	links      *links
	owners     [parts]int32
	generation int32
	// limit is what the log takes in one append. large: there are cells h, l and m.
	limit int
	large bool
	// troubled: there are cells p and d; flooded: and more parked effects than fit into memory.
	troubled, flooded bool
	// forgotten are partitions whose loss was accepted.
	forgotten [parts]bool
	// gapped are partitions that have lost a record in the middle.
	gapped [parts]bool
	// ctx outlives every worker.
	ctx context.Context
	// lag decides how far behind consumers of feeds are, tails are all of them, taken is how many
	// records they got.
	lag   *rand.Rand
	tails []*tail
	taken int
	// views is the read side, nil in seeds without one.
	views *views

	mu sync.Mutex
	// finished are answers that the scheduler has not handled yet.
	finished []*attempt
	// waiting are the attempts whose clients wait for an answer.
	waiting []*attempt
	script  []string
	broken  []error
}

// attempt is one sending of an operation.
type attempt struct {
	operation *operation
	number    int
	worker    *worker
	// leave ends it for its client, which may still get an answer; gone: the client does not read
	// it.
	leave context.CancelFunc
	gone  bool
	// alone: no other attempt at the operation was open at the same time.
	alone bool
	reply *entities.Reply
	err   error
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
	w := &world{
		seed: seed, functions: &functions{ahead: seed%aheadOf == aheadSeed}, clock: newVirtual(), faults: map[string]int{},
	}
	w.rng, w.lag = rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2))
	if w.limit, w.large = appendBytes, seed%largeOf == largeSeed; w.large {
		w.limit = narrowBytes
	}
	if seed%clusteredOf == clusteredSeed {
		w.links = &links{routers: map[string]*routing.Router{}}
	}
	w.troubled = seed%troubledOf == troubledSeed
	w.flooded = w.troubled && seed/troubledOf%floodedOf == 1
	if seed%viewedOf == viewedSeed {
		w.openViews(t)
	}
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
			w.pull()
			w.look()
		}
		w.heal(t)
	})
	w.check()
	if seed%seedsPerCollection == 0 {
		runtime.GC()
	}
	return w
}

// start starts a worker.
func (w *world) start(t *testing.T, i int, store *memstore.Store) {
	t.Helper()
	w.lives++
	name := fmt.Sprintf("w%d", i)
	c := w.log.Client(name)
	if err := c.Create(t.Context(),
		broker.TopicSpec{Name: topic, Partitions: parts, MaxRecordBytes: w.limit}); err != nil {
		t.Fatal(err)
	}
	info, err := c.Describe(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	life := uint64(w.lives)
	var peers routing.Peers
	if w.links != nil {
		peers = w.links
	}
	m := partitions.NewManager(partitions.Options{
		App: "app", Worker: name, Topic: info, Membership: broker.Membership{Group: group, Worker: name, Topic: topic},
		Log: c, Store: store, Functions: hosted{w.functions, name}, Clock: w.clock, Loops: 1, Peers: peers,
		FeedBytes: feedBytes,
		// By the time, not by the order of calls, which is not deterministic.
		Random: func() uint64 { return rand.NewPCG(w.seed^life<<32, uint64(w.clock.Now().UnixNano())).Uint64() },
	})
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	born := &worker{
		name: name, client: c, m: m, router: m.Router(), store: store, saved: store.Clone(), stop: stop,
		ended: make(chan struct{}),
	}
	if w.views != nil {
		w.startViews(ctx, i, born)
	}
	go func() { // ended by stop, in crash or heal
		defer close(born.ended)
		_ = m.Run(ctx)
		if born.side != nil {
			<-born.side.ended
		}
	}()
	w.workers[i] = born
	w.tailAll(born)
	if w.links != nil {
		w.links.set(name, born.router)
	}
	synctest.Wait()
}

func (w *world) assign(i int, p int32) {
	w.workers[i].has[p] = true
	w.note("assign partition %d to %s", p, w.workers[i].name)
	event := broker.AssignmentEvent{Assigned: []int32{p}}
	if w.owners[p] = int32(i); w.links != nil && (w.quiet || w.rng.IntN(3) > 0) {
		w.tell(w.workers[i], broker.AssignmentEvent{Table: w.table()})
	}
	w.tell(w.workers[i], event)
}

// tell sends an event to a worker and waits until it is handled: two workers acting at once would
// not be deterministic.
func (w *world) tell(life *worker, event broker.AssignmentEvent) {
	w.log.Assign(group, life.name, event)
	synctest.Wait()
}

// step is one event.
func (w *world) step(t *testing.T) {
	choices := []struct {
		weight int
		do     func(*testing.T)
	}{
		{22, w.send},
		{3, w.leave},
		{3, w.hedge},
		{3, w.repeat},
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
		{1, w.change},
		{1, w.breakLinks},
		{3, w.spread},
		{5, w.peek},
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

// Entities that clients use: cells a that are set and compared, cells s that send what they get to
// a cell b, cells f that forward to cells g and e, cells e, which clients call as well, and alarms
// t.
var (
	keys = []string{"a0", "a1", "a2", "s0", "s1", "t0", "t1", "f0", "f1", "e0", "e1"}
	// crowded are those of seeds in which commands queue.
	crowded = []string{"a0", "s0", "t0", "f0", "e0"}
	all     = append(slices.Clone(keys), "b0", "b1", "g0", "g1")
)

// send makes a client send a command.
func (w *world) send(*testing.T) {
	known, clients := keys, maxClients
	if w.functions.ahead {
		known, clients = crowded, maxCrowd // commands are announced only if others wait
	}
	if w.large {
		known, clients = append(slices.Clone(known), largeKeys...), maxCrowd
	}
	if w.troubled {
		known = append(slices.Clone(known), troubled...)
	}
	if len(w.waiting) >= clients || len(w.history) >= maxOps {
		return
	}
	key := known[w.rng.IntN(len(known))]
	text := w.ask(key)
	o := &operation{number: len(w.history), key: key, text: text, called: w.next()}
	if w.rng.IntN(3) > 0 {
		o.id = fmt.Sprintf("c%d", o.number)
	}
	w.history = append(w.history, o)
	w.attempt(o)
}

// ask returns a command for an entity.
func (w *world) ask(key string) string {
	n, amount := w.rng.IntN(10), 1+w.rng.IntN(5)
	switch name := 'x' + rune(w.rng.IntN(2)); {
	case key[0] == 't' && n < 6:
		return fmt.Sprintf("set %c %d %d", name, len(w.history), w.rng.IntN(3000))
	case key[0] == 't':
		return fmt.Sprintf("cancel %c", name)
	case key[0] == 's' && n < 7:
		return fmt.Sprintf("send %d b%s", amount, key[1:])
	case key[0] == 'f' && n < 8:
		return w.askForward(key, n, amount)
	case key[0] == 'l' || key[0] == 'h':
		return w.askLarge(key, n, amount)
	case key[0] == 'p':
		return w.askTroubled(key, n)
	case key[0] == 's' || key[0] == 'f':
		return "get"
	case n < 5:
		return fmt.Sprintf("add %d", amount)
	case n < 7:
		return fmt.Sprintf("cas %d %d", w.rng.IntN(6), w.rng.IntN(6))
	default:
		return "get"
	}
}

func (w *world) next() int64 {
	w.moment++
	return w.moment
}

// attempt sends an operation to some worker: mostly to one that should have the partition.
func (w *world) attempt(o *operation) *attempt {
	p := entities.Partition(o.key, parts)
	var able []*worker
	for _, life := range w.workers {
		if !life.dead && (life.has[p] || (!w.quiet && w.rng.IntN(w.strays()) == 0)) {
			able = append(able, life)
		}
	}
	if len(able) == 0 {
		able = w.workers[:]
	}
	return w.attemptAt(able[w.rng.IntN(len(able))], o)
}

// One in strays() attempts may go to a worker that should not have the partition.
func (w *world) strays() int {
	if w.links != nil {
		return 2
	}
	return 8
}

func (w *world) attemptAt(life *worker, o *operation) *attempt {
	o.attempts++
	w.note("%s to %s, attempt %d", o, life.name, o.attempts)
	cmd := command(o.key, o.text)
	cmd.ID, cmd.Consistency, cmd.Bound, cmd.After = o.id, o.consistency, o.bound, o.after
	a := &attempt{operation: o, number: o.attempts, worker: life, alone: true}
	for _, other := range w.waiting {
		if other.operation == o {
			other.alone, a.alone = false, false
		}
	}
	w.waiting = append(w.waiting, a)
	ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
	a.leave = cancel
	go func() { // ends when the worker answers, at the latest when it ends
		defer cancel()
		a.reply, a.err = life.router.Dispatch(ctx, cmd)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.finished = append(w.finished, a)
	}()
	return a
}

// takeIn handles the answers.
func (w *world) takeIn(*testing.T) {
	w.mu.Lock()
	finished := w.finished
	w.finished = nil
	w.mu.Unlock()
	slices.SortFunc(finished, func(a, b *attempt) int {
		return cmp.Or(cmp.Compare(a.operation.number, b.operation.number), cmp.Compare(a.number, b.number))
	})
	for _, a := range finished {
		if a.gone {
			continue
		}
		r := w.judge(a)
		w.note("%s answered by %s: %d %q %v", a.operation, a.worker.name, r.class, r.text, a.err)
		e, _ := errors.AsType[*entities.Error](a.err)
		tooLarge := e != nil && e.Reason == entities.TooLarge && !unkept(e)
		w.remember(a)
		if o := a.operation; o.consistency.Relaxed() {
			w.compareRead(o, r)
		}
		w.compareSize(a.operation, r, tooLarge)
		w.conclude(a, r)
	}
}

// conclude ends an attempt for its client.
func (w *world) conclude(a *attempt, r result) {
	o := a.operation
	w.waiting = slices.DeleteFunc(w.waiting, func(other *attempt) bool { return other == a })
	open := w.open(o)
	if o.kept() {
		w.compareAnswer(a, r)
		return
	}
	o.result = merge(a, r)
	switch {
	case o.result.class == done:
		o.returned = w.next()
	case open: // not finished
	case o.result.class == unknown && o.id != "" && o.attempts < 4 && !w.quiet:
		w.attempt(o) // again, under the same id
		synctest.Wait()
	default:
		o.returned = w.next()
	}
}

// leave makes a client stop waiting. Some get the error of their deadline; others lose the
// connection, and may send the command again at once, or never.
func (w *world) leave(t *testing.T) {
	if len(w.waiting) == 0 {
		return
	}
	a := w.waiting[w.rng.IntN(len(w.waiting))]
	a.leave()
	synctest.Wait()
	if w.rng.IntN(2) == 0 {
		w.fault("caller's deadline")
		w.note("the deadline of %s, attempt %d, passes", a.operation, a.number)
		return
	}
	w.takeIn(t) // other answers are still read
	if !slices.Contains(w.waiting, a) {
		return
	}
	a.gone = true
	w.fault("caller left")
	w.note("the client of %s, attempt %d, leaves", a.operation, a.number)
	if w.rng.IntN(3) == 0 {
		a.operation.attempts += 4 // for good
	}
	w.conclude(a, result{class: unknown})
}

// hedge makes a client send a command again without waiting for the first answer.
func (w *world) hedge(*testing.T) {
	var able []*operation
	for _, a := range w.waiting {
		if o := a.operation; o.id != "" && o.attempts < 4 && !slices.Contains(able, o) {
			able = append(able, o)
		}
	}
	if len(able) == 0 {
		return
	}
	w.fault("caller hedged")
	w.attempt(able[w.rng.IntN(len(able))])
}

// judge returns the result of an answer. An answer of a dead worker is lost: the client's
// connection broke.
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

// merge returns what is known after another attempt. Not applied is about the command, and so about
// earlier attempts as well, but not about a concurrent one; a refusal is about the state that the
// function saw then.
func merge(a *attempt, r result) result {
	switch {
	case r.class == never && !a.alone, r.class == refused && a.operation.attempts > 1:
		return result{class: unknown}
	default:
		return r
	}
}

func (w *world) answerFunction(*testing.T) {
	calls := slices.DeleteFunc(w.functions.answerable(), func(g *gated) bool { return w.isFrozen(g.worker) })
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

// heal ends all faults, assigns everything to one worker, and waits until all commands are
// answered.
func (w *world) heal(t *testing.T) {
	w.quiet = true
	w.note("faults end")
	w.functions.mu.Lock()
	w.functions.open = true
	w.functions.mu.Unlock()
	for _, life := range w.workers {
		life.frozen = false
		w.showAll(life)
	}
	if w.links != nil {
		w.setLinks(linkWorks)
		if w.rng.IntN(2) == 0 {
			w.promote(t)
		}
	}
	w.gather(0)
	w.bring(t, "open commands are answered", func() bool { return len(w.waiting) == 0 })
	w.readAll(t) // appends from before the end of the faults may still end an ownership
	w.readAll(t) // each works again, and returns its position
	for _, o := range w.history[len(w.history)-len(all):] {
		if o.result.class != done {
			w.wrong("after the faults have ended, %s is answered %+v", o, o.result)
		}
	}
	if w.troubled {
		w.endure(t)
	}
	if w.large {
		w.strain(t)
	}
	w.bring(t, "effects are settled", func() bool { return w.openEffects() == 0 })
	w.bring(t, "timers have fired", func() bool { return w.openTimers() == 0 })
	w.repeatAll(t)
	w.compareStore(t)
	w.compareTails()
	w.compareViews(t)
	w.compareEffects()
	w.compareAlarms()
	if w.links != nil {
		w.askStandby(t)
		w.compareFollower(t)
	}
	switch w.rng.IntN(4) {
	case 0:
		w.truncate(t)
	case 1:
		w.removeRecord(t)
	}
	for _, life := range w.workers {
		w.endLife(life)
	}
}

func (w *world) readAll(t *testing.T) {
	t.Helper()
	w.askAll()
	w.bring(t, "reads after the faults are answered", func() bool { return len(w.waiting) == 0 })
}

// askAll reads every entity, one after the other.
func (w *world) askAll() {
	for _, key := range all {
		o := &operation{number: len(w.history), key: key, text: "get", called: w.next()}
		w.history = append(w.history, o)
		w.attempt(o)
		synctest.Wait()
	}
}

// bring delivers everything until a condition holds, for at most a minute of virtual time.
func (w *world) bring(t *testing.T, what string, holds func() bool) {
	for range 1200 {
		for _, g := range w.functions.answerable() {
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
	w.wrong("%s: not within a minute: %d attempts are open", what, len(w.waiting))
	for _, p := range w.workers[0].m.Partitions() {
		w.note("status %+v", p.Status())
	}
}

// goOn advances the time while the log works.
func (w *world) goOn(d time.Duration) {
	for ; d > 0; d -= time.Second {
		w.clock.pass(time.Second)
		w.deliverAll()
	}
}

// deliverAll delivers one append after the other, in an order that does not depend on how
// goroutines were scheduled.
func (w *world) deliverAll() {
	for {
		queues := w.queues(func(op simlog.Op) bool { return !op.Answered })
		if len(queues) == 0 {
			return
		}
		op := queues[0][0]
		w.fits(&op)
		if op.Applied == 0 {
			w.log.Apply(op.ID)
		}
		w.log.Answer(op.ID)
		synctest.Wait()
	}
}

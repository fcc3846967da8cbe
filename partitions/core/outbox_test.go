package core

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
)

var (
	errDown     = entities.Errorf(entities.Unavailable, entities.NotApplied, "down")
	errNoTarget = entities.Errorf(entities.InvalidCommand, entities.NotApplied, "no such target")
)

// sourcePartition is a real core with the rows of its outbox. It performs the core's effects as the
// loop does, and the log takes everything.
type sourcePartition struct {
	t *testing.T
	c *Core
	// rows are the open effects in the store, parked those of them that wait for an operator.
	rows   map[int64]entities.SideEffect
	parked map[int64]bool
	// sent are under way.
	sent []*Delivery
}

func newSource(t *testing.T) *sourcePartition {
	t.Helper()
	s := &sourcePartition{t: t, c: activeCore(t, true), rows: map[int64]entities.SideEffect{}, parked: map[int64]bool{}}
	return s
}

func effectTo(service string) entities.SideEffect {
	return entities.SideEffect{Target: entities.Target{Service: service, Method: "Do"}}
}

// commit is a committed batch with effects on these services.
func (s *sourcePartition) commit(services ...string) {
	s.t.Helper()
	b := &Batch{}
	base := s.c.next
	for i, service := range services {
		e := effectTo(service)
		b.Entries = append(b.Entries, materializer.Entry{Offset: base + int64(i)})
		b.Calls = append(b.Calls, &Call{
			Caller: &seat{}, Command: &entities.Command{}, Result: Result{
				Outcome: &entities.Outcome{Effects: []entities.SideEffect{e}}, Effects: 1, FirstEffect: int64(i),
			},
		})
		s.rows[base+int64(i)] = e
	}
	s.c.next += int64(len(services))
	s.c.keepEffects(b)
	for _, call := range b.Calls {
		s.check(call.progress)
	}
	s.c.pump()
	s.perform()
}

// check checks that the progress for targets is true: every effect that is open is an exception, or
// not below.
func (s *sourcePartition) check(p entities.Progress) {
	s.t.Helper()
	if len(p.Open) > entities.MaxOpen || !slices.IsSorted(p.Open) {
		s.t.Fatalf("progress %+v", p)
	}
	for offset := range s.rows {
		if p.Done(offset) {
			s.t.Fatalf("progress %+v says that the effect of offset %d is done, which is open", p, offset)
		}
	}
}

func (s *sourcePartition) after(from int64) []int64 {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(s.rows)), func(offset int64) bool { return offset < from })
}

func (s *sourcePartition) load(from int64, limit int) (found []*Delivery, next int64, more bool) {
	next = from
	for n, offset := range s.after(from) {
		if n == limit {
			return found, next, true
		}
		next = offset + 1
		if !s.parked[offset] {
			found = append(found, &Delivery{Offset: offset, Effect: s.rows[offset]})
		}
	}
	return found, next, false
}

func (s *sourcePartition) perform() {
	s.t.Helper()
	s.c.Flush()
	for i := 0; i < len(s.c.effects); i++ {
		switch do := s.c.effects[i].Do.(type) {
		case Send:
			s.check(do.Progress)
			s.sent = append(s.sent, do.Delivery)
		case LoadOutbox:
			s.c.OutboxLoaded(s.load(do.From, do.Limit))
		case SweepOutbox:
			s.c.OutboxSwept(s.load(do.From, do.Limit))
		case LoadOpen:
			open := s.after(do.From)
			s.c.OpenLoaded(open[:min(do.Limit, len(open))], len(open) >= do.Limit)
		case LoadTimers:
			s.c.TimersLoaded(nil, false)
		case Append:
			s.store(do.Batch)
			s.c.Acked(do.Batch, broker.AppendResult{Base: s.c.next, Last: s.c.next + int64(len(do.Entries)) - 1})
		default:
		}
	}
	s.c.effects = nil
}

// store changes the rows as the fold does.
func (s *sourcePartition) store(b *Batch) {
	for i := range b.Entries {
		said, err := record.ParseSettled(b.Entries[i].Value)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, offset := range said.GetDone() {
			delete(s.rows, int64(offset))
			delete(s.parked, int64(offset))
		}
		for _, p := range said.GetParked() {
			s.parked[int64(p.GetOffset())] = true
		}
		for _, offset := range said.GetReplayed() {
			delete(s.parked, int64(offset))
		}
	}
}

func (s *sourcePartition) tick(after time.Duration) {
	s.t.Helper()
	s.c.now.Mono += after
	s.c.Ticked()
	s.perform()
}

// answer answers the i-th effect that is under way.
func (s *sourcePartition) answer(i int, err *entities.Error) {
	s.t.Helper()
	offset := s.sent[i].Offset
	s.sent = slices.Delete(s.sent, i, i+1)
	s.c.Delivered(offset, nil, err)
	s.perform()
}

// answerAll answers what is under way to a service until nothing is.
func (s *sourcePartition) answerAll(service string, err *entities.Error) (n int) {
	s.t.Helper()
	for i := 0; i < len(s.sent); {
		if s.sent[i].Effect.Service != service {
			i++
			continue
		}
		s.answer(i, err)
		n++
		i = 0
	}
	return n
}

// resolve is an operator's request about parked effects.
func (s *sourcePartition) resolve(drop bool, offsets ...int64) {
	s.t.Helper()
	r := &Resolution{Drop: drop, Done: func(bool) {}}
	for _, offset := range offsets {
		r.Effects = append(r.Effects, &Delivery{Offset: offset, Effect: s.rows[offset]})
	}
	s.c.Resolve(r)
	s.perform()
}

// restart is another owner, which has what is stored.
func (s *sourcePartition) restart() {
	s.t.Helper()
	next := s.c.next
	s.c = activeCore(s.t, true)
	s.c.next = next
	s.c.outbox = newOutbox()
	s.sent = nil
	s.c.loadOutbox()
	s.c.loadOpen()
	s.c.ParkedCounted(len(s.parked))
	s.perform()
}

// TestParkedEffectsHoldNoPlace: whatever number of effects is parked, or waits for a target that is
// gone, others of the partition are sent at once, also by the next owner, and memory does not grow.
func TestParkedEffectsHoldNoPlace(t *testing.T) {
	s := newSource(t)
	const many = OutboxWindow + 104
	for n := 0; n < many; n += 50 {
		s.commit(slices.Concat(slices.Repeat([]string{"bad"}, 50), slices.Repeat([]string{"gone"}, 30))...)
		s.answerAll("bad", errNoTarget)
		s.answerAll("gone", errDown)
	}
	s.tick(time.Millisecond)
	good := func(when string) {
		t.Helper()
		s.commit("good")
		if n := s.answerAll("good", nil); n != 1 {
			t.Fatalf("%s: %d good effects are sent; want 1. Open in memory: %d", when, n, len(s.c.outbox.byOffset))
		}
		if n := len(s.c.outbox.byOffset); n > maxWaiting+maxSending {
			t.Errorf("%s: %d effects are in memory", when, n)
		}
	}
	good("after a flood")
	if s.c.outbox.parked != many {
		t.Errorf("%d effects are parked; want %d", s.c.outbox.parked, many)
	}
	s.tick(tick)
	s.restart()
	for i := 0; s.c.outbox.more; i++ {
		if i == 10 {
			t.Fatal("the outbox is not read to its end")
		}
		s.tick(tick)
		s.answerAll("gone", errDown)
	}
	good("under the next owner")
	if s.c.outbox.parked != many {
		t.Errorf("%d effects are parked for the next owner; want %d", s.c.outbox.parked, many)
	}
	for i := 0; len(s.rows) > len(s.parked); i++ {
		if i == 1000 {
			t.Fatalf("%d effects are not delivered although their target is back", len(s.rows)-len(s.parked))
		}
		s.tick(31 * time.Second)
		s.answerAll("gone", nil)
	}
}

// TestASlowTargetLeavesPlaces: a target that does not answer takes at most 48 of the 64 places.
func TestASlowTargetLeavesPlaces(t *testing.T) {
	s := newSource(t)
	for range 3 * maxSending {
		s.commit("slow")
	}
	if len(s.sent) != maxPerLane {
		t.Fatalf("%d effects are under way to a slow target; want %d", len(s.sent), maxPerLane)
	}
	for range 100 {
		s.commit("good")
		if n := s.answerAll("good", nil); n != 1 {
			t.Fatal("an effect waits behind those for a slow target")
		}
	}
	if s.answerAll("slow", nil) != 3*maxSending {
		t.Error("not all effects on the slow target were sent")
	}
}

// TestHangingTargetsGiveTheirPlacesBack: after a second without an answer, effects hold places of
// their lane only, so that even more dead targets than places leave other targets as many places as
// before. All of it is bounded.
func TestHangingTargetsGiveTheirPlacesBack(t *testing.T) {
	s := newSource(t)
	const dead = 10
	for i := range dead {
		for range maxPerLane {
			s.commit(fmt.Sprint("dead", i))
		}
	}
	for range dead * int(slowAfter/tick) {
		s.tick(tick)
	}
	if n := len(s.c.outbox.underWay); n != dead*maxPerLane {
		t.Fatalf("%d effects are under way to dead targets; want %d", n, dead*maxPerLane)
	}
	s.tick(slowAfter)
	for range maxPerLane {
		s.commit("good")
	}
	if n := s.answerAll("good", nil); n != maxPerLane {
		t.Fatalf("%d effects were sent to the good target; want %d", n, maxPerLane)
	}
	const more = 100
	for i := range more {
		for range maxPerLane {
			s.commit(fmt.Sprint("more", i))
		}
		s.tick(slowAfter)
		s.tick(slowAfter)
	}
	if n, most := len(s.c.outbox.underWay), maxSlow+maxSending+more; n > most || n < maxSlow {
		t.Fatalf("%d effects are under way; want at most %d", n, most)
	}
	s.commit("good")
	if n := s.answerAll("good", nil); n != 1 {
		t.Fatalf("%d effects were sent to the good target among %d that are slow; want 1", n, s.c.outbox.slow)
	}
	for len(s.sent) > 0 {
		for i := range dead {
			s.answerAll(fmt.Sprint("dead", i), nil)
		}
		for i := range 100 {
			s.answerAll(fmt.Sprint("more", i), nil)
		}
	}
	if o := &s.c.outbox; len(o.underWay) != 0 || o.slow != 0 {
		t.Errorf("%d effects are under way, %d slow, after all were answered", len(o.underWay), o.slow)
	}
}

// TestATargetThatHangsFillsNoMemory: an attempt that never ends closes no lane. What waits behind
// such attempts leaves memory, so that other effects find room there, and is delivered when the
// target answers in the end.
func TestATargetThatHangsFillsNoMemory(t *testing.T) {
	s := newSource(t)
	const many = OutboxWindow + 500
	for i := range many {
		s.commit("hangs")
		if i%500 == 499 {
			s.tick(slowAfter)
		}
	}
	s.tick(slowAfter)
	if n, most := len(s.c.outbox.byOffset), maxWaiting+maxPerLane+1; n > most {
		t.Fatalf("%d effects on a target that hangs are in memory; want at most %d", n, most)
	}
	for range 2 * maxPerLane {
		s.commit("good")
		if n := s.answerAll("good", nil); n != 1 {
			t.Fatal("an effect waits behind those for a target that hangs")
		}
	}
	for i := 0; len(s.rows) > 0; i++ {
		if i == 1000 {
			t.Fatalf("%d effects are not delivered although their target answers", len(s.rows))
		}
		s.answerAll("hangs", nil)
		s.tick(tick)
	}
}

// TestAClosedLaneSendsProbes: one at a time, with growing pauses; one answer opens it.
func TestAClosedLaneSendsProbes(t *testing.T) {
	s := newSource(t)
	for range 200 {
		s.commit("gone")
	}
	s.answerAll("gone", errDown)
	probes := 0
	for range 600 { // a minute
		s.tick(tick)
		if len(s.sent) > 1 {
			t.Fatalf("%d effects are under way to a target that is gone", len(s.sent))
		}
		probes += s.answerAll("gone", errDown)
	}
	if probes < 5 || probes > 20 {
		t.Errorf("%d probes in a minute", probes)
	}
	s.tick(31 * time.Second)
	if s.answerAll("gone", nil) != 200 {
		t.Error("an answer did not open the lane")
	}
}

// TestProgressHasExceptions: a parked effect does not hold up the progress for targets, they keep
// its row, and it takes effect when it is sent again long after.
func TestProgressHasExceptions(t *testing.T) {
	s, x := newSource(t), newTarget(t)
	s.commit("bad", "good")
	parked := s.sent[0].Offset
	x.receive(parked, s.sent[0].Progress) // it takes effect, although the answer is an error
	s.answerAll("bad", errNoTarget)
	for range 3 {
		x.receive(s.sent[0].Offset, s.sent[0].Progress)
		s.answerAll("good", nil)
		s.tick(tick)
		s.commit("bad", "good")
		s.answerAll("bad", errNoTarget)
	}
	last := s.sent[len(s.sent)-1].Progress
	if want := s.sent[len(s.sent)-1].Offset; last.Through < want-1 || len(last.Open) == 0 || last.Open[0] != parked {
		t.Errorf("progress %+v; want one up to offset %d with %d among the exceptions", last, want, parked)
	}
	x.receive(s.sent[0].Offset, s.sent[0].Progress)
	s.answerAll("good", nil)
	s.tick(tick)
	x.forget(1 << 20)
	again := slices.Sorted(maps.Keys(s.parked))
	s.resolve(false, again...)
	for len(s.sent) > 0 {
		x.receive(s.sent[0].Offset, s.sent[0].Progress)
		s.answer(0, nil)
	}
	for _, offset := range again {
		if x.applied[offset] != 1 {
			t.Errorf("the parked effect of offset %d took effect %d times", offset, x.applied[offset])
		}
	}
}

// TestAnEffectThatHangsIsAnException: an effect whose target does not answer does not hold up the
// progress for targets for the whole timeout.
func TestAnEffectThatHangsIsAnException(t *testing.T) {
	s := newSource(t)
	s.commit("hangs")
	hangs := s.sent[0].Offset
	s.tick(slowAfter)
	for range 3 {
		s.commit("good")
		s.answerAll("good", nil)
		s.tick(tick)
	}
	s.commit("good")
	last := s.sent[len(s.sent)-1]
	if p, want := last.Progress, last.Offset; p.Through < want-1 || !slices.Equal(p.Open, []int64{hangs}) {
		t.Errorf("progress %+v; want one up to offset %d with %d as its exception", p, want, hangs)
	}
}

// targetPartition takes effects of a source: the real rows, the real decision about copies.
type targetPartition struct {
	t       *testing.T
	c       *Core
	store   materializer.Store
	fold    *materializer.Fold
	next    int64
	ordinal uint64
	cursor  []byte
	applied map[int64]int
}

func newTarget(t *testing.T) *targetPartition {
	t.Helper()
	x := &targetPartition{t: t, c: activeCore(t, true), store: memstore.New(), applied: map[int64]int{}}
	x.fold = materializer.NewFold(x.address(), "topic", materializer.Meta{})
	x.write(record.Envelope{Kind: record.Claim, Claim: &record.ClaimInfo{}})
	return x
}

func (x *targetPartition) address() materializer.Address { return materializer.Address{Generation: 1} }

func (x *targetPartition) write(env record.Envelope) {
	x.t.Helper()
	env.Epoch, env.Nonce = 1, 7
	if env.Kind != record.Claim {
		x.ordinal++
		env.Ordinal = x.ordinal
	}
	rows := x.store.NewBatch()
	// The envelope goes through its encoded form, as in the log.
	var (
		parser record.Parser
		read   record.Envelope
	)
	if err := parser.Parse(env.Append(nil), &read); err != nil {
		x.t.Fatal(err)
	}
	if _, err := x.fold.Step(rows, &materializer.Entry{Offset: x.next, Envelope: read}); err != nil {
		x.t.Fatal(err)
	}
	if err := rows.Commit(); err != nil {
		x.t.Fatal(err)
	}
	x.next++
}

// receive takes an effect as Partition.lookup and core.admit do.
func (x *targetPartition) receive(offset int64, p entities.Progress) {
	x.t.Helper()
	source := entities.Source{Generation: 1, Partition: 3, Offset: offset, Settled: p.Through, Open: p.Open}
	_, known, settled, err := materializer.Partition{Rows: x.store, Address: x.address()}.Delivered(source)
	if err != nil {
		x.t.Fatal(err)
	}
	if known || x.c.doneAtSource(&source, settled) {
		return
	}
	x.applied[offset]++
	x.write(record.Envelope{Kind: record.Answered, Cause: x.c.cause(&source)})
}

func (x *targetPartition) forget(rows int) {
	x.t.Helper()
	next, _, err := materializer.Forget(x.store, x.address(), x.cursor, rows)
	if err != nil {
		x.t.Fatal(err)
	}
	x.cursor = next
}

// remembered is how many rows of effects the target has.
func (x *targetPartition) remembered() (n int) {
	lower, upper := x.address().Range()
	_ = x.store.Scan(lower, upper, func(key, _ []byte) bool {
		if key[4] == 'q' {
			n++
		}
		return true
	})
	return n
}

// message is an effect under way, as it was sent.
type message struct {
	offset   int64
	progress entities.Progress
}

// TestEffectsTakeEffectOnce: messages are lost, late, repeated and out of order, effects are
// parked, dropped, and sent again long after, targets forget, and both sides change owners. Every
// effect takes effect once, but for those that an operator drops.
func TestEffectsTakeEffectOnce(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 3))
			s, x := newSource(t), newTarget(t)
			var late []message
			dropped, sent := map[int64]bool{}, []int64{}
			parking := 1 + rnd.IntN(30) // one in so many
			deliver := func() {
				i := rnd.IntN(len(s.sent))
				m := message{s.sent[i].Offset, s.sent[i].Progress}
				var err *entities.Error
				switch {
				case rnd.IntN(parking) == 0:
					err = errNoTarget
				case rnd.IntN(6) == 0:
					err = errDown
				case rnd.IntN(6) == 0: // it took effect, and the answer is lost
					x.receive(m.offset, m.progress)
					err = entities.Errorf(entities.LostOutcome, entities.Unknown, "lost")
				default:
					x.receive(m.offset, m.progress)
				}
				if rnd.IntN(4) == 0 {
					late = append(late, m)
				}
				s.answer(i, err)
			}
			for range 3_000 {
				switch rnd.IntN(20) {
				case 0, 1, 2, 3:
					services := make([]string, 1+rnd.IntN(5))
					for i := range services {
						services[i] = fmt.Sprint("s", rnd.IntN(3))
						sent = append(sent, s.c.next+int64(i))
					}
					s.commit(services...)
				case 4:
					s.tick(time.Duration(rnd.Int64N(int64(10 * time.Second))))
				case 5:
					if len(late) > 0 {
						m := late[rnd.IntN(len(late))]
						x.receive(m.offset, m.progress)
					}
				case 6:
					x.forget(1 + rnd.IntN(20))
				case 7:
					if parked := slices.Sorted(maps.Keys(s.parked)); len(parked) > 0 && rnd.IntN(4) == 0 {
						offset := parked[rnd.IntN(len(parked))]
						if drop := rnd.IntN(3) == 0; drop {
							dropped[offset] = true
							s.resolve(true, offset)
						} else {
							s.resolve(false, offset)
						}
					}
				case 8:
					switch rnd.IntN(30) {
					case 0:
						s.restart()
					case 1:
						x.c = activeCore(t, true)
					}
				default:
					if len(s.sent) > 0 {
						deliver()
					}
				}
			}
			for i := 0; len(s.rows) > 0; i++ {
				if i == 1000 {
					t.Fatalf("%d effects are left, %d parked", len(s.rows), len(s.parked))
				}
				if parked := slices.Sorted(maps.Keys(s.parked)); len(parked) > 0 {
					s.resolve(false, parked...)
				}
				for len(s.sent) > 0 {
					x.receive(s.sent[0].Offset, s.sent[0].Progress)
					s.answer(0, nil)
				}
				s.tick(31 * time.Second)
			}
			s.commit("s0", "s0")
			for len(s.sent) > 0 {
				x.receive(s.sent[0].Offset, s.sent[0].Progress)
				s.answer(0, nil)
			}
			for range 2 {
				for _, m := range late {
					x.receive(m.offset, m.progress)
				}
				x.cursor = nil
				x.forget(1 << 20)
			}
			for _, offset := range sent {
				if n := x.applied[offset]; n != 1 && !(dropped[offset] && n == 0) {
					t.Errorf("the effect of offset %d took effect %d times", offset, n)
				}
			}
			if n := x.remembered(); n > 8 {
				t.Errorf("the target remembers %d effects although all are done", n)
			}
			if s.c.outbox.parked != 0 || s.c.outbox.stuck != 0 || len(s.c.outbox.byOffset) > 2 {
				t.Errorf("all is done, and the outbox has %d parked, %d stuck, %d in memory",
					s.c.outbox.parked, s.c.outbox.stuck, len(s.c.outbox.byOffset))
			}
		})
	}
}

// TestSettledMeansCommitted: an effect counts as done, for its targets too, only when that is in
// the log. Otherwise a target could forget it, and a worker that does not know would send it again.
func TestSettledMeansCommitted(t *testing.T) {
	c := activeCore(t, true)
	c.keep(&Delivery{Offset: 1})
	c.pump()
	c.next = 2
	c.Delivered(1, nil, nil)
	if w := c.progress().Through; w != 1 {
		t.Fatalf("the target has answered, and the watermark is %d; want 1 until the log says so", w)
	}
	c.Ticked()
	c.Flush()
	if len(c.sent) != 1 {
		t.Fatal("no settled record was sent")
	}
	c.Acked(c.sent[0], broker.AppendResult{Base: 2, Last: 2})
	if w := c.progress().Through; w != 3 {
		t.Errorf("the log has the settled record, and the watermark is %d; want 3", w)
	}
}

// TestEffectsStayInOrder: effects that are committed while older ones are read from the store must
// not come before them, or the progress would pass open ones.
func TestEffectsStayInOrder(t *testing.T) {
	c := activeCore(t, true)
	c.next = 10
	c.outbox.more, c.outbox.bound = true, 0
	c.refill()
	if !asks[LoadOutbox](c) || !asks[LoadOpen](c) {
		t.Fatal("the store is not asked for more")
	}
	c.keep(&Delivery{Offset: 9})
	if p := c.progress(); p.Through != 0 {
		t.Errorf("the progress is %+v while older effects are unknown; want 0", p)
	}
	c.OpenLoaded([]int64{5, 9}, false)
	c.OutboxLoaded([]*Delivery{{Offset: 5}, {Offset: 9}}, 10, false)
	if p := c.progress(); p.Through != 5 || len(c.outbox.byOffset) != 2 {
		t.Errorf("the progress is %+v with %d effects; want 5 with 2", p, len(c.outbox.byOffset))
	}
}

package core

import (
	"container/heap"
	"slices"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/internal/schedule"
	"github.com/millrace-io/millrace/materializer"
	recordv1 "github.com/millrace-io/millrace/proto/gen/millrace/record/v1"
)

// A due timer is a command of its entity, and a record in the group of that command states that the
// timer has fired.
//
//	T1  A timer fires only as it was last set. (superseded)
//	T2  Timers that left memory during a load are read again. (horizon)
//	T3  Due timers of one entity type leave room for those of others, under way and in memory.
//	    (lane, crowd)
//	T4  A timer whose command can never be run is parked. (hopeless)

const (
	// TimerWindow is how many of the next timers of a partition are in memory; the store has all of
	// them.
	TimerWindow = 4096
	// maxFiring is how many timers of a partition may be firing at a time, maxFiringPerType those
	// of one entity type.
	maxFiring        = 64
	maxFiringPerType = 48
	// maxWaitingPerType is how many due timers of one entity type wait in memory, held back or for
	// another attempt, before further ones are left to the store. searchRows is how many entries of
	// the index one search for those examines.
	maxWaitingPerType = 512
	searchRows        = 2 * maxWaitingPerType
)

// Timer is a timer that is in memory.
type Timer struct {
	materializer.Due
	// wake is when to try, by the log's clock: the due time, or later after a failure.
	wake int64
	// attempts were made; on Failures of them the function failed.
	attempts, Failures int
}

// timers are the next timers of a partition.
type timers struct {
	next alarmHeap
	// known are the offsets of all timers in memory, firing ones included.
	known  map[int64]struct{}
	firing int
	// types are those with timers that came due; held counts the timers that are held back, retrying
	// those in next that were tried before.
	types          []*timerType
	held, retrying int
	// more: the store has others, all of them after floor in its index. Timers due after floor are
	// left to the store.
	more  bool
	floor materializer.Due
	// resting: timers have left memory since the last tick, so that reading the store goes on with the
	// next one.
	resting bool
	// loading: the timers after floor are being read. overflowed: memory was emptied in between, so
	// that floor has changed.
	loading, overflowed bool
}

// timerType holds the timers of one entity type that are firing, and those that are due and held
// back because enough are firing. If too many wait, those that come due leave memory, so that
// timers of other types find room.
type timerType struct {
	name   string
	firing int
	held   []*Timer
	// retrying counts those in the heap that were tried before. They do not leave memory, because
	// their number of attempts would be lost.
	retrying int
	// left: due ones have left memory. All of them lie at or after from in the index, and none after
	// floor.
	left bool
	from materializer.Due
	// searching: the index is being searched for them. idle: the last search found none in the entries
	// that it examined, and goes on with the next tick.
	searching, idle bool
}

func (of *timerType) waiting() int { return len(of.held) + of.retrying }

// mayReturn reports whether timers have left memory and there is room for them again.
func (of *timerType) mayReturn() bool {
	return of.left && !of.searching && of.waiting() < maxWaitingPerType/2
}

// leave notes that a timer is left to the store, or where to search for others.
func (of *timerType) leave(d materializer.Due) {
	if !of.left || before(d, of.from) {
		of.left, of.from = true, d
	}
}

// before reports whether a lies before b in the index.
func before(a, b materializer.Due) bool { return a.At < b.At || (a.At == b.At && a.Offset < b.Offset) }

// newTimers returns timers of which none is read yet.
func newTimers() timers {
	return timers{known: map[int64]struct{}{}, more: true}
}

// of returns the entity type of a name. There are few.
func (t *timers) of(name string) *timerType {
	for _, of := range t.types {
		if of.name == name {
			return of
		}
	}
	of := &timerType{name: name}
	t.types = append(t.types, of)
	return of
}

// fresh returns how many timers in memory have had no attempt and are not held back.
func (t *timers) fresh() int { return len(t.next) - t.retrying }

// left reports whether due timers have left memory.
func (t *timers) left() bool {
	return slices.ContainsFunc(t.types, func(of *timerType) bool { return of.left })
}

// pending reports whether the store may have due timers that are read soon: with the next tick at
// the latest.
func (t *timers) pending() bool {
	for _, of := range t.types {
		if of.mayReturn() {
			return true
		}
	}
	return t.more && t.resting
}

// loaded returns how many timers are in memory and not firing.
func (t *timers) loaded() int { return len(t.next) + t.held }

// alarmHeap is a heap.Interface.
//
//nolint:recvcheck // container/heap wants it so
type alarmHeap []*Timer

func (h alarmHeap) Len() int { return len(h) }
func (h alarmHeap) Less(i, j int) bool {
	return h[i].wake < h[j].wake || (h[i].wake == h[j].wake && h[i].Offset < h[j].Offset)
}
func (h alarmHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *alarmHeap) Push(x any)   { *h = append(*h, x.(*Timer)) } //nolint:errcheck,forcetypeassert // only alarms
func (h *alarmHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return last
}

// setTimer takes a committed timer into memory, unless there are enough that come before it.
func (c *Core) setTimer(d materializer.Due) {
	t := &c.timers
	if _, known := t.known[d.Offset]; known || (t.more && d.At > t.floor.At) {
		return
	}
	if t.fresh() >= 2*TimerWindow {
		// The farthest ones are left to the store, which is read again from the nearest of them on.
		for _, a := range t.next {
			delete(t.known, a.Offset)
		}
		t.next, t.more, t.floor, t.overflowed = nil, true, materializer.Due{}, true
		t.retrying = 0
		for _, of := range t.types {
			of.retrying = 0
		}
		return
	}
	a := &Timer{Due: d, wake: d.At}
	t.known[d.Offset] = struct{}{}
	heap.Push(&t.next, a)
}

// TimersLoaded takes the timers after floor from the store, in order; more reports whether there
// are others after them.
func (c *Core) TimersLoaded(due []materializer.Due, more bool) {
	t := &c.timers
	t.loading = false
	if !t.overflowed || mutation.On(mutation.Horizon) {
		t.more = false
		for _, d := range due {
			c.setTimer(d)
		}
		if more && (!t.overflowed || mutation.On(mutation.Horizon)) {
			t.more, t.floor = true, due[len(due)-1]
		}
	}
	t.overflowed = false
	c.fire()
}

// loadTimers asks the store for the timers after floor.
func (c *Core) loadTimers() {
	c.timers.loading, c.timers.overflowed = true, false
	c.emit(LoadTimers{After: c.timers.floor, Limit: TimerWindow})
}

// searchTimers asks the store for the timers of a type that have left memory.
func (c *Core) searchTimers(of *timerType) {
	from := of.from
	from.Offset-- // the store returns what is after a place
	from.Key.Type = of.name
	of.left, of.searching = false, true
	c.emit(SearchTimers{After: from, Limit: searchRows})
}

// TimersFound takes entries of the index from the place where timers of a type have left memory, in
// order, those of other types included; more reports whether there are others after them.
func (c *Core) TimersFound(name string, due []materializer.Due, more bool) {
	t := &c.timers
	of := t.of(name)
	of.searching = false
	found := false
	for _, d := range due {
		if d.At > c.now.Log || (t.more && before(t.floor, d)) { // it is in memory, or read with the others
			more = false
			break
		}
		if _, known := t.known[d.Offset]; known || d.Key.Type != name {
			continue
		}
		if of.waiting() >= maxWaitingPerType {
			of.leave(d)
			more = false
			break
		}
		found = true
		t.known[d.Offset] = struct{}{}
		of.held = append(of.held, &Timer{Due: d, wake: d.At})
		t.held++
	}
	if more {
		behind := due[len(due)-1]
		behind.Offset++
		of.leave(behind)
	}
	of.idle = of.left && !found
	c.fire()
}

// fireAgain is fire once a tick: what has rested since the last one goes on.
func (c *Core) fireAgain() {
	t := &c.timers
	t.resting = false
	for _, of := range t.types {
		of.idle = false
	}
	c.fire()
}

// fire starts the timers whose time has come, and asks the store for more when few are left.
func (c *Core) fire() {
	t := &c.timers
	for _, of := range t.types {
		for len(of.held) > 0 && t.firing < maxFiring && of.firing < maxFiringPerType {
			a := of.held[0]
			of.held[0] = nil
			of.held = of.held[1:]
			t.held--
			c.start(a, of)
		}
	}
	for t.firing < maxFiring && len(t.next) > 0 && t.next[0].wake <= c.now.Log {
		a := heap.Pop(&t.next).(*Timer) //nolint:errcheck,forcetypeassert // only alarms
		of := t.of(a.Key.Type)
		if a.attempts > 0 {
			t.retrying--
			of.retrying--
		}
		switch {
		case of.firing < maxFiringPerType || mutation.On(mutation.Lane):
			c.start(a, of)
		case a.attempts == 0 && of.waiting() >= maxWaitingPerType && !mutation.On(mutation.Crowd):
			delete(t.known, a.Offset)
			of.leave(a.Due)
			t.resting = true
		default:
			of.held = append(of.held, a)
			t.held++
		}
	}
	for _, of := range t.types {
		if of.mayReturn() && !of.idle {
			c.searchTimers(of)
		}
	}
	room := t.fresh()
	if mutation.On(mutation.Crowd) {
		room = t.loaded()
	}
	if t.more && !t.loading && !t.resting && room < TimerWindow/2 {
		c.loadTimers()
	}
}

// start starts the command of a timer.
func (c *Core) start(a *Timer, of *timerType) {
	a.attempts++
	of.firing++
	c.timers.firing++
	c.emit(Fire{a})
}

// Fired reports how a timer's command ended. superseded: the timer was cancelled or set again; its
// entry in the index is void.
func (c *Core) Fired(incarnation uint64, a *Timer, superseded bool, err *entities.Error) {
	if incarnation != c.incarnation {
		return
	}
	t := &c.timers
	of := t.of(a.Key.Type)
	t.firing--
	of.firing--
	switch {
	case superseded:
		delete(t.known, a.Offset)
		c.emit(Sweep{a})
	case err == nil || err.Reason == entities.FunctionRefused:
		delete(t.known, a.Offset)
	default:
		if err.Reason == entities.FunctionFailed {
			a.Failures++
		}
		a.wake = c.now.Log + int64(resend.PauseBy(a.attempts, spread(a.Offset)))
		heap.Push(&t.next, a)
		t.retrying++
		of.retrying++
	}
	c.fire()
}

// giveUp ends a timer on whose command the function fails again and again, or whose command can
// never be run or stored, while it is that command's turn. The occurrence becomes an effect of the
// entity on itself, which is parked, and a recurring timer is set for its next time. It returns
// false if the timer is to be tried again.
func (c *Core) giveUp(e *Entity, call *Call, err *entities.Error) bool {
	timer := call.Command.Timer
	if timer == nil || !lastAttempt(timer, err) {
		return false
	}
	call.Outcome, call.gaveUp = &entities.Outcome{Effects: []entities.SideEffect{{Target: timer.Target}}}, err
	if c.write(e, call) != nil {
		call.Outcome, call.gaveUp = nil, nil
		return false
	}
	return true
}

// lastAttempt reports whether another attempt at a timer's command is pointless: the function has
// failed often enough, or any attempt would end as this one did.
func lastAttempt(timer *entities.TimerFiring, err *entities.Error) bool {
	if err.Reason == entities.FunctionFailed {
		return timer.Failures+1 >= MaxFailures
	}
	return Hopeless(err) && !mutation.On(mutation.Hopeless)
}

// CannotRun ends the turn of a timer's command that cannot be run: see entities.TimerFiring. The
// function has not seen it, so the entity's session goes on.
func (c *Core) CannotRun(call *Call) {
	e := call.entity
	e.running = nil
	if err := call.Command.Timer.Err; !c.giveUp(e, call, err) {
		c.refuse(call, err)
	}
	c.advance(e)
}

// parkTimer parks the effect that stands for a timer's command, once it is committed. Until the log
// has the park record, another owner sends it like any effect.
func (c *Core) parkTimer(d *Delivery, call *Call) {
	d.attempts = call.Command.Timer.Failures + 1
	c.park(d, call.gaveUp)
	parked := c.outbox.results.GetParked()
	parked[len(parked)-1].Timer = &recordv1.ParkedTimer{Name: call.Command.Timer.Name, Due: call.Command.Timer.Due}
}

// timerChanging reports whether the timer of a call was changed by a command that is decided and
// not committed. The timer is tried again: whether it still counts is known once the log has that
// command, or will never have it.
func (c *Core) timerChanging(call *Call) bool {
	timer := call.Command.Timer
	return timer != nil && call.entity.timers[timer.Name] > 0 && !mutation.On(mutation.Superseded)
}

// Superseded ends the call of a timer that a committed command cancelled or set again.
func (c *Core) Superseded(call *Call) {
	call.superseded = true
	c.finish(call)
	c.vacate(call, nil)
}

// overdue returns how late the oldest timer in memory is.
func (t *timers) overdue(now int64) time.Duration {
	oldest := now
	if len(t.next) > 0 {
		oldest = min(oldest, t.next[0].At)
	}
	for _, of := range t.types {
		if len(of.held) > 0 {
			oldest = min(oldest, of.held[0].At)
		}
		if of.left {
			oldest = min(oldest, of.from.At)
		}
	}
	return time.Duration(now - oldest)
}

// fired adds the record that a timer's command took effect.
func (g *group) fired(f *entities.TimerFiring) {
	g.add(record.TimerFired, entities.Payload{}).Timer = record.EncodeTimer(&recordv1.Timer{
		Name: f.Name, Due: f.Due, Schedule: f.Schedule, SetOffset: record.Unsigned(f.Offset),
	})
	g.touch(f.Name)
}

// again sets a recurring timer for its next time after now. Missed times are not made up for.
func (g *group) again() error {
	f := g.call.Command.Timer
	next, err := schedule.Next(f.Schedule, g.core.now.Log)
	if err != nil {
		return err
	}
	g.set(f.Name, next, f.Schedule, f.Target)
	return nil
}

// change adds the record of what a command did to a timer of its entity.
func (g *group) change(t *entities.TimerChange) error {
	if t.Cancel {
		g.add(record.TimerCancelled, entities.Payload{}).Timer = record.EncodeTimer(&recordv1.Timer{Name: t.Name})
		g.touch(t.Name)
		return nil
	}
	due := g.core.now.Log + int64(t.After)
	if t.Schedule != "" {
		var err error
		if due, err = schedule.Next(t.Schedule, g.core.now.Log); err != nil {
			return err
		}
	}
	g.set(t.Name, due, t.Schedule, t.Target)
	return nil
}

func (g *group) set(name string, due int64, schedule string, target entities.Target) {
	env := g.add(record.TimerSet, target.Payload)
	env.Timer = record.EncodeTimer(&recordv1.Timer{Name: name, Due: due, Schedule: schedule})
	env.Target = record.EncodeTarget(target)
	g.touch(name)
	g.core.open.timers = append(g.core.open.timers, pendingTimer{
		entry: len(g.core.open.Entries) - 1, due: materializer.Due{At: due, Key: g.entity.Key, Name: name},
	})
}

// touch notes that a timer has a change that is not committed.
func (g *group) touch(name string) {
	if g.entity.timers == nil {
		g.entity.timers = map[string]int{}
	}
	g.entity.timers[name]++
	g.call.timers = append(g.call.timers, name)
}

// pendingTimer is a timer that a batch sets, by the index of its record.
type pendingTimer struct {
	entry int
	due   materializer.Due
}

package partitions

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/invariant"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/materializer"
)

// State is where a partition stands on its way to ownership and back.
type State uint8

// The states of the log protocol. A fenced partition is at once CatchingUp again, or in Standby when it is not assigned. Passing
// is an owner that puts barriers where the log has lost something (repair.go), Repairing a halted one that an operator mends. The
// numbers are shown as a metric: new ones come last.
const (
	Standby State = iota
	CatchingUp
	Claiming
	Active
	Suspect
	Draining
	Halted
	Passing
	Repairing
)

var stateNames = [...]string{"standby", "catching up", "claiming", "active", "suspect", "draining", "halted", "passing", "repairing"} //nolint:gochecknoglobals // a constant table

// String returns the state as shown in status.
func (s State) String() string { return stateNames[s] }

// Now is the time as the core gets it.
type Now struct {
	// Mono counts from some moment in this process.
	Mono time.Duration
	// Log is the log time in nanoseconds since the Unix epoch.
	Log int64
}

// core is the owner's mind: a pure step function over one partition. Inputs are its methods, in the order in which a
// partition meets them; each appends to effects, which the loop performs in order. Not safe for concurrent use.
type core struct {
	coreConfig

	// types are the entity types that this worker serves; they stand in every claim.
	types []string

	state    State
	assigned bool
	now      Now
	// incarnation counts ownerships that ended. What was begun under an earlier one is stale.
	incarnation uint64
	owner       record.Owner
	// next is the offset that the next own record must get; until the claim is read back, one that it must not be below.
	// ordinal is that of the last record decided.
	next     int64
	ordinal  uint64
	attempts int
	halted   error
	// confirmed is a moment at which the log knew no other owner: when the last acknowledged batch was sent.
	confirmed time.Duration
	// floor is the offset below which nothing may be put but barriers; repair is what an operator asked for.
	floor  int64
	repair *Repair
	// goneSince is when the log first showed less than it had acknowledged; 0: it does not.
	goneSince time.Duration
	drainBy   time.Duration
	// followed: while another worker owns the partition, this one keeps its image fresh.
	followed bool
	// releasing: somebody waits for an orderly release. It goes on through a gap that is read meanwhile.
	releasing bool
	// withheld says why the partition was given up although it is assigned; empty: it was not.
	withheld string
	// lastFence says why the last ownership or attempt ended.
	lastFence string

	entities map[entities.Key]*entity
	all      entityList
	idle     []*idleList
	active   int // bytes of all sessions
	ids      map[commandID]*Call
	// waiting are calls submitted before the partition was active.
	waiting []*Call

	outbox outbox
	timers timers
	// concluding are the forwards, by the offsets of their records, whose answers are on their way to the log.
	concluding map[int64]*conclusion
	// settleNow: what became of effects has waited long enough to be written on its own.
	settleNow bool

	// Batches pass through these in order: open takes what is decided, full holds those to which nothing fits any more and for
	// which there is no room on the way to the log, sent are on their way. What waits is bounded by Limits.MaxWaiting.
	open  *batch
	full  []*batch
	sent  []*batch
	spare []*batch
	// changes is scratch space.
	changes []materializer.Change

	effects []effect
}

// coreConfig is what a core is made of.
type coreConfig struct {
	partition int32
	// worker and layout stand in every claim.
	worker string
	layout entities.Layout
	limits Limits
	// single: a lock keeps other writers out, so that answers that wrote nothing need no barrier.
	single bool
	// laneOf says which targets of effects hold each other up when one of them fails. Nil: those of one service do.
	laneOf func(*entities.Target) laneName
}

func newCore(o coreConfig) *core {
	if o.laneOf == nil {
		o.laneOf = func(t *entities.Target) laneName { return laneName{service: t.Service, partition: -1} }
	}
	return &core{
		coreConfig: o, entities: map[entities.Key]*entity{}, ids: map[commandID]*Call{}, open: &batch{},
		outbox: newOutbox(), timers: newTimers(), concluding: map[int64]*conclusion{},
	}
}

// SetNow says what time it is. What follows happens then.
func (c *core) SetNow(now Now) { c.now = now }

// Now is the time as the core last got it.
func (c *core) Now() Now { return c.now }

// State is where the partition stands.
func (c *core) State() State { return c.state }

// Single says whether a lock keeps other writers out.
func (c *core) Single() bool { return c.single }

// Next is the offset behind the last committed record.
func (c *core) Next() int64 { return c.next }

// Confirmed is a moment at which the log knew no other owner: when the last acknowledged batch was sent.
func (c *core) Confirmed() time.Duration { return c.confirmed }

// LastFence says why the last ownership or attempt ended; empty: nothing went wrong.
func (c *core) LastFence() string { return c.lastFence }

// Effects are what the core asks for, in order. What is done about one may add others.
func (c *core) Effects() []effect { return c.effects }

// Performed says that all effects are.
func (c *core) Performed() {
	clear(c.effects)
	c.effects = c.effects[:0]
}

// emit asks the loop for something. What comes back of it belongs to the ownership that asked, however late the loop gets to it.
func (c *core) emit(e effect) {
	e.incarnation = c.incarnation
	c.effects = append(c.effects, e)
}

// Submitted takes a command from a caller. call.stored is what the dedup table says about its id.
func (c *core) Submitted(call *Call) {
	switch {
	case c.state == Halted || c.state == Repairing:
		c.refuse(call, errHalted(c.partition, c.halted))
		return
	case !c.assigned || c.releasing:
		c.refuse(call, entities.PartitionMoved(c.partition, cmp.Or(c.withheld, "it is not owned here")))
		return
	}
	if c.state != Active && c.state != Suspect {
		call.came = c.now.Mono
		c.waiting = append(c.waiting, call)
		return
	}
	c.admit(call)
}

// dismiss answers the calls that have waited for the partition to become active for as long as a caller is to wait.
func (c *core) dismiss() {
	n := 0
	for n < len(c.waiting) && c.now.Mono-c.waiting[n].came >= c.limits.MovePatience && !mutation.On(mutation.Patience) {
		n++
	}
	if n == 0 {
		return
	}
	late := c.waiting[:n]
	c.waiting = c.waiting[n:]
	c.refuseAll(late, errNotActive(c.partition, c.state, c.limits.MovePatience, c.lastFence))
}

// admit gives a call its place: with the answer that it had before, behind the same command, or with its entity.
func (c *core) admit(call *Call) {
	call.incarnation = c.incarnation
	if call.named() {
		if c.repeated(call) {
			return
		}
		call.check()
	}
	if call.named() {
		c.ids[call.commandID()] = call
	}
	e := c.entity(call)
	if len(e.queue) >= c.limits.MaxWaitingEntity {
		c.refuse(call, errEntityBusy(e.key, c.limits.MaxWaitingEntity))
		return
	}
	e.queue = append(e.queue, call)
	c.advance(e)
}

// repeated deals with a command that was seen before, under the same id or from the same source.
func (c *core) repeated(call *Call) bool {
	if first, inflight := c.ids[call.commandID()]; inflight {
		if first.hash != call.hash {
			call.check()
			c.refuse(call, errIDReused(call.cmd.ID, call.cmd.Key))
		} else {
			first.caller.Accompanied()
			call.first = first
			first.followers = append(first.followers, call)
		}
		return true
	}
	if call.stored != nil && record.Retracted(call.stored.Answer) {
		call.stored = nil
	}
	if s := call.cmd.Source; s != nil {
		return !mutation.On(mutation.Delivered) && c.delivered(call, s)
	}
	if call.stored == nil || mutation.On(mutation.Repeat) || c.now.Log-call.stored.LogTime > int64(c.limits.DedupWindow) {
		call.stored = nil
		return false
	}
	if call.stored.PayloadHash != call.hash {
		call.check()
		c.refuse(call, errIDReused(call.cmd.ID, call.cmd.Key))
	} else {
		call.next = call.stored.Offset + 1
		c.emit(effect{kind: doAnswer, call: call})
	}
	return true
}

// delivered deals with an effect of another partition that took effect here before. There is no window: its source sends it
// until it has settled it, and what is settled is known.
func (c *core) delivered(call *Call, s *entities.Source) bool {
	switch {
	case call.stored != nil:
		call.next = call.stored.Offset + 1
	case c.doneAtSource(s, call.settled):
		call.outcome = &entities.Outcome{}
		call.next = c.next
	default:
		return false
	}
	c.emit(effect{kind: doAnswer, call: call})
	return true
}

func (c *core) entity(call *Call) *entity {
	e, known := c.entities[call.cmd.Key]
	if !known {
		e = &entity{key: call.cmd.Key, keyBytes: []byte(call.cmd.Key.String()), typ: call.cmd.Type}
		c.entities[e.key] = e
		c.all.add(e)
	} else if e.typ.Service == "" { // it was known by a command that cannot be run
		e.typ = call.cmd.Type
	}
	call.entity = e
	return e
}

// advance lets an entity's next command run, if it may.
func (c *core) advance(e *entity) {
	if e.running != nil || e.opening || e.passivating {
		return
	}
	if e.session == nil && e.uncommitted > 0 {
		return // the store is behind: a new session would begin from the past
	}
	if e.reopen {
		e.reopen, e.opening = false, true
		c.emit(effect{kind: doOpen, entity: e, session: e.ending})
		e.ending = nil
		return
	}
	for len(e.queue) > 0 {
		call := e.queue[0]
		e.queue[0] = nil
		e.queue = e.queue[1:]
		if c.unsettled(call) {
			c.refuse(call, errTimerChanging(e.key, call.cmd.Timer.Name))
			continue
		}
		if e.idle != nil {
			e.idle.remove(e)
		}
		e.running = call
		c.emit(effect{kind: doInvoke, call: call, entity: e, session: e.session})
		return
	}
	e.queue = nil
	switch {
	case e.session != nil && e.uncommitted == 0:
		c.rest(e)
	case e.quiet():
		c.forget(e)
	}
}

// rest puts an entity among the idle ones, as the most recently used.
func (c *core) rest(e *entity) {
	if e.idle != nil {
		e.idle.remove(e)
	}
	e.lastUsed = c.now.Mono
	after := e.typ.PassivateAfter
	if after == 0 {
		after = c.limits.PassivateAfter
	}
	for _, l := range c.idle {
		if l.after == after {
			l.add(e)
			return
		}
	}
	l := &idleList{after: after}
	c.idle = append(c.idle, l)
	l.add(e)
}

func (c *core) forget(e *entity) {
	invariant.Check(c.entities[e.key] == e, "%s is forgotten and was not known", e.key)
	if e.idle != nil {
		e.idle.remove(e)
	}
	c.active -= e.size
	c.all.remove(e)
	delete(c.entities, e.key)
}

// Withdrawn takes back a call whose caller left before the function saw it. The first of those that wait for the same command
// gets its place.
func (c *core) Withdrawn(call *Call) {
	e := call.entity
	switch {
	case call.finished:
		// A turn that cannot be taken goes to the next one.
		if e != nil && e.running == call && !mutation.On(mutation.Promote) {
			c.vacate(call, nil)
		}
		return
	case call.first != nil:
		call.finished = true
		if !mutation.On(mutation.Promote) {
			call.first.followers = without(call.first.followers, call)
		}
		return
	}
	call.finished = true
	c.waiting = without(c.waiting, call)
	c.drop(call)
	successor := c.promote(call)
	if e != nil {
		c.vacate(call, successor)
	}
}

// promote gives the command of a call that will not run to the first of its followers; nil: there is none, or it is too late.
func (c *core) promote(call *Call) *Call {
	followers := call.followers
	call.followers = nil
	if len(followers) == 0 {
		return nil
	}
	if call.incarnation != c.incarnation || (c.state != Active && c.state != Suspect) {
		c.refuseAll(followers, entities.PartitionMoved(c.partition, cmp.Or(c.lastFence, "it is being released")))
		return nil
	}
	successor := followers[0]
	successor.first, successor.entity, successor.followers = nil, call.entity, followers[1:]
	for _, f := range successor.followers {
		f.first = successor
	}
	c.ids[successor.commandID()] = successor
	if successor.checked = true; len(successor.followers) == 0 {
		successor.check()
	}
	return successor
}

// vacate gives the place of a call in its entity's queue, or its turn, to successor; nil: to the one behind it.
func (c *core) vacate(call, successor *Call) {
	e := call.entity
	running := e.running == call
	if running {
		e.running = nil
	}
	if call.incarnation != c.incarnation {
		if running {
			c.leaveSession(e)
		}
		return
	}
	switch {
	case successor == nil:
		e.queue = without(e.queue, call)
	case running:
		e.queue = append([]*Call{successor}, e.queue...)
	default:
		e.queue[slices.Index(e.queue, call)] = successor
	}
	c.advance(e)
}

// leaveSession closes the session of an entity whose ownership ended while a call had its turn: fence left it to that call.
func (c *core) leaveSession(e *entity) {
	if e.session != nil {
		c.emit(effect{kind: doClose, session: e.session})
		e.session = nil
	}
}

func without(calls []*Call, call *Call) []*Call {
	for i := range calls {
		if calls[i] == call {
			return append(calls[:i], calls[i+1:]...)
		}
	}
	return calls
}

// Opening is what came of opening a session.
type Opening struct {
	Session entities.Session
	Loaded  entities.Loaded
}

// Decided takes the function's decision about the running command of an entity. opening is set when the call opened the
// session; err when there is no decision. Durable it is not.
func (c *core) Decided(call *Call, opening *Opening, outcome *entities.Outcome, err *entities.Error) {
	e := call.entity
	if call.incarnation != c.incarnation {
		if opening != nil {
			c.emit(effect{kind: doClose, session: opening.Session})
		}
		c.leaveSession(e)
		c.refuse(call, errFenced(c.partition))
		return
	}
	if opening != nil {
		c.adopt(e, opening)
	}
	e.running = nil
	if err != nil {
		c.lose(e, call, err)
		return
	}
	call.outcome = outcome
	switch {
	case outcome.Restart:
		e.ending, e.reopen = e.session, true
		c.detach(e)
		if call.cmd.Timer == nil && call.cmd.Source == nil {
			c.unwritten(call)
			break
		}
		call.outcome = &entities.Outcome{Reply: outcome.Reply, Failure: outcome.Failure} // all that is left is that it has run
		if err := c.write(e, call); err != nil {
			c.refuse(call, err)
		}
	case outcome.Wrote() || call.cmd.Timer != nil || call.remembers():
		if tooLarge := c.write(e, call); tooLarge != nil {
			// The function's memory is ahead of what is stored.
			c.emit(effect{kind: doClose, session: e.session})
			c.detach(e)
			if !c.giveUp(e, call, tooLarge) {
				c.refuse(call, tooLarge)
			}
		}
	default:
		c.unwritten(call)
	}
	c.advance(e)
}

func (c *core) adopt(e *entity, opening *Opening) {
	e.session = opening.Session
	e.position = materializer.PositionOf(&opening.Loaded)
	c.weigh(e)
}

// entityOverhead is what the core holds of an active entity in memory, roughly.
const entityOverhead = 256

// weigh counts an entity's memory anew.
func (c *core) weigh(e *entity) {
	size := 0
	if e.session != nil {
		size = entityOverhead + e.session.Size()
	}
	c.active += size - e.size
	e.size = size
}

func (c *core) detach(e *entity) {
	e.session = nil
	c.weigh(e)
}

// lose deals with a command without a decision: the session, if there was one, has ended.
func (c *core) lose(e *entity, call *Call, err *entities.Error) {
	if e.session != nil {
		c.emit(effect{kind: doClose, session: e.session})
		c.detach(e)
	}
	queued := err
	if err.Reason == entities.FunctionFailed {
		queued = errTerminated(e.typ.Kind)
	}
	rest := e.queue
	e.queue = nil
	if !c.giveUp(e, call, err) {
		c.refuse(call, err)
	}
	for _, call := range rest {
		c.refuse(call, queued)
	}
	c.advance(e)
}

// Opened takes a session that was opened ahead of the next command.
func (c *core) Opened(e *entity, incarnation uint64, opening *Opening, err *entities.Error) {
	if incarnation != c.incarnation {
		if opening != nil {
			c.emit(effect{kind: doClose, session: opening.Session})
		}
		return
	}
	e.opening = false
	if err == nil {
		c.adopt(e, opening)
	}
	c.advance(e) // after an error the next command opens the session, or tells its caller why not
}

// SessionEnded says that the function ended an idle session.
func (c *core) SessionEnded(call *Call) {
	e := call.entity
	if call.incarnation != c.incarnation {
		c.leaveSession(e)
		c.refuse(call, errFenced(c.partition))
		return
	}
	invariant.Check(e.running == call, "%s: the session of a call ended that is not running", e.key)
	c.emit(effect{kind: doClose, session: e.session})
	c.detach(e)
	e.running = nil
	e.queue = append([]*Call{call}, e.queue...)
	if len(call.followers) == 0 {
		call.check()
	}
	c.advance(e)
}

// Passivated says that an entity's session was closed in order.
func (c *core) Passivated(e *entity, incarnation uint64) {
	if incarnation != c.incarnation {
		return
	}
	e.passivating = false
	c.advance(e)
}

// Ticked looks at the clock: passivation, memory budget, silence of the log, an overdue release, callers who have waited long enough.
func (c *core) Ticked() {
	for _, l := range c.idle {
		for l.first != nil && c.now.Mono-l.first.lastUsed >= l.after {
			c.passivate(l.first)
		}
	}
	for c.active > c.limits.ActiveBytes {
		oldest := c.leastRecent()
		if oldest == nil {
			break
		}
		c.passivate(oldest)
	}
	c.dismiss()
	if c.state == Active {
		c.retryEffects()
		c.fireAgain()
		c.settleNow = true
	}
	if len(c.sent) > 0 && c.now.Mono-c.sent[0].sentAt > c.limits.AckTimeout {
		c.fence("the log did not answer for "+c.limits.AckTimeout.String(), false)
	}
	if c.releasing && c.now.Mono > c.drainBy {
		c.fence("draining took too long", false)
	}
}

// Settling lets the timers go off that are due, for which the next tick may be too late, and says whether all is quiet.
func (c *core) Settling() bool {
	if c.state == Active {
		c.fire()
	}
	return c.Quiet()
}

// Quiet says whether nothing is on its way to the log or to a target. What waits for its time, or for an operator, does not
// count.
func (c *core) Quiet() bool {
	o := &c.outbox
	return len(c.sent)+len(c.full) == 0 && c.open.empty() && len(o.underWay) == 0 && len(o.turns)+len(o.refusals) == 0 &&
		c.timers.firing == 0 && !(c.state == Active && (o.more || c.timers.pending()))
}

func (c *core) leastRecent() *entity {
	var oldest *entity
	for _, l := range c.idle {
		if l.first != nil && (oldest == nil || l.first.lastUsed < oldest.lastUsed) {
			oldest = l.first
		}
	}
	return oldest
}

func (c *core) passivate(e *entity) {
	e.idle.remove(e)
	e.passivating = true
	c.emit(effect{kind: doPassivate, entity: e, session: e.session})
	c.detach(e)
}

// fence ends the ownership. What was sent has an unknown outcome, unless a higher claim stands before it in the log, or the
// log said that it wrote nothing. A command that has no records in it was not applied in any case.
func (c *core) fence(why string, claimed bool) {
	if c.state == Repairing {
		c.repairFailed(errors.New(why))
		return
	}
	for _, b := range c.sent {
		err := entities.OutcomeLost(c.partition, why)
		if claimed || (b.acked && notWritten(b.result.Err)) {
			err = entities.PartitionMoved(c.partition, why)
		}
		for _, call := range b.calls {
			if call.wrote {
				c.refuse(call, err)
			} else {
				c.refuse(call, entities.PartitionMoved(c.partition, why))
			}
		}
	}
	for _, b := range c.full {
		c.refuseAll(b.calls, entities.PartitionMoved(c.partition, why))
	}
	c.refuseAll(c.open.calls, entities.PartitionMoved(c.partition, why))
	c.forgetEffects()
	clear(c.concluding)
	c.timers = newTimers()
	c.sent, c.full, c.open = nil, nil, &batch{}
	for e := c.all.first; e != nil; e = e.next {
		c.refuseAll(e.queue, entities.PartitionMoved(c.partition, why))
		e.queue = nil
		if e.running != nil { // its function is at it; those that wait for the same command need not wait for that, and the loop may end
			c.refuseAll(e.running.followers, entities.PartitionMoved(c.partition, why))
			e.running.followers = nil
		}
		if e.session != nil && e.running == nil {
			c.emit(effect{kind: doClose, session: e.session})
		}
		if e.ending != nil {
			c.emit(effect{kind: doClose, session: e.ending})
		}
	}
	clear(c.entities)
	clear(c.ids)
	c.all, c.idle, c.active = entityList{}, nil, 0
	c.incarnation++
	c.owner = record.Owner{}
	c.lastFence = why
	c.stepDown()
}

func (c *core) refuseAll(calls []*Call, err *entities.Error) {
	for _, call := range calls {
		c.refuse(call, err)
	}
}

// Recheck asks about the calls that wait for the partition to become active once more. Those for which lookup returns false have an answer.
func (c *core) Recheck(lookup func(*Call) bool) {
	c.waiting = slices.DeleteFunc(c.waiting, func(call *Call) bool { return !lookup(call) })
}

// Refuse answers a call that the core has not seen.
func (c *core) Refuse(call *Call, err *entities.Error) { c.refuse(call, err) }

// refuse answers a call, and those that wait for the same command, with an error.
func (c *core) refuse(call *Call, err *entities.Error) {
	if call.finished {
		return
	}
	call.outcome, call.err = nil, err
	if c.mustConfirmError(call) && call.caller.Decided() {
		c.open.calls = append(c.open.calls, call)
		return
	}
	c.finish(call)
}

// mustConfirmError says whether the log has to confirm the ownership before an error may leave: it tells a caller that no attempt under
// the command's id took effect, which a former owner that does not know of the next one must not say.
func (c *core) mustConfirmError(call *Call) bool {
	return !c.single && call.verified() && call.cmd.ID != "" && call.incarnation == c.incarnation && (c.state == Active || c.state == Suspect || c.state == Draining)
}

func (c *core) finish(call *Call) {
	c.release(call)
	c.emit(effect{kind: doAnswer, call: call})
}

// release takes a call and its followers off the books; the followers get the call's answer.
func (c *core) release(call *Call) {
	call.finished = true
	c.drop(call)
	call.shared = call.shared || len(call.followers) > 0
	for _, f := range call.followers {
		f.shared = true
		f.outcome, f.err, f.next, f.finished, f.first = call.outcome, call.err, call.next, true, nil
		f.effects, f.firstEffect, f.progress, f.checked = call.effects, call.firstEffect, call.progress, call.checked
		c.emit(effect{kind: doAnswer, call: f})
	}
	call.followers = nil
}

func (c *core) drop(call *Call) {
	if call.named() && c.ids[call.commandID()] == call {
		delete(c.ids, call.commandID())
	}
}

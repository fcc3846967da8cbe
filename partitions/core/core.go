package core

import (
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
)

// The invariants of an owner. Those of answers are in answer.go, the rules R5 to R10 in claim.go,
// commit.go, fence.go and repair.go; R1 to R4, which every reader of the log keeps, are in
// entities/record.
//
//	I1  While the state is Active and next is x, folding the log below x names this owner, and
//	    is what store and sessions have. (contiguity, readback)
//	I4  The store never has what is not acknowledged: there is no undo. What was decided and is
//	    not committed is in sessions and batches only, and a fence ends both. (durable)
//	I5  At every offset one owner counts, and the events of an entity are numbered 1, 2, 3
//	    without a gap. (reader, ordinal)
//
// In parentheses stand the mutations that take the line out.

// State is where a partition stands on its way to ownership and back.
type State uint8

// The states of the log protocol. A fenced partition is at once CatchingUp again, or in Standby
// when it is not assigned. Passing is an owner that puts barriers where the log has lost something
// (repair.go), Repairing a halted one that an operator repairs. The numbers are shown as a metric:
// new ones come last.
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

// Core decides for the owner of one partition: a pure step function. Inputs are its methods, in the
// order in which a partition meets them; each appends to the effects, which the loop performs in
// order. Not safe for concurrent use.
type Core struct {
	partition int32
	worker    string
	layout    entities.Layout
	limits    Limits
	single    bool
	laneOf    func(*entities.Target) LaneName

	// types are the entity types that this worker serves; they stand in every claim.
	types []string

	state    State
	assigned bool
	now      Now
	// incarnation counts ownerships that ended. What was begun under an earlier one is stale.
	incarnation uint64
	owner       record.Owner
	// next is the offset that the next own record must get; until the claim is read back, one that
	// it must not be below. ordinal is that of the last record decided.
	next     int64
	ordinal  uint64
	attempts int
	halted   error
	// confirmed is a moment at which the log knew no other owner: when the last acknowledged batch
	// was sent.
	confirmed time.Duration
	// floor is the offset below which nothing may be put but barriers; repair is what an operator
	// asked for.
	floor  int64
	repair *Repair
	// goneSince is when the log first showed less than it had acknowledged; 0: it does not.
	goneSince time.Duration
	drainBy   time.Duration
	// followed: while another worker owns the partition, this one keeps its image fresh.
	followed bool
	// releasing: the manager waits for an orderly release. It goes on through a gap that is read
	// meanwhile.
	releasing bool
	// withheld says why the partition was given up although it is assigned; empty: it was not.
	withheld string
	// lastFence says why the last ownership or attempt ended.
	lastFence string

	entities map[entities.Key]*Entity
	all      entityList
	idle     []*idleList
	active   int // bytes of all sessions
	ids      map[commandID]*Call
	// waiting are calls submitted before the partition was active.
	waiting []*Call

	outbox outbox
	timers timers
	// concluding are the forwards, by the offsets of their records, whose answers are on their way
	// to the log.
	concluding map[int64]*conclusion
	// settleNow: what became of effects has waited long enough to be written on its own.
	settleNow bool

	// Batches pass through these in order: open takes what is decided, full holds those to which
	// nothing fits any more and for which there is no room on the way to the log, sent are on their
	// way. What waits is bounded by Limits.MaxWaiting.
	open  *Batch
	full  []*Batch
	sent  []*Batch
	spare []*Batch
	// changes is scratch space.
	changes []materializer.Change

	effects []Asked
}

// Config is what a core is made of.
type Config struct {
	Partition int32
	// Worker and layout stand in every claim.
	Worker string
	Layout entities.Layout
	Limits Limits
	// Single: a lock keeps other writers out, so that answers that wrote nothing need no barrier.
	Single bool
	// LaneOf says which targets of effects hold each other up when one of them fails. Nil: those of
	// one service do.
	LaneOf func(*entities.Target) LaneName
}

// New returns the core of a partition that this worker stands by.
func New(o Config) *Core {
	if o.LaneOf == nil {
		o.LaneOf = func(t *entities.Target) LaneName { return LaneName{Service: t.Service, Partition: -1} }
	}
	return &Core{
		partition: o.Partition, worker: o.Worker, layout: o.Layout, limits: o.Limits, single: o.Single, laneOf: o.LaneOf,
		entities: map[entities.Key]*Entity{}, ids: map[commandID]*Call{}, open: &Batch{},
		outbox: newOutbox(), timers: newTimers(), concluding: map[int64]*conclusion{},
	}
}

// SetNow says what time it is. What follows happens then.
func (c *Core) SetNow(now Now) { c.now = now }

// Now is the time as the core last got it.
func (c *Core) Now() Now { return c.now }

// State is where the partition stands.
func (c *Core) State() State { return c.state }

// Single says whether a lock keeps other writers out.
func (c *Core) Single() bool { return c.single }

// Next is the offset behind the last committed record.
func (c *Core) Next() int64 { return c.next }

// Confirmed is a moment at which the log knew no other owner: when the last acknowledged batch was
// sent.
func (c *Core) Confirmed() time.Duration { return c.confirmed }

// LastFence says why the last ownership or attempt ended; empty: nothing went wrong.
func (c *Core) LastFence() string { return c.lastFence }

// Effects are what the core asks for, in order. What is done about one may add others.
func (c *Core) Effects() []Asked { return c.effects }

// Performed says that all effects are.
func (c *Core) Performed() {
	clear(c.effects)
	c.effects = c.effects[:0]
}

// emit asks the loop for something. What comes back of it belongs to the ownership that asked,
// however late the loop gets to it.
func (c *Core) emit(do Effect) {
	c.effects = append(c.effects, Asked{Incarnation: c.incarnation, Do: do})
}

// Ticked looks at the clock: passivation, memory budget, silence of the log, an overdue release,
// callers who have waited long enough.
func (c *Core) Ticked() {
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
	if len(c.sent) > 0 && c.now.Mono-c.sent[0].SentAt > c.limits.AckTimeout {
		c.fence("the log did not answer for "+c.limits.AckTimeout.String(), false)
	}
	if c.releasing && c.now.Mono > c.drainBy {
		c.fence("draining took too long", false)
	}
}

// Settling lets the timers go off that are due, for which the next tick may be too late, and says
// whether all is quiet.
func (c *Core) Settling() bool {
	if c.state == Active {
		c.fire()
	}
	return c.Quiet()
}

// Quiet says whether nothing is on its way to the log or to a target. What waits for its time, or
// for an operator, does not count.
func (c *Core) Quiet() bool {
	o := &c.outbox
	return len(c.sent)+len(c.full) == 0 && c.open.empty() && len(o.underWay) == 0 && len(o.turns)+len(o.refusals) == 0 &&
		c.timers.firing == 0 && !(c.state == Active && (o.more || c.timers.pending()))
}

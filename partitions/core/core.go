package core

import (
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
)

// The invariants of an owner. Those of answers are in answer.go, the rules R5 to R10 in claim.go,
// commit.go, fence.go and repair.go. R1 to R4, which hold for every reader of the log, are in
// entities/record.
//
//	I1  While the state is Active and next is x, folding the log below x names this owner, and
//	    yields what store and sessions have. (contiguity, readback)
//	I4  The store never has what is not acknowledged: there is no undo. What is decided and
//	    not committed is only in sessions and batches, and a fence ends both. (durable)
//	I5  At every offset one owner counts, and the events of an entity are numbered 1, 2, 3
//	    without a gap. (reader, ordinal)
//
// In parentheses stand the mutations that remove the check.

// State is where a partition stands on its way to ownership and back.
type State uint8

// The states of the log protocol. A fenced partition is at once CatchingUp again, or in Standby if
// it is not assigned. Passing is an owner that writes barriers where the log has lost records
// (repair.go); Repairing is a halted one that an operator repairs. The numbers are shown as a
// metric: new ones come last. Between two inputs no other combination exists than these:
//
//	state       assigned  releasing  owner      batches sent  entities
//	Standby     no        no         none       none          none
//	CatchingUp  yes       no         none       none          none
//	Claiming    yes       no         this one   none          none
//	Active      yes       no         this one   any           any
//	Suspect     either    either     this one   one or more   any
//	Releasing   either    yes        this one   any           any
//	Passing     yes       no         this one   one           none
//	Halted      either    no         none       none          none
//	Repairing   either    no         either     one or none   none
//
// Assigned again while it releases, a partition releases first. The claim of an owner is not among
// the batches sent; that of a repair is.
const (
	Standby State = iota
	CatchingUp
	Claiming
	Active
	Suspect
	Releasing
	Halted
	Passing
	Repairing
)

var stateNames = [...]string{ //nolint:gochecknoglobals // a constant table
	"standby", "catching up", "claiming", "active", "suspect", "releasing", "halted", "passing", "repairing",
}

// String returns the state as shown in status.
func (s State) String() string { return stateNames[s] }

// Now is the time as the core gets it.
type Now struct {
	// Mono counts from an arbitrary moment in this process.
	Mono time.Duration
	// Log is the log time in nanoseconds since the Unix epoch.
	Log int64
}

// Core decides for the owner of one partition. It is a pure step function: its inputs are its
// methods, called in the order in which the inputs arrive. Each appends to the effects, which the
// loop performs in order. Not safe for concurrent use.
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
	// incarnation counts ownerships that ended. Results of an earlier one are ignored.
	incarnation uint64
	owner       record.Owner
	// next is the offset that the next record of this owner must get; until the claim is read back, a
	// lower bound of it. ordinal is that of the last decided record.
	next     int64
	ordinal  uint64
	attempts int
	halted   error
	// confirmed is a moment at which the log knew no other owner: when the last acknowledged batch
	// was sent.
	confirmed time.Duration
	// floor is the offset below which only barriers may be appended; repair is the repair that runs.
	floor  int64
	repair *Repair
	// goneSince is when the log first showed less than it had acknowledged; 0 if it does not.
	goneSince time.Duration
	releaseBy time.Duration
	// followed: while another worker owns the partition, this one keeps its image fresh.
	followed bool
	// releasing: the manager waits for an orderly release. It goes on through a gap that is read in
	// between.
	releasing bool
	// withheld is why the partition was given up although it is assigned; empty if it was not.
	withheld string
	// lastFence is why the last ownership or attempt ended.
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
	// concluding are the forwards, by the offsets of their records, whose answers are on their way to
	// the log.
	concluding map[int64]*conclusion
	// settleNow: the results of effects have waited long enough to be written without a command.
	settleNow bool

	// Batches pass through these in order: open collects what is decided, full holds those that take
	// no more records and wait for a free place on the way to the log, sent are on their way. The
	// callers that may wait in a partition bound what waits.
	open  *Batch
	full  []*Batch
	sent  []*Batch
	spare []*Batch
	// changes is scratch space.
	changes []materializer.Change

	effects []Emitted
}

// Config holds the parameters of a Core.
type Config struct {
	Partition int32
	// Worker and layout stand in every claim.
	Worker string
	Layout entities.Layout
	Limits Limits
	// Single: a lock keeps other writers out, so that answers that wrote nothing need no barrier.
	Single bool
	// LaneOf returns the lane of an effect's target: targets of one lane wait for each other when one
	// of them fails. Nil: the targets of one service share a lane.
	LaneOf func(*entities.Target) LaneName
}

// New returns the core of a partition, in Standby.
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

// SetNow sets the time of the inputs that follow.
func (c *Core) SetNow(now Now) { c.now = now }

// Now returns the time that was set last.
func (c *Core) Now() Now { return c.now }

// State returns the state of the partition.
func (c *Core) State() State { return c.state }

// Single reports whether a lock keeps other writers out.
func (c *Core) Single() bool { return c.single }

// Next returns the offset after the last committed record.
func (c *Core) Next() int64 { return c.next }

// Confirmed returns a moment at which the log knew no other owner: when the last acknowledged batch
// was sent.
func (c *Core) Confirmed() time.Duration { return c.confirmed }

// LastFence returns why the last ownership or attempt ended; empty if nothing went wrong.
func (c *Core) LastFence() string { return c.lastFence }

// Effects returns what the core asks for, in order. Performing one may add others.
func (c *Core) Effects() []Emitted { return c.effects }

// Performed drops all effects: they were performed.
func (c *Core) Performed() {
	clear(c.effects)
	c.effects = c.effects[:0]
}

// emit asks the loop for an effect. Its result belongs to the ownership that asked, however late it
// comes.
func (c *Core) emit(do Effect) {
	c.effects = append(c.effects, Emitted{Incarnation: c.incarnation, Do: do})
}

// Ticked handles the passing of time: passivation, the memory budget, a silent log, an overdue
// release, callers that have waited long enough.
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
	if c.releasing && c.now.Mono > c.releaseBy {
		c.fence("the release took too long", false)
	}
}

// FireDue fires the timers that are due, for which the next tick may be too late, and reports
// whether all is quiet.
func (c *Core) FireDue() (quiet bool) {
	if c.state == Active {
		c.fire()
	}
	return c.Quiet()
}

// Quiet reports whether nothing is on its way to the log or to a target. What waits for its time,
// or for an operator, does not count.
func (c *Core) Quiet() bool {
	o := &c.outbox
	return len(c.sent)+len(c.full) == 0 && c.open.empty() && len(o.underWay) == 0 && len(o.turns)+len(o.refusals) == 0 &&
		c.timers.firing == 0 && !(c.state == Active && (o.more || c.timers.pending()))
}

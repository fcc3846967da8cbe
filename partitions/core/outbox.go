package core

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/backoff"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/materializer"
	recordv1 "github.com/millrace-io/millrace/proto/gen/millrace/record/v1"
)

// Effects on other entities. Each is a record. It is sent after it is committed, again and again
// until its target has answered, and settled by another record.
//
//	E1  An effect is sent only after its record is committed. (durable)
//	E2  It is done, for its targets too, only when a committed record says so: settle.go.
//	    (settle)
//	E3  An effect without an answer holds a place of its lane only. (slow)

const (
	// OutboxWindow is the maximum number of open effects of a partition in memory; the store has all
	// of them.
	OutboxWindow = 4096
	// maxSending is how many effects of a partition are under way at a time, maxPerLane those of one
	// lane. One whose target has not answered for slowAfter is slow: it no longer counts towards
	// maxSending. From maxSlow on, lanes with slow ones send no more, and others one at a time until
	// it is answered.
	maxSending = 64
	maxPerLane = 48
	maxSlow    = 960
	slowAfter  = time.Second
	// maxWaiting is how many effects stay in memory whose target fails.
	maxWaiting = 1024
	// settleBatch is how many answers of targets are collected before a record is written ahead of the
	// next tick.
	settleBatch = 512
	// MaxFailures is how often the target's function may fail on an effect before it is parked.
	MaxFailures = 10
	// maxLowest is how many offsets of open effects are in memory, to compute the progress for
	// targets.
	maxLowest = 1024
	// pageRows bounds one read of the outbox; sweepRows bounds the reads for effects that have left
	// memory: 4 096 a second.
	pageRows  = 4096
	sweepRows = 410
	// PageBytes bounds one read of the outbox, in bytes of payload.
	PageBytes = 8 << 20
	// everything is after all offsets.
	everything = math.MaxInt64
)

// resend is the pause between attempts to deliver an effect, or to run a timer's command.
var resend = backoff.Policy{First: 100 * time.Millisecond, Max: 30 * time.Second, Jitter: 0.5} //nolint:gochecknoglobals // a constant

// Delivery is an effect in memory.
type Delivery struct {
	Offset int64
	Effect entities.SideEffect
	// from is the entity that asked for it; onRefused is its method for a refusal, as service/method,
	// empty for none.
	from      entities.Key
	onRefused string
	// forward: its answer is that of the command that asked. asker is that command, if it has a name.
	forward bool
	asker   *record.Asker
	state   deliveryState
	// lane is where it is sent; nil while its caller sends it.
	lane *lane
	// probe: it was sent to find out whether its lane's target works again.
	probe bool
	// Progress is the progress of the partition's effects that this attempt carries to the target.
	Progress entities.Progress
	// attempts were made; failures of them were failures of the target's function.
	attempts, failures int
	// due is when a waiting effect is tried again.
	due time.Duration
	// While it is under way: sentAt is when it was sent last, slow that this was long ago, index its
	// place in underWay.
	sentAt time.Duration
	slow   bool
	index  int
}

type deliveryState uint8

const (
	// deliveryReady: to be sent as soon as its lane has room.
	deliveryReady deliveryState = iota
	// deliveryHeld: the caller of the command that asked for it sends it, and waits for the answer.
	deliveryHeld
	// deliverySending: the target has not answered yet.
	deliverySending
	// deliveryWaiting: the target did not take it now, and gets it again later.
	deliveryWaiting
	// deliveryParked: it waits for an operator, and leaves memory when a committed record says so.
	deliveryParked
	// deliveryAnswered: it is done, and no committed record says so yet.
	deliveryAnswered
)

// outbox holds open effects of a partition.
type outbox struct {
	byOffset map[int64]*Delivery
	// lanes are those with members; turns those of them that may send, in order; closed those that
	// failed.
	lanes  map[LaneName]*lane
	turns  []*lane
	closed []*lane
	// later are the effects that wait, each for its own time.
	later []*Delivery
	// underWay are those whose targets have not answered, in no order that matters; slow is how many
	// of them are slow.
	underWay []*Delivery
	slow     int
	// stuck counts the ready effects in blocked lanes.
	stuck int
	// more: the store has effects from offset frontier on that are not in memory. loading: they are
	// being read, and effects that are committed in between are read with them.
	more, loading bool
	frontier      int64
	// left: effects before the frontier have left memory. The search for them goes on at offset swept.
	// taken: some were found for which there was room, skipped: others. idle: there was room for none,
	// and nothing has changed since.
	left, taken, skipped, idle bool
	swept                      int64
	// lowest are the offsets of all open effects below bound, in order. reading: those from bound on
	// are being read.
	lowest  []int64
	bound   int64
	reading bool
	// exceptions are those that targets got last.
	exceptions []int64
	// parked counts the effects in the store that wait for an operator.
	parked int
	// results collects what the next settled record states.
	results *recordv1.Settled
	// resolved is what operators asked for, resolving the offsets concerned, until they are committed.
	resolved  []*Resolution
	resolving map[int64]struct{}
	// refusals are those without a record yet; kept are the offsets of refused records that the store
	// has, oldest first.
	refusals []refusal
	kept     []int64
	// known is, by source partition, which effects are done.
	known map[source]entities.Progress
}

func newOutbox() outbox {
	return outbox{
		byOffset: map[int64]*Delivery{}, lanes: map[LaneName]*lane{}, results: &recordv1.Settled{}, more: true,
		resolving: map[int64]struct{}{}, known: map[source]entities.Progress{},
	}
}

// keep takes a committed effect into the outbox.
func (c *Core) keep(d *Delivery) {
	o := &c.outbox
	o.opened(d.Offset)
	switch {
	case o.more: // it is read with the others
		o.frontier = min(o.frontier, d.Offset)
	case len(o.byOffset) >= OutboxWindow:
		o.more, o.frontier = true, d.Offset
	default:
		c.take(d)
	}
}

// Holds reports whether the effect of an offset is in memory.
func (c *Core) Holds(offset int64) bool { return c.outbox.byOffset[offset] != nil }

// take takes an effect into memory.
func (c *Core) take(d *Delivery) {
	o := &c.outbox
	if _, known := o.byOffset[d.Offset]; known || c.concluding[d.Offset] != nil {
		return
	}
	o.byOffset[d.Offset] = d
	if d.state == deliveryReady {
		c.enqueue(d)
	}
}

// pump sends what may be sent, one lane after the other.
func (c *Core) pump() {
	o := &c.outbox
	for len(o.turns) > 0 && len(o.underWay)-o.slow < maxSending {
		l := o.turns[0]
		o.turns[0] = nil
		o.turns = o.turns[1:]
		l.queued = false
		if !c.maySend(l) {
			continue
		}
		d := l.ready[0]
		l.ready[0] = nil
		l.ready = l.ready[1:]
		if l.blocked {
			o.stuck--
		}
		d.probe = l.failed > 0
		d.state = deliverySending
		d.attempts++
		o.depart(d, c.now.Mono)
		d.Progress = c.progress()
		c.emit(Send{d})
		c.turn(l)
	}
}

// depart counts an effect as under way.
func (o *outbox) depart(d *Delivery, now time.Duration) {
	d.sentAt, d.index = now, len(o.underWay)
	o.underWay = append(o.underWay, d)
	d.lane.sending++
	o.block(d.lane)
}

// arrive counts it as no longer under way.
func (o *outbox) arrive(d *Delivery) {
	last := len(o.underWay) - 1
	moved := o.underWay[last]
	o.underWay[d.index], moved.index = moved, d.index
	o.underWay[last] = nil
	o.underWay = o.underWay[:last]
	l := d.lane
	l.sending--
	l.answered = true
	if d.slow {
		d.slow = false
		o.slow--
		l.slow--
	}
	o.block(l)
}

// noteSlow frees the places of effects whose targets do not answer, for other targets.
func (c *Core) noteSlow() {
	o := &c.outbox
	for _, d := range o.underWay {
		if l := d.lane; !d.slow && c.now.Mono-d.sentAt >= slowAfter && !mutation.On(mutation.Slow) {
			d.slow = true
			o.slow++
			l.slow++
			if o.block(l); l.blocked {
				c.evict(l)
			}
		}
	}
}

// refill asks the store for effects when there is room, and for the offsets of open ones.
func (c *Core) refill() {
	o := &c.outbox
	if o.more && !o.loading && len(o.byOffset) < OutboxWindow/2 {
		c.loadOutbox()
	}
	if o.bound != everything && !o.reading && len(o.lowest) <= 2*entities.MaxOpen {
		c.loadOpen()
	}
}

// loadOutbox asks for the open effects from the frontier on.
func (c *Core) loadOutbox() {
	c.outbox.loading = true
	c.emit(LoadOutbox{From: c.outbox.frontier, Limit: pageRows})
}

// OutboxLoaded takes open effects from the store, in order, that are not parked. next is the offset
// after the last one that was examined; more reports whether there are others from there on.
func (c *Core) OutboxLoaded(effects []*Delivery, next int64, more bool) {
	o := &c.outbox
	o.more, o.loading, o.frontier = more, false, next
	for _, d := range effects {
		c.take(d)
	}
	c.pump()
}

// ParkedCounted sets how many effects are parked, at the beginning of an ownership.
func (c *Core) ParkedCounted(n int) { c.outbox.parked = n }

// sweep looks for effects that have left memory, a few at a time.
func (c *Core) sweep() {
	o := &c.outbox
	if o.stuck+len(o.later) < maxWaiting/2 {
		o.idle = false
	}
	if o.left && !o.idle && !o.loading && len(o.byOffset) < OutboxWindow {
		o.loading = true
		c.emit(SweepOutbox{From: o.swept, Limit: sweepRows})
	}
}

// OutboxSwept takes effects from the store that lie before the frontier, as OutboxLoaded does.
func (c *Core) OutboxSwept(effects []*Delivery, next int64, more bool) {
	o := &c.outbox
	o.loading = false
	for _, d := range effects {
		if o.more && d.Offset >= o.frontier {
			more = false
			break
		}
		c.admitSwept(d)
	}
	o.swept = next
	if !more || (o.more && next >= o.frontier) {
		o.left, o.idle = o.skipped, o.skipped && !o.taken
		o.taken, o.skipped, o.swept = false, false, 0
	}
	c.pump()
}

// admitSwept takes an effect into memory again, if there is room.
func (c *Core) admitSwept(d *Delivery) {
	o := &c.outbox
	if _, known := o.byOffset[d.Offset]; known {
		return
	}
	l := o.lanes[c.laneOf(&d.Effect.Target)]
	if len(o.byOffset) >= OutboxWindow || (l != nil && l.blocked && o.stuck+len(o.later) >= maxWaiting) {
		o.skipped = true
		return
	}
	o.taken = true
	c.take(d)
}

// Delivered takes the answer of an effect's target: a reply if it took effect, else err. The answer
// holds under the next owner as well.
func (c *Core) Delivered(offset int64, reply *entities.Reply, err *entities.Error) {
	o := &c.outbox
	d := o.byOffset[offset]
	if d == nil || d.state == deliveryParked {
		return
	}
	held := d.state == deliveryHeld
	if !c.attempted(d) {
		return
	}
	refused := err != nil && err.Reason == entities.FunctionRefused
	switch {
	case err.Definite() && d.asker != nil:
		c.reached(d.lane)
		d.state = deliveryAnswered
		c.conclude(d.Offset, d.asker, &entities.Outcome{Reply: reply, Failure: err.ForForwarder(d.asker.Wrote)})
		if refused && !held && err.Outcome == entities.Refused {
			c.refused(d, err, held)
		}
	case refused && err.Outcome != entities.Refused && !d.forward && !d.Effect.IgnoreRefusal:
		// It took effect in part: the entity must not undo it, and a new effect would do that part twice.
		// The target recognizes this one, however often an operator sends it.
		c.reached(d.lane)
		c.park(d, err)
	case refused:
		c.reached(d.lane)
		c.refused(d, err, held)
	case err.Definite():
		c.reached(d.lane)
		d.state = deliveryAnswered
		o.results.Done = append(o.results.Done, record.Unsigned(offset))
		if mutation.On(mutation.Settle) {
			c.settled(settles{done: []uint64{record.Unsigned(offset)}})
		}
	case Hopeless(err) || failedOften(d, err):
		c.reached(d.lane)
		c.park(d, err)
	case d.lane == nil || ownFault(err):
		c.reached(d.lane)
		c.wait(d)
	default:
		c.unreached(d)
		c.enqueue(d)
	}
	c.pump()
}

// attempted counts an attempt to deliver an effect as ended, and reports whether the effect is
// still open.
func (c *Core) attempted(d *Delivery) bool {
	o := &c.outbox
	switch d.state {
	case deliverySending:
		o.arrive(d)
	case deliveryWaiting:
		o.later = slices.DeleteFunc(o.later, func(other *Delivery) bool { return other == d })
	case deliveryReady:
		o.unqueue(d)
		d.attempts++
	case deliveryHeld:
		d.attempts++
	case deliveryParked, deliveryAnswered:
		return false
	}
	return true
}

// wait has an effect tried again after a pause. If too many wait, it leaves memory.
func (c *Core) wait(d *Delivery) {
	o := &c.outbox
	if o.stuck+len(o.later) >= maxWaiting {
		o.left, o.idle = true, false
		o.remove(d)
		return
	}
	d.state, d.due = deliveryWaiting, c.now.Mono+resend.PauseBy(d.attempts, spread(d.Offset))
	o.later = append(o.later, d)
}

// spread makes a pseudo-random number from an offset.
func spread(offset int64) uint64 { return uint64(offset) * 0x9e3779b97f4a7c15 } //nolint:gosec // it may wrap

func failedOften(d *Delivery, err *entities.Error) bool {
	if err.Reason == entities.FunctionFailed {
		d.failures++
	}
	return d.failures >= MaxFailures
}

// Hopeless reports whether another attempt would end as this one did.
func Hopeless(err *entities.Error) bool {
	switch err.Reason {
	case entities.UnknownMethod, entities.NotSupported, entities.InvalidCommand, entities.TooLarge, entities.IDReused:
		return true
	default:
		return false
	}
}

func (c *Core) park(d *Delivery, err *entities.Error) {
	d.state = deliveryParked
	const maxText = 1024
	text := strings.ToValidUTF8(err.Message[:min(len(err.Message), maxText)], "\uFFFD")
	c.outbox.results.Parked = append(c.outbox.results.Parked, &recordv1.Parked{
		Offset: record.Unsigned(d.Offset), Error: text, Attempts: uint32(d.attempts), //nolint:gosec // small
	})
}

// Unheld reports that no caller waits for the answer of an effect any more, so that it is sent like
// the others.
func (c *Core) Unheld(offset int64) {
	d := c.outbox.byOffset[offset]
	if d == nil || d.state != deliveryHeld {
		return
	}
	c.enqueue(d)
	c.pump()
}

// retryEffects makes the effects ready whose pause is over, and lets closed lanes try.
func (c *Core) retryEffects() {
	o := &c.outbox
	c.noteSlow()
	later := o.later
	o.later = o.later[:0]
	for _, d := range later {
		if d.due <= c.now.Mono {
			c.enqueue(d)
		} else {
			o.later = append(o.later, d)
		}
	}
	clear(later[len(o.later):])
	for _, l := range o.closed {
		c.turn(l)
	}
	c.pump()
	c.refill()
	c.sweep()
}

// DeliveryOf makes an outbox entry from a row of the store.
func DeliveryOf(e materializer.Effect) (*Delivery, error) {
	r, err := record.DecodeEffect(e.Target, e.Payload)
	if err != nil {
		return nil, err
	}
	d := &Delivery{Offset: e.Offset, Effect: r.Effect, onRefused: r.OnRefused, forward: r.Forward, asker: r.Asker}
	d.from.Type, d.from.ID, _ = strings.Cut(e.From, "/")
	if d.asker != nil {
		d.asker.Entity = []byte(e.From)
	}
	return d, nil
}

// DeliveryAgain makes an outbox entry from a kept refusal, whose effect is sent once more.
func DeliveryAgain(r *materializer.Refusal) (*Delivery, error) {
	d, err := DeliveryOf(materializer.Effect{From: r.From, Target: r.Target, Payload: r.Payload})
	if err != nil {
		return nil, err
	}
	d.Effect.Synchronous, d.forward = false, false
	return d, nil
}

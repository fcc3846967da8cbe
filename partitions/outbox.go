package partitions

import (
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/backoff"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/materializer"
	recordv1 "github.com/millrace-io/millrace/proto/gen/millrace/record/v1"
)

// This file is the part of the core that sees to effects: each is a record, sent after it is committed, again and again
// until its target has answered, and settled by another record. Pure, like core.go.

const (
	// outboxWindow is how many open effects of a partition are in memory at most; the store has all of them.
	outboxWindow = 4096
	// maxSending is how many effects of a partition are under way at a time, maxPerLane those of one lane.
	maxSending = 64
	maxPerLane = 48
	// maxWaiting is how many effects stay in memory whose target fails.
	maxWaiting = 1024
	// settleBatch is how many answers of targets are waited for before a record says so ahead of the next tick.
	settleBatch = 512
	// maxFailures is how often the target's function may fail on an effect before it is parked.
	maxFailures = 10
	// maxLowest is how many offsets of open effects are in memory to tell targets of the progress.
	maxLowest = 1024
	// pageRows and pageBytes bound one read of the outbox, sweepRows the reads for what has left memory: 4 096 a second.
	pageRows  = 4096
	pageBytes = 8 << 20
	sweepRows = 410
	// everything is behind all offsets.
	everything = math.MaxInt64
)

// resend is the pause between attempts to deliver an effect, or to run a timer's command.
var resend = backoff.Policy{First: 100 * time.Millisecond, Max: 30 * time.Second, Jitter: 0.5} //nolint:gochecknoglobals // a constant

// delivery is an effect in memory.
type delivery struct {
	offset int64
	effect entities.SideEffect
	// from is the entity that asked for it; onRefused is its method that learns of a refusal, as service/method, empty for none.
	from      entities.Key
	onRefused string
	// forward: its answer is that of the command that asked. asker is that command, if it is known by a name.
	forward bool
	asker   *asker
	state   deliveryState
	// lane is where it is sent; nil as long as its caller sends it.
	lane *lane
	// probe: it was sent to see whether its lane's target works again.
	probe bool
	// attempts were made, failures of them were the function's own fault.
	attempts, failures int
	// due is when a waiting one is tried again.
	due time.Duration
}

type deliveryState uint8

const (
	// deliveryReady: to be sent as soon as its lane has room.
	deliveryReady deliveryState = iota
	// deliveryHeld: the caller of the command that asked for it sends it, and waits for the answer.
	deliveryHeld
	// deliverySending: the target's answer is awaited.
	deliverySending
	// deliveryWaiting: the target did not take this one now, and gets it again later.
	deliveryWaiting
	// deliveryParked: it waits for an operator, and leaves memory when a committed record says so.
	deliveryParked
	// deliveryAnswered: it is done, and no committed record says so yet.
	deliveryAnswered
)

// laneName is a target as far as effects hold each other up: a partition of a service, or an action.
type laneName struct {
	service string
	// partition is that of the journal; -1 for actions, and for targets that are not known.
	partition int32
}

// lane has the effects in memory for one target. It is closed after a failure: then one effect at a
// time is sent, after a pause, until the target has answered.
type lane struct {
	name  laneName
	ready []*delivery
	// sending are under way; members are all in memory that have this lane.
	sending, members int
	// failed counts the failures in a row; 0: the lane is open. A closed one sends again when due.
	failed int
	due    time.Duration
	// queued: it is among the turns.
	queued bool
}

// outbox holds open effects of a partition.
type outbox struct {
	byOffset map[int64]*delivery
	// lanes are those with members; turns those of them that may send, in the order in which they do, and closed those that failed.
	lanes  map[laneName]*lane
	turns  []*lane
	closed []*lane
	// later are those that wait, each for its own time.
	later   []*delivery
	sending int
	// stuck counts those in closed lanes that are ready.
	stuck int
	// more: the store has effects from offset frontier on that are not in memory. loading: they are being read; what is committed
	// meanwhile is read with them.
	more, loading bool
	frontier      int64
	// left: effects before the frontier have left memory. They are looked for again from offset swept on. taken: some were found for
	// which there was room, skipped: others. idle: there was room for none, and nothing has changed since.
	left, taken, skipped, idle bool
	swept                      int64
	// lowest are the offsets of all open effects below bound, in order. reading: those behind bound are being read.
	lowest  []int64
	bound   int64
	reading bool
	// exceptions is what targets were last told.
	exceptions []int64
	// parked counts the effects in the store that wait for an operator.
	parked int
	// said is what the next settled record says.
	said *recordv1.Settled
	// resolved is what operators asked for, resolving the offsets that it is about, until they are committed.
	resolved  []*resolution
	resolving map[int64]struct{}
	// refusals are what no record says yet; kept are the offsets of refused records that the store has, oldest first.
	refusals []refusal
	kept     []int64
	// known is, by source partition, which effects are done.
	known map[source]entities.Progress
}

type source struct{ generation, partition uint16 }

// resolution is an operator's word about parked effects.
type resolution struct {
	// offset is the effect; with a filter, where to begin.
	offset int64
	filter *ParkedFilter
	drop   bool
	// refusal: it is about a refusal that is kept. again is its effect, to be sent once more.
	refusal bool
	again   *delivery
	// effects are those that it is about; next is where to go on, if there are more.
	effects []*delivery
	next    int64
	more    bool
	seen    int
	err     error
	// done is called when the log has it, or will not have it.
	done func(ok bool)
}

func newOutbox() outbox {
	return outbox{
		byOffset: map[int64]*delivery{}, lanes: map[laneName]*lane{}, said: &recordv1.Settled{}, more: true,
		resolving: map[int64]struct{}{}, known: map[source]entities.Progress{},
	}
}

// progress is what targets are told: which effects of the partition are done. Parked ones, and those
// for targets that fail, are exceptions, so that they do not hold it up.
func (c *core) progress() entities.Progress {
	o := &c.outbox
	p := entities.Progress{Through: o.bound}
	if o.bound == everything {
		p.Through = c.next
	}
	open := 0
	for ; open < len(o.lowest); open++ {
		if open == entities.MaxOpen || !o.delayed(o.lowest[open]) {
			p.Through = o.lowest[open]
			break
		}
	}
	if mutation.On(mutation.Exceptions) {
		return p
	}
	if open > 0 {
		if !slices.Equal(o.exceptions, o.lowest[:open]) {
			o.exceptions = slices.Clone(o.lowest[:open])
		}
		p.Open = o.exceptions
	}
	return p
}

// delayed says whether an open effect may stay open for long.
func (o *outbox) delayed(offset int64) bool {
	d := o.byOffset[offset]
	if d == nil {
		return true
	}
	return d.state == deliveryWaiting || d.state == deliveryParked || (d.lane != nil && d.lane.failed > 0 && d.state != deliveryAnswered)
}

// keep takes a committed effect into the outbox.
func (c *core) keep(d *delivery) {
	o := &c.outbox
	o.opened(d.offset)
	switch {
	case o.more: // it is read with the others
		o.frontier = min(o.frontier, d.offset)
	case len(o.byOffset) >= outboxWindow:
		o.more, o.frontier = true, d.offset
	default:
		c.take(d)
	}
}

// opened notes the offset of an effect that is open from now on. Those of one batch come in any order.
func (o *outbox) opened(offset int64) {
	n := len(o.lowest)
	switch {
	case offset >= o.bound: // it is read with the others
	case n > 0 && o.lowest[n-1] > offset:
		at, _ := slices.BinarySearch(o.lowest, offset)
		o.lowest = slices.Insert(o.lowest, at, offset)
	case n >= maxLowest:
		o.bound = offset
	default:
		o.lowest = append(o.lowest, offset)
	}
}

// take takes an effect into memory.
func (c *core) take(d *delivery) {
	o := &c.outbox
	if _, known := o.byOffset[d.offset]; known {
		return
	}
	o.byOffset[d.offset] = d
	if d.state == deliveryReady {
		c.enqueue(d)
	}
}

// enqueue puts an effect into its lane. Where that is closed and enough effects wait, it leaves memory.
func (c *core) enqueue(d *delivery) {
	o := &c.outbox
	if d.lane == nil {
		name := c.laneOf(&d.effect.Target)
		l := o.lanes[name]
		if l == nil {
			l = &lane{name: name}
			o.lanes[name] = l
		}
		d.lane = l
		l.members++
	}
	l := d.lane
	d.state = deliveryReady
	l.ready = append(l.ready, d)
	if l.failed > 0 {
		o.stuck++
		c.evict(l)
	}
	c.turn(l)
}

// evict takes effects of a closed lane out of memory while too many wait. One stays, to be sent as a probe.
func (c *core) evict(l *lane) {
	o := &c.outbox
	for o.stuck+len(o.later) > maxWaiting && len(l.ready) > 1 {
		d := l.ready[len(l.ready)-1]
		l.ready[len(l.ready)-1] = nil
		l.ready = l.ready[:len(l.ready)-1]
		o.stuck--
		o.left = true
		o.remove(d)
	}
}

// remove takes an effect out of memory.
func (o *outbox) remove(d *delivery) {
	delete(o.byOffset, d.offset)
	l := d.lane
	if l == nil {
		return
	}
	if l.members--; l.members == 0 {
		if l.failed > 0 {
			o.closed = slices.DeleteFunc(o.closed, func(other *lane) bool { return other == l })
		}
		delete(o.lanes, l.name)
	}
}

// turn gives a lane its turn to send, if it may.
func (c *core) turn(l *lane) {
	if !l.queued && c.maySend(l) {
		l.queued = true
		c.outbox.turns = append(c.outbox.turns, l)
	}
}

func (c *core) maySend(l *lane) bool {
	switch {
	case len(l.ready) == 0:
		return false
	case mutation.On(mutation.Lane):
		return true
	case l.failed > 0:
		return l.sending == 0 && l.due <= c.now.Mono
	default:
		return l.sending < maxPerLane
	}
}

// pump sends what may be sent, a lane after the other.
func (c *core) pump() {
	o := &c.outbox
	for len(o.turns) > 0 && o.sending < maxSending {
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
		if d.probe = l.failed > 0; d.probe {
			o.stuck--
		}
		d.state = deliverySending
		d.attempts++
		l.sending++
		o.sending++
		c.emit(effect{kind: doSend, delivery: d, progress: c.progress()})
		c.turn(l)
	}
}

// refill asks the store for effects when there is room, and for the offsets of open ones.
func (c *core) refill() {
	o := &c.outbox
	if o.more && !o.loading && len(o.byOffset) < outboxWindow/2 {
		c.loadOutbox()
	}
	if o.bound != everything && !o.reading && len(o.lowest) <= 2*entities.MaxOpen {
		c.loadOpen()
	}
}

// loadOutbox asks for the open effects from the frontier on.
func (c *core) loadOutbox() {
	c.outbox.loading = true
	c.emit(effect{kind: doLoadOutbox, offset: c.outbox.frontier, attempt: pageRows})
}

// loadOpen asks for the offsets of open effects behind those that are known.
func (c *core) loadOpen() {
	c.outbox.reading = true
	c.emit(effect{kind: doLoadOpen, offset: c.outbox.bound, attempt: maxLowest})
}

// OutboxLoaded takes open effects from the store, in order, that are not parked; next is the offset
// behind the last one that was looked at, more says that there are others behind it.
func (c *core) OutboxLoaded(effects []*delivery, next int64, more bool) {
	o := &c.outbox
	o.more, o.loading, o.frontier = more, false, next
	for _, d := range effects {
		c.take(d)
	}
	c.pump()
}

// OpenLoaded takes the offsets of open effects from the store, in order, parked ones included.
func (c *core) OpenLoaded(open []int64, more bool) {
	o := &c.outbox
	o.reading = false
	o.lowest = append(o.lowest, open...)
	o.bound = everything
	if more {
		o.bound = open[len(open)-1] + 1
	}
}

// ParkedCounted says how many effects are parked, at the beginning of an ownership.
func (c *core) ParkedCounted(n int) { c.outbox.parked = n }

// sweep looks for effects that have left memory, a few at a time.
func (c *core) sweep() {
	o := &c.outbox
	if o.stuck+len(o.later) < maxWaiting/2 {
		o.idle = false
	}
	if o.left && !o.idle && !o.loading && len(o.byOffset) < outboxWindow {
		o.loading = true
		c.emit(effect{kind: doSweepOutbox, offset: o.swept, attempt: sweepRows})
	}
}

// OutboxSwept takes what the store has of effects before the frontier, as OutboxLoaded does.
func (c *core) OutboxSwept(effects []*delivery, next int64, more bool) {
	o := &c.outbox
	o.loading = false
	for _, d := range effects {
		if o.more && d.offset >= o.frontier {
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

// admitSwept takes an effect into memory again, if there is room for it.
func (c *core) admitSwept(d *delivery) {
	o := &c.outbox
	if _, known := o.byOffset[d.offset]; known {
		return
	}
	l := o.lanes[c.laneOf(&d.effect.Target)]
	if len(o.byOffset) >= outboxWindow || (l != nil && l.failed > 0 && o.stuck+len(o.later) >= maxWaiting) {
		o.skipped = true
		return
	}
	o.taken = true
	c.take(d)
}

// Delivered takes the answer of an effect's target: a reply when it took effect, else err. What a target said of a record holds
// whoever owns the partition by now.
func (c *core) Delivered(offset int64, reply *entities.Reply, err *entities.Error) {
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
	case definite(err) && d.asker != nil:
		c.reached(d.lane)
		d.state = deliveryAnswered
		c.conclude(d.offset, d.asker, &entities.Outcome{Reply: reply, Failure: err})
		if refused && !held {
			c.refused(d, err, held)
		}
	case refused:
		c.reached(d.lane)
		c.refused(d, err, held)
	case definite(err):
		c.reached(d.lane)
		d.state = deliveryAnswered
		o.said.Done = append(o.said.Done, uint64(offset)) //nolint:gosec // offsets are positive
		if mutation.On(mutation.Settle) {
			c.settled(settles{done: []uint64{uint64(offset)}}) //nolint:gosec // offsets are positive
		}
	case hopeless(err) || failedOften(d, err):
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

// attempted counts an attempt to deliver an effect as ended, and says whether the effect is still open.
func (c *core) attempted(d *delivery) bool {
	o := &c.outbox
	switch d.state {
	case deliverySending:
		o.sending--
		d.lane.sending--
	case deliveryWaiting:
		o.later = slices.DeleteFunc(o.later, func(other *delivery) bool { return other == d })
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

// definite says whether a target has answered for good: it took effect, or its function refused. Also where it took effect and its
// answer is too large to get here.
func definite(err *entities.Error) bool {
	return err == nil || err.Reason == entities.FunctionRefused || (err.Reason == entities.TooLarge && err.Outcome == entities.Unknown)
}

// unqueue takes an effect out of the queue of its lane.
func (o *outbox) unqueue(d *delivery) {
	l := d.lane
	l.ready = slices.DeleteFunc(l.ready, func(other *delivery) bool { return other == d })
	if l.failed > 0 {
		o.stuck--
	}
}

// wait has an effect tried again after a pause of its own. Where too many wait, it leaves memory.
func (c *core) wait(d *delivery) {
	o := &c.outbox
	if o.stuck+len(o.later) >= maxWaiting {
		o.left, o.idle = true, false
		o.remove(d)
		return
	}
	d.state, d.due = deliveryWaiting, c.now.Mono+resend.PauseBy(d.attempts, spread(d.offset))
	o.later = append(o.later, d)
}

// reached opens a lane whose target has answered.
func (c *core) reached(l *lane) {
	if l == nil {
		return
	}
	if l.failed > 0 {
		o := &c.outbox
		l.failed, o.idle = 0, false
		o.stuck -= len(l.ready)
		o.closed = slices.DeleteFunc(o.closed, func(other *lane) bool { return other == l })
	}
	c.turn(l)
}

// unreached closes the lane of an effect whose target did not answer. What was sent with it and fails
// as well is the same failure.
func (c *core) unreached(d *delivery) {
	o, l := &c.outbox, d.lane
	if l.failed > 0 && !d.probe {
		return
	}
	if l.failed == 0 {
		o.closed = append(o.closed, l)
		o.stuck += len(l.ready)
		c.evict(l)
	}
	l.failed++
	l.due = c.now.Mono + resend.PauseBy(l.failed, spread(d.offset))
}

// ownFault says whether a failure is about one effect, and says nothing about others for its target.
func ownFault(err *entities.Error) bool {
	return err.Reason == entities.FunctionFailed || err.Reason == entities.Overloaded
}

// spread makes something like a random number of an offset.
func spread(offset int64) uint64 { return uint64(offset) * 0x9e3779b97f4a7c15 } //nolint:gosec // it may wrap

func failedOften(d *delivery, err *entities.Error) bool {
	if err.Reason == entities.FunctionFailed {
		d.failures++
	}
	return d.failures >= maxFailures
}

// hopeless says whether another attempt would end as this one did.
func hopeless(err *entities.Error) bool {
	switch err.Reason {
	case entities.UnknownMethod, entities.NotSupported, entities.InvalidCommand, entities.TooLarge, entities.IDReused:
		return true
	default:
		return false
	}
}

func (c *core) park(d *delivery, err *entities.Error) {
	d.state = deliveryParked
	const maxText = 1024
	text := strings.ToValidUTF8(err.Message[:min(len(err.Message), maxText)], "\uFFFD")
	c.outbox.said.Parked = append(c.outbox.said.Parked, &recordv1.Parked{
		Offset: uint64(d.offset), Error: text, Attempts: uint32(d.attempts), //nolint:gosec // both are positive and small
	})
}

// Unheld says that nobody waits for the answer of an effect any more, so that it is sent like the others.
func (c *core) Unheld(offset int64) {
	d := c.outbox.byOffset[offset]
	if d == nil || d.state != deliveryHeld {
		return
	}
	c.enqueue(d)
	c.pump()
}

// Resolve takes an operator's word about parked effects: to be sent again, or dropped. Those that
// another one is about already are left to that.
func (c *core) Resolve(r *resolution) {
	o := &c.outbox
	if c.state != Active {
		r.effects = nil
		r.done(false)
		return
	}
	r.effects = slices.DeleteFunc(r.effects, func(d *delivery) bool {
		_, known := o.resolving[d.offset]
		return known
	})
	if len(r.effects) == 0 {
		r.done(true)
		return
	}
	for _, d := range r.effects {
		o.resolving[d.offset] = struct{}{}
		if r.drop {
			o.said.Done = append(o.said.Done, uint64(d.offset)) //nolint:gosec // offsets are positive
		} else {
			o.said.Replayed = append(o.said.Replayed, uint64(d.offset)) //nolint:gosec // offsets are positive
		}
	}
	o.resolved = append(o.resolved, r)
	c.settleNow = true
}

// retryEffects makes those ready whose pause is over, and lets closed lanes try.
func (c *core) retryEffects() {
	o := &c.outbox
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

// unsaid is the number of things that the next settled record has to say.
func (o *outbox) unsaid() int {
	return len(o.said.GetDone()) + len(o.said.GetParked()) + len(o.said.GetReplayed()) + len(o.said.GetRefused()) + len(o.refusals)
}

// settleEffects writes what became of effects into the open batch, in as many records as it takes.
func (c *core) settleEffects() {
	o := &c.outbox
	for proto.Size(o.said) > 0 {
		said := nextSettled(o.said)
		entry := c.control(record.Settled)
		entry.Value = record.EncodeSettled(said)
		c.put(entry)
		c.open.settles = append(c.open.settles, settles{done: said.Done, parked: said.Parked})
	}
	for _, r := range o.refusals {
		c.writeRefusal(r)
	}
	if len(o.resolved) > 0 { // all that they wait for is before it, or in the same batch
		c.open.settles = append(c.open.settles, settles{resolved: o.resolved})
	}
	o.resolved, o.refusals = nil, nil
}

// A settled record says so much at most. With the longest texts that is below 100 KiB, for which any topic has room.
const (
	settledOffsets = 1024
	settledTexts   = 32
)

// nextSettled takes out of s what one record says: that effects are parked before what became of those since.
func nextSettled(s *recordv1.Settled) *recordv1.Settled {
	next := &recordv1.Settled{}
	if next.Parked, s.Parked = head(s.Parked, settledTexts); len(s.Parked) > 0 {
		return next
	}
	if next.Replayed, s.Replayed = head(s.Replayed, settledOffsets); len(s.Replayed) > 0 {
		return next
	}
	if next.Refused, s.Refused = head(s.Refused, settledOffsets); len(s.Refused) > 0 {
		return next
	}
	next.Done, s.Done = head(s.Done, settledOffsets)
	return next
}

// head splits off the first n of a list. The rest shares no room with them; an empty one is nil.
func head[T any](list []T, n int) (first, rest []T) {
	if len(list) <= n {
		return list, nil
	}
	return list[:n:n], list[n:]
}

// settles is what the settled records of a batch say, for when it is committed.
type settles struct {
	done     []uint64
	parked   []*recordv1.Parked
	resolved []*resolution
	// kept are places of refused records, told the commands that tell entities of refusals.
	kept []int
	told []followUp
}

// settled takes effects out of the outbox whose settled record is committed.
func (c *core) settled(s settles) {
	o := &c.outbox
	for _, offset := range s.done {
		delete(c.concluding, int64(offset))           //nolint:gosec // offsets are positive
		if d := o.byOffset[int64(offset)]; d != nil { //nolint:gosec // offsets are positive
			o.remove(d)
		}
	}
	o.close(s.done)
	for _, p := range s.parked {
		o.parked++
		if mutation.On(mutation.ParkedPlace) {
			continue
		}
		if d := o.byOffset[int64(p.GetOffset())]; d != nil { //nolint:gosec // offsets are positive
			o.remove(d)
		}
	}
	for _, r := range s.resolved {
		o.parked -= len(r.effects)
		for _, d := range r.effects {
			delete(o.resolving, d.offset)
			if !r.drop {
				c.replay(d)
			}
		}
		r.done(true)
	}
	c.pump()
	c.refill()
}

// replay takes an effect into memory again that was parked, if there is room.
func (c *core) replay(d *delivery) {
	o := &c.outbox
	if len(o.byOffset) < outboxWindow {
		c.take(d)
	} else if !o.more || d.offset < o.frontier {
		o.left, o.idle = true, false
	}
}

// close takes the offsets of effects that are done off the lowest ones.
func (o *outbox) close(done []uint64) {
	slices.Sort(done)
	o.lowest = slices.DeleteFunc(o.lowest, func(offset int64) bool {
		for len(done) > 0 && int64(done[0]) < offset { //nolint:gosec // offsets are positive
			done = done[1:]
		}
		return len(done) > 0 && int64(done[0]) == offset //nolint:gosec // offsets are positive
	})
}

// forgetEffects empties the outbox at the end of an ownership; the store has what is open.
func (c *core) forgetEffects() {
	for _, b := range c.sent {
		b.unresolved()
	}
	for _, b := range c.full {
		b.unresolved()
	}
	c.open.unresolved()
	for _, r := range c.outbox.resolved {
		r.done(false)
	}
	c.outbox = newOutbox()
}

func (b *batch) unresolved() {
	for _, s := range b.settles {
		for _, r := range s.resolved {
			r.done(false)
		}
	}
}

// doneAtSource says whether an effect of another partition is known to be done there, so that this is a late copy of it.
func (c *core) doneAtSource(s *entities.Source, stored entities.Progress) bool {
	key := source{s.Generation, s.Partition}
	known := c.outbox.known[key].Latest(stored)
	c.outbox.known[key] = known
	return known.Done(s.Offset)
}

// cause is what the records of a command say about the effect that it follows from. What they say of the source's progress
// never goes back, whatever order effects arrive in: rows that were removed because of it must not be missed later.
func (c *core) cause(s *entities.Source) *record.Cause {
	if s == nil {
		return nil
	}
	key := source{s.Generation, s.Partition}
	known := c.outbox.known[key].Latest(s.Progress())
	if mutation.On(mutation.Watermark) {
		known = s.Progress()
	}
	c.outbox.known[key] = known
	cause := &record.Cause{
		Generation: uint32(s.Generation), Partition: uint32(s.Partition), Offset: uint64(s.Offset), Index: s.Index, Settled: uint64(known.Through), //nolint:gosec // offsets are positive
	}
	for _, offset := range known.Open {
		cause.Open = append(cause.Open, uint64(offset)) //nolint:gosec // offsets are positive
	}
	return cause
}

// deliveryOf makes an outbox entry from a row of the store.
func deliveryOf(e materializer.Effect) (*delivery, error) {
	d, err := decodeEffect(e.Target, e.Payload)
	if err != nil {
		return nil, err
	}
	d.offset = e.Offset
	d.from.Type, d.from.ID, _ = strings.Cut(e.From, "/")
	if d.asker != nil {
		d.asker.entity = []byte(e.From)
	}
	return d, nil
}

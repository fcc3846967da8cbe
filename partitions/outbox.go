package partitions

import (
	"cmp"
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
	// outboxWindow is how many open effects of a partition are in memory; the store has all of them.
	outboxWindow = 4096
	// maxSending is how many effects of a partition are under way at a time.
	maxSending = 64
	// settleBatch is how many answers of targets are waited for before a record says so ahead of the next tick.
	settleBatch = 512
	// maxFailures is how often the target's function may fail on an effect before it is parked.
	maxFailures = 10
)

// resend is the pause between attempts to deliver an effect, or to run a timer's command.
var resend = backoff.Policy{First: 100 * time.Millisecond, Max: 30 * time.Second, Jitter: 0.5} //nolint:gochecknoglobals // a constant

// delivery is an effect on its way.
type delivery struct {
	offset int64
	effect entities.SideEffect
	// from is the entity that asked for it; onRefused is its method that learns of a refusal, as service/method, empty for none.
	from      entities.Key
	onRefused string
	// forward: its answer is that of the command that asked.
	forward bool
	state   deliveryState
	// attempts were made, failures of them were the function's own fault.
	attempts, failures int
	// due is when a waiting one is tried again.
	due time.Duration
}

type deliveryState uint8

const (
	// deliveryReady: to be sent as soon as there is room.
	deliveryReady deliveryState = iota
	// deliveryHeld: the caller of the command that asked for it sends it, and waits for the answer.
	deliveryHeld
	// deliverySending: the target's answer is awaited.
	deliverySending
	// deliveryWaiting: it did not get through, and is tried again.
	deliveryWaiting
	// deliveryParked: it waits for an operator.
	deliveryParked
	// deliveryAnswered: it is done, and no record says so yet.
	deliveryAnswered
	// deliverySettled: a committed record says that it is done.
	deliverySettled
)

// outbox holds the open effects of a partition, oldest first.
type outbox struct {
	entries  []*delivery
	byOffset map[int64]*delivery
	ready    []*delivery
	sending  int
	waiting  int
	parked   int
	// more: the store has further ones behind the last entry. loading: they are being read; what is committed meanwhile is
	// read with them, so that entries stay in order.
	more, loading bool
	// said is what the next settled record says.
	said *recordv1.Settled
	// resolved is what operators asked for.
	resolved []*resolution
	// refusals are what no record says yet; kept are the offsets of refused records that the store has, oldest first.
	refusals []refusal
	kept     []int64
	// known is, by source partition, below which offset effects are done.
	known map[source]int64
}

type source struct{ generation, partition uint16 }

// resolution is an operator's word about a parked effect.
type resolution struct {
	offset int64
	drop   bool
	// refusal: it is about a refusal that is kept. again is its effect, to be sent once more.
	refusal bool
	again   *delivery
	done    func(found bool)
}

func newOutbox() outbox {
	return outbox{byOffset: map[int64]*delivery{}, said: &recordv1.Settled{}, known: map[source]int64{}}
}

// watermark is an offset below which every effect of the partition is done.
func (c *core) watermark() int64 {
	o := &c.outbox
	switch {
	case len(o.entries) > 0:
		return o.entries[0].offset
	case o.more || o.loading:
		return 0 // older ones than any in memory may be open
	default:
		return c.next
	}
}

// keep takes a committed effect into the outbox.
func (c *core) keep(d *delivery) {
	o := &c.outbox
	if o.more || o.loading || len(o.entries) >= outboxWindow {
		o.more = true // the store has it
		return
	}
	if n := len(o.entries); n > 0 && o.entries[n-1].offset > d.offset {
		// The core's own effects are committed in the order of the log, and get here after those of the commands of their batch.
		at, _ := slices.BinarySearchFunc(o.entries, d.offset, func(e *delivery, offset int64) int { return cmp.Compare(e.offset, offset) })
		o.entries = slices.Insert(o.entries, at, d)
	} else {
		o.entries = append(o.entries, d)
	}
	o.byOffset[d.offset] = d
	switch d.state {
	case deliveryParked:
		o.parked++
	case deliveryReady:
		o.ready = append(o.ready, d)
	default:
	}
}

// OutboxLoaded takes open effects from the store, in order; more says that there are others behind them.
func (c *core) OutboxLoaded(effects []*delivery, more bool) {
	o := &c.outbox
	o.more, o.loading = false, false
	for _, d := range effects {
		c.keep(d)
	}
	o.more = o.more || more
	c.pump()
}

// pump sends what may be sent, and asks the store for more when there is room.
func (c *core) pump() {
	o := &c.outbox
	for len(o.ready) > 0 && o.sending < maxSending {
		d := o.ready[0]
		o.ready[0] = nil
		o.ready = o.ready[1:]
		if d.state != deliveryReady {
			continue // the caller who was thought gone has delivered it
		}
		d.state = deliverySending
		d.attempts++
		o.sending++
		c.emit(effect{kind: doSend, delivery: d, offset: c.watermark()})
	}
	if o.more && !o.loading && len(o.entries) < outboxWindow/2 {
		c.loadOutbox()
	}
}

// loadOutbox asks for the open effects behind those in memory.
func (c *core) loadOutbox() {
	o := &c.outbox
	from := int64(0)
	if n := len(o.entries); n > 0 {
		from = o.entries[n-1].offset + 1
	}
	o.loading = true
	c.emit(effect{kind: doLoadOutbox, offset: from})
}

// Delivered takes the answer of an effect's target; err is nil when it took effect. What a target said of a record holds
// whoever owns the partition by now.
func (c *core) Delivered(offset int64, err *entities.Error) {
	o := &c.outbox
	d := o.byOffset[offset]
	if d == nil {
		return
	}
	held := d.state == deliveryHeld
	switch d.state {
	case deliverySending:
		o.sending--
	case deliveryWaiting:
		o.waiting--
	case deliveryHeld, deliveryReady:
		d.attempts++
	case deliveryParked, deliveryAnswered, deliverySettled:
		return
	}
	switch {
	case err != nil && err.Reason == entities.FunctionRefused:
		c.refused(d, err, held)
	case err == nil:
		d.state = deliveryAnswered
		o.said.Done = append(o.said.Done, uint64(offset)) //nolint:gosec // offsets are positive
		if mutation.On(mutation.Settle) {
			c.settled(settles{done: []uint64{uint64(offset)}}) //nolint:gosec // offsets are positive
		}
	case hopeless(err) || failedOften(d, err):
		c.park(d, err)
	default:
		d.state, d.due = deliveryWaiting, c.now.Mono+resend.PauseBy(d.attempts, spread(offset))
		o.waiting++
	}
	c.pump()
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
	c.outbox.parked++
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
	d.state = deliveryReady
	c.outbox.ready = append(c.outbox.ready, d)
	c.pump()
}

// Resolve takes an operator's word about a parked effect: to be sent again, or dropped.
func (c *core) Resolve(r *resolution) {
	d := c.outbox.byOffset[r.offset]
	if c.state != Active || d == nil || d.state != deliveryParked {
		r.done(false)
		return
	}
	if r.drop {
		d.state = deliveryAnswered
		c.outbox.parked--
		c.outbox.said.Done = append(c.outbox.said.Done, uint64(r.offset)) //nolint:gosec // offsets are positive
	} else {
		c.outbox.said.Replayed = append(c.outbox.said.Replayed, uint64(r.offset)) //nolint:gosec // offsets are positive
	}
	c.outbox.resolved = append(c.outbox.resolved, r)
	c.settleNow = true
}

// retryEffects makes those ready whose pause is over.
func (c *core) retryEffects() {
	o := &c.outbox
	if o.waiting == 0 {
		return
	}
	for _, d := range o.entries {
		if d.state == deliveryWaiting && d.due <= c.now.Mono {
			d.state = deliveryReady
			o.waiting--
			o.ready = append(o.ready, d)
		}
	}
	c.pump()
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
		c.open.settles = append(c.open.settles, settles{done: said.Done, replayed: said.Replayed})
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

// settles is what a settled record of a batch says, for when it is committed.
type settles struct {
	done, replayed []uint64
	resolved       []*resolution
	// kept are places of refused records, told the commands that tell entities of refusals.
	kept []int
	told []followUp
}

// settled takes entries out of the outbox whose settled record is committed.
func (c *core) settled(s settles) {
	o := &c.outbox
	for _, offset := range s.done {
		if d := o.byOffset[int64(offset)]; d != nil { //nolint:gosec // offsets are positive
			d.state = deliverySettled
			delete(o.byOffset, d.offset)
		}
	}
	for _, offset := range s.replayed {
		if d := o.byOffset[int64(offset)]; d != nil && d.state == deliveryParked { //nolint:gosec // offsets are positive
			d.state, d.attempts, d.failures = deliveryReady, 0, 0
			o.parked--
			o.ready = append(o.ready, d)
		}
	}
	first := 0
	for first < len(o.entries) && o.entries[first].state == deliverySettled {
		o.entries[first] = nil
		first++
	}
	o.entries = o.entries[first:]
	for _, r := range s.resolved {
		r.done(true)
	}
	c.pump()
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
func (c *core) doneAtSource(s *entities.Source, stored int64) bool {
	key := source{s.Generation, s.Partition}
	c.outbox.known[key] = max(c.outbox.known[key], stored)
	return s.Offset < c.outbox.known[key]
}

// cause is what the records of a command say about the effect that it follows from. What they say of the source's progress
// never goes back, whatever order effects arrive in: rows that were removed because of it must not be missed later.
func (c *core) cause(s *entities.Source) *record.Cause {
	if s == nil {
		return nil
	}
	key := source{s.Generation, s.Partition}
	known := max(c.outbox.known[key], s.Settled)
	if mutation.On(mutation.Watermark) {
		known = s.Settled
	}
	c.outbox.known[key] = known
	return &record.Cause{
		Generation: uint32(s.Generation), Partition: uint32(s.Partition), Offset: uint64(s.Offset), Index: s.Index, Settled: uint64(known), //nolint:gosec // offsets are positive
	}
}

// deliveryOf makes an outbox entry from a row of the store.
func deliveryOf(e materializer.Effect) (*delivery, error) {
	d, err := decodeEffect(e.Target, e.Payload)
	if err != nil {
		return nil, err
	}
	d.offset = e.Offset
	d.from.Type, d.from.ID, _ = strings.Cut(e.From, "/")
	if e.Parked != "" {
		d.state = deliveryParked
	}
	return d, nil
}

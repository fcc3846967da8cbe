package partitions

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/backoff"
	"github.com/millrace-io/millrace/internal/clock"
	"github.com/millrace-io/millrace/internal/failpoint"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/internal/tracing"
	"github.com/millrace-io/millrace/materializer"
)

// Functions is what the engine asks of the hosted user functions.
type Functions interface {
	// Open begins the session of one entity; it calls load exactly once.
	Open(ctx context.Context, service string, key entities.Key, load entities.Loader) (entities.Session, error)
	// Act runs a unary action.
	Act(ctx context.Context, inv entities.Invocation) (*entities.Outcome, error)
	// ActStream runs a streamed action. on gets every outcome in order, one at a time; its error ends the call.
	ActStream(ctx context.Context, s *entities.Stream, on func(context.Context, *entities.Outcome) error) error
	// Resolve turns the target of a forward or an effect into a command.
	Resolve(t entities.Target) (*entities.Command, error)
}

// Hooks observe a partition. They run on its loop and must not block. Nil ones are skipped.
type Hooks struct {
	// StateChanged reports a step; why is empty on the way up.
	StateChanged func(partition int32, from, to State, why string)
	// Alarm reports something that an operator should look at.
	Alarm func(partition int32, what string)
	// Progress reports a catch-up.
	Progress func(materializer.Progress)
	// WatchFailed reports that the group could not be asked who owns what.
	WatchFailed func(error)
}

func (h *Hooks) watchFailed(err error) {
	if h.WatchFailed != nil {
		h.WatchFailed(err)
	}
}

// Partition is one partition of the journal on this worker: core and fold, driven by a loop that it shares with others.
type Partition struct {
	id        int32
	address   materializer.Address
	journal   broker.Partition
	topicID   string
	layout    entities.Layout
	log       broker.Log
	store     materializer.Store
	functions Functions
	// types lists the entity types that the function serves.
	types  func() []string
	limits Limits
	hooks  Hooks
	clock  clock.Clock
	random func() uint64
	// router takes effects to their targets and the commands of timers to their entities, and knows the owner of a followed partition.
	router *Router
	// rebuilds bounds how many partitions are read in bulk at a time.
	rebuilds chan struct{}

	core    *core
	fold    *materializer.Fold
	reading *recovery
	// image is how far a followed partition is folded; nil: it is not followed.
	image atomic.Pointer[image]
	// imageMoved is closed when image has changed, if anybody waits for that.
	imageMu    sync.Mutex
	imageMoved chan struct{}
	// inspection is the last look through the log below the store's position; nil: there was none. suspected: one is wanted. repairs
	// counts those that have made what an earlier look found out of date.
	inspection atomic.Pointer[Inspection]
	suspected  atomic.Bool
	repairs    atomic.Uint64
	// probe is the owner's last word on how far it is; probing: it is being asked.
	probe   atomic.Pointer[probe]
	probing atomic.Bool
	// logEnd is what the log last said of its end; askingEnd: it is being asked.
	logEnd    atomic.Pointer[logEnd]
	askingEnd atomic.Bool
	// staleness is the worker's.
	staleness *staleness
	tracer    *tracing.Tracer
	// hadImage: the store had an image of the partition when the worker started.
	hadImage bool
	// toFollow: the group wants this worker to follow the partition.
	toFollow atomic.Bool
	// warmed is called when a followed partition's image has come close to the end of the log.
	warmed func()
	// refused is the manager's: it looks at the topic's settings.
	refused chan<- struct{}
	// restoring is a repair's.
	restoring *restoration
	// oneReader has room for the one background goroutine that has reading; stopReading ends the present one.
	oneReader   chan struct{}
	stopReading context.CancelFunc
	loop        *loop
	// tasks are the goroutines that the loop started; it waits for them. calls are those of them in which the function runs; it waits for
	// them as long as an orderly release may take.
	tasks, calls sync.WaitGroup

	released []func()
	// awaited want to know when nothing is under way any more.
	awaited []func(atOnce bool)

	// touched: something happened to the partition in this turn of the loop. Of the core's effects, those before settled are
	// in the store as far as they belong there, those before done are carried out.
	touched       bool
	settled, done int

	waiting atomic.Int64
	status  atomic.Pointer[published]
	stats   stats
	// began is when Now.Mono was 0; logBase and logAt are the log time of the claim and when it was read back.
	began   time.Time
	logBase int64
	logAt   time.Time
	// jumped is how far the machine's clock had jumped at the last look.
	jumped  time.Duration
	expired time.Time
	// forgetting: rows of effects of other partitions are being removed, from the row forgotten on.
	forgetting bool
	forgotten  []byte
	lastError  string
	lastFailed time.Time
}

// post gives the partition's loop an input. It returns false when the loop has ended.
func (p *Partition) post(in input) bool {
	in.partition = p
	return p.loop.post(in)
}

// submit is post for a caller, who may do the loop's turn himself.
func (p *Partition) submit(in input) bool {
	in.partition = p
	return p.loop.submit(in)
}

func (p *Partition) advance() {
	now := p.clock.Now()
	p.core.SetNow(Now{Mono: now.Sub(p.began), Log: p.logBase + int64(now.Sub(p.logAt))})
	if jumped := clock.JumpsOf(p.clock).Forward; jumped != p.jumped && !mutation.On(mutation.Suspend) {
		p.suspended(jumped - p.jumped)
		p.jumped = jumped
	}
}

// suspended notes that the machine's clock went on by itself: what was known of the log and its time is as old as that.
func (p *Partition) suspended(by time.Duration) {
	p.probe.Store(nil)
	if p.core.ClockJumped(by) {
		p.alarm(p.core.LastFence())
	}
}

// take gives one input to the core.
func (p *Partition) take(in *input) {
	c := p.core
	switch in.kind {
	case inTick: // the loop's own
	case inAssigned:
		c.Assigned(in.handedOver)
	case inRevoked:
		p.released = append(p.released, in.released)
		if in.fail != nil {
			p.failed(in.fail)
			c.Withheld(in.fail)
		}
		c.Revoked()
	case inFollowed:
		c.Followed(in.followed)
	case inFollowFailed:
		p.failed(in.fail)
		c.FollowFailed(in.fail)
	case inAlarm:
		p.alarm(in.fail.Error())
	case inInspected:
		p.inspected(in.incarnation, in.fail)
	case inLost:
		c.Lost()
	case inReplaced:
		c.Halt(in.fail)
	case inCaughtUp:
		c.CaughtUp(in.owner, in.next, p.random()|1, p.types()) // no owner has nonce 0
	case inFailed:
		p.failed(in.fail)
		c.Failed(in.incarnation, in.fail)
	case inWaited:
		c.Waited(in.incarnation)
	case inClaimAcked:
		c.ClaimAcked(in.incarnation, in.result)
	case inReadBack:
		p.fold = in.fold
		p.jumps(0)
		p.setLogTime()
		p.lookupWaiting()
		c.ReadBack(in.incarnation, in.owner, in.next, in.fold.Meta().Floor)
	case inSubmitted:
		p.stats.commands.Add(1)
		if p.lookup(in.call) {
			c.Submitted(in.call)
		}
	case inWithdrawn:
		c.Withdrawn(in.call)
	case inSessionEnded:
		c.SessionEnded(in.call)
	case inDecided:
		c.Decided(in.call, in.opening, in.outcome, in.err)
	case inOpened:
		c.Opened(in.entity, in.incarnation, in.opening, in.err)
	case inPassivated:
		c.Passivated(in.entity, in.incarnation)
	case inAcked:
		c.Acked(in.batch, in.result)
	case inGapRead:
		c.GapRead(in.incarnation, in.gap, in.fail)
	case inDelivered:
		p.attempted("effect of offset %d: %s", in.offset, in.err)
		if in.err != nil && in.err.Reason == entities.FunctionRefused {
			p.stats.refused.Add(1)
		}
		c.Delivered(in.offset, in.reply, in.err)
	case inUnheld:
		for offset := in.offset; offset < in.next; offset++ {
			c.Unheld(offset)
		}
	case inConcluded:
		if p.lookup(in.call) && p.lookupForward(in.call) {
			c.Concluded(in.call)
		}
	case inFired:
		p.attempted("timer of offset %d: %s", in.alarm.Offset, in.err)
		c.Fired(in.incarnation, in.alarm, in.superseded, in.err)
	case inResolved:
		if in.instruction.refusal {
			p.resolveRefusal(in.instruction)
		} else {
			p.resolve(in.instruction)
		}
	case inPosition:
		c.Asked(in.call)
	case inRepair:
		c.Repair(in.repair)
	case inSurveyed:
		c.Surveyed(in.incarnation, in.survey, p.random()|1, in.fail)
	case inRestored:
		c.Restored(in.incarnation, in.owner, in.page, in.restored, in.fail)
	case inQuiet:
		if c.Settling() {
			in.quiet(true)
		} else {
			p.awaited = append(p.awaited, in.quiet)
		}
	}
}

// setLogTime lets the log's clock run on from the newest log time that was folded: that of the own claim.
func (p *Partition) setLogTime() {
	p.logBase, p.logAt = p.fold.Meta().LogTime, p.clock.Now()
	p.advance()
}

// lookup asks the store whether a command took effect before. It returns false when the call was answered with an error.
func (p *Partition) lookup(call *Call) bool {
	if !call.named() {
		return true
	}
	view := materializer.Partition{Rows: p.store, Address: p.address}
	var (
		stored materializer.Stored
		known  bool
		err    error
	)
	if s := call.cmd.Source; s != nil {
		stored, known, call.settled, err = view.Delivered(*s)
	} else {
		stored, known, err = view.Stored(call.cmd.Key, call.cmd.Principal, call.cmd.ID)
	}
	switch {
	case err != nil:
		call.fail(entities.Errorf(entities.Unavailable, entities.NotApplied, "look up whether %s did this before: %w: nothing was applied", call.cmd.Key, err))
		p.answer(call, never)
	case known:
		call.stored = &stored
	}
	return err == nil
}

// lookupForward asks the store whether a forward that ends, and is not in memory, is parked. It returns
// false when the call was answered with an error.
func (p *Partition) lookupForward(call *Call) bool {
	if call.outcome == nil || p.core.Holds(call.forward) {
		return true
	}
	var err error
	_, call.parked, err = materializer.Partition{Rows: p.store, Address: p.address}.ParkedEffect(call.forward)
	if err != nil {
		call.fail(entities.Errorf(entities.Unavailable, entities.NotApplied, "look up the forward of %s: %w", call.cmd.Key, err))
		p.answer(call, never)
	}
	return err == nil
}

// lookupWaiting asks about the calls that came before the partition was active once more: only now the store has everything
// that the log has, and a command that is sent again after a crash may be in what was read since.
func (p *Partition) lookupWaiting() {
	p.core.Recheck(p.lookup)
}

// do performs an effect, which is lent for the call: what goes on in the background takes what it needs of it.
func (p *Partition) do(ctx context.Context, e *effect) {
	switch e.kind {
	case doCatchUp:
		p.stopReading()
		reading, stop := context.WithCancel(ctx)
		p.stopReading = stop
		task := *e
		p.background(func() { p.catchUp(reading, task) })
	case doClaim:
		p.append(e.batch, inClaimAcked)
	case doReadBack:
		p.stopReading()
		reading, stop := context.WithTimeout(ctx, p.limits.AckTimeout) // an old leader may show an old end for a while
		p.stopReading = stop
		incarnation, offset := e.incarnation, e.offset
		p.background(func() { p.readBack(reading, incarnation, offset) })
	case doFollow:
		p.stopReading()
		reading, stop := context.WithCancel(ctx)
		p.stopReading = stop
		p.background(func() { p.followLog(reading) })
	case doRest:
		p.stopReading()
	case doWait:
		p.pause(ctx, e.incarnation, e.attempt)
	case doInvoke:
		p.turn(ctx, e)
	case doOpen:
		p.reopen(e.entity, e.session, e.incarnation)
	case doClose:
		session := e.session
		p.background(func() { p.closeSession(session) })
	case doPassivate:
		p.stats.passivated.Add(1)
		in, session := input{kind: inPassivated, entity: e.entity, incarnation: e.incarnation}, e.session
		p.background(func() {
			p.closeSession(session)
			p.post(in)
		})
	case doAppend:
		p.append(e.batch, inAcked)
	case doCommit, doSkip: // settle has done it
	case doAnswer:
		p.answer(e.call, p.core.Confirmed())
	case doReadGap:
		incarnation, from, until := e.incarnation, p.core.Next(), e.offset
		p.alarm("records of others stand where own ones were expected")
		p.background(func() { p.readGap(ctx, incarnation, from, until) })
	case doSend:
		p.deliver(ctx, e.delivery, e.progress)
	case doLoadOutbox:
		p.loadOutbox(e, p.core.OutboxLoaded)
	case doSweepOutbox:
		p.loadOutbox(e, p.core.OutboxSwept)
	case doLoadOpen:
		p.loadOpen(e)
	case doLoadRefusals:
		p.loadRefusals()
	case doDropRefusals:
		p.stats.refusalsDropped.Add(uint64(e.attempt)) //nolint:gosec // positive
		p.alarm(fmt.Sprintf("more than %d refused effects are kept: the %d oldest were dropped; look at `millrace parked --refused`, use sdk.OnRefused or sdk.IgnoreRefusal", MaxRefusals, e.attempt))
	case doLoadTimers:
		p.loadTimers(e.alarm.Due, e.attempt, p.core.TimersLoaded)
	case doSearchTimers:
		p.loadTimers(e.alarm.Due, e.attempt, func(due []materializer.Due, more bool) { p.core.TimersFound(e.alarm.Key.Type, due, more) })
	case doFire:
		p.fire(ctx, e.alarm, e.incarnation)
	case doSweep:
		if err := materializer.Sweep(p.store, p.address, e.alarm.Due); err != nil {
			p.failed(err)
		}
	case doHalt:
		p.halt(e.offset)
	case doSurvey:
		task := *e
		p.inBackground(ctx, func(ctx context.Context) { p.surveyed(ctx, task.incarnation, task.repair) })
	case doRestore:
		task := *e
		p.inBackground(ctx, func(ctx context.Context) { p.restored(ctx, task.incarnation, task.repair, task.offset) })
	case doStartOver:
		p.startOver(e.repair)
	case doResume:
		p.resume()
	case doResolved:
		p.show() // the operator looks at the totals next
		e.resolution.done(true)
	case doRepaired:
		p.show() // the operator looks at the status next
		e.repair.done(e.repair)
	case doReleased:
		for _, done := range p.released {
			if done != nil {
				done()
			}
		}
		p.released = nil
	}
}

// background starts a goroutine that the loop waits for at its end.
func (p *Partition) background(f func()) { p.tasks.Go(f) }

// calling starts a goroutine in which the function runs, which may hang.
func (p *Partition) calling(f func()) { p.calls.Go(f) }

// turn tells a caller to run the function, unless it left.
func (p *Partition) turn(ctx context.Context, e *effect) {
	if e.call.cmd.Timer != nil {
		switch stale, err := p.stale(e.call); {
		case err != nil:
			p.core.Decided(e.call, nil, nil, entities.Errorf(entities.Unavailable, entities.NotApplied, "look up timer %q: %w", e.call.cmd.Timer.Name, err))
			return
		case stale:
			p.core.Superseded(e.call)
			return
		}
	}
	w := meetingOf(e.call)
	w.session, w.at, w.behind = e.session, p.core.Now().Log, nil
	if !w.run() {
		p.core.Withdrawn(e.call)
		return
	}
	if timer := e.call.cmd.Timer; timer != nil && timer.Err != nil {
		w.set(phaseDecided)
		p.core.CannotRun(e.call)
		return
	}
	if ahead, ok := e.session.(entities.Ahead); ok && !ended(ahead) {
		if ahead.Ready() {
			p.ready(ctx, e.call)
			return
		}
		w.behind = p.behind(e, ahead.Room())
	}
	w.wake <- struct{}{}
}

// ready takes the decision about a command that was announced, and spares its caller's goroutine a way.
func (p *Partition) ready(ctx context.Context, call *Call) {
	wait := meetingOf(call)
	outcome, err := p.handle(ctx, wait.session, call.cmd, time.Unix(0, wait.at))
	wait.set(phaseDecided)
	var failure *entities.Error
	if err != nil {
		failure = entities.AsError(err)
	}
	p.core.Decided(call, nil, outcome, failure)
}

// behind returns what the function may have at a time: the command whose turn it is, and those that wait behind it. Their callers
// cannot leave any more. Timers have something to be looked at when it is their turn, and calls that are traced a time of their own.
func (p *Partition) behind(e *effect, room int) []entities.Invocation {
	waiting := e.entity.waiting()
	if room < 2 || len(waiting) == 0 || p.traced(e.call) {
		return nil
	}
	at := time.Unix(0, p.core.Now().Log)
	invs := make([]entities.Invocation, 1, min(room, 1+len(waiting)))
	invs[0] = entities.Invocation{Command: e.call.cmd, Time: at}
	for _, call := range waiting[:cap(invs)-1] {
		if call.cmd.Timer != nil || p.traced(call) || !(mutation.On(mutation.Announced) || meetingOf(call).run()) {
			break
		}
		invs = append(invs, entities.Invocation{Command: call.cmd, Time: at})
	}
	if len(invs) == 1 {
		return nil
	}
	return invs
}

func (p *Partition) traced(call *Call) bool {
	return p.tracer != nil && tracing.Sampled(call.cmd.TraceParent)
}

// answer wakes the caller. confirmed is when what the answer waited for was sent to the log.
func (p *Partition) answer(call *Call, confirmed time.Duration) {
	if call.err != nil {
		p.stats.failed.Add(1)
	}
	switch wait := meetingOf(call); wait.step(phase.answered) {
	case phaseLeft:
		p.unheld(call)
	case phaseAnswered:
	default:
		p.measure(call, confirmed)
		wait.wake <- struct{}{}
	}
}

// append encodes a batch and gives it to the log.
func (p *Partition) append(b *batch, reply inputKind) {
	records := b.encode()
	p.stats.batches.Add(1)
	incarnation := b.incarnation
	failpoint.Hit(failpoint.BeforeSend)
	p.log.Append(p.journal, records, func(r broker.AppendResult) {
		if r.Err != nil && !mutation.On(mutation.Look) {
			select {
			case p.refused <- struct{}{}:
			default: // it is about to look
			}
		}
		p.post(input{kind: reply, incarnation: incarnation, batch: b, result: r})
	})
	failpoint.Hit(failpoint.AfterSend)
}

// settle answers the calls of the batches among the fresh effects, after the store took them or, by err, did not.
func (p *Partition) settle(err error) {
	fresh := p.core.Effects()[p.settled:]
	p.settled = len(p.core.Effects())
	failed := false
	for i := range fresh {
		if fresh[i].kind == doCommit {
			p.release(fresh[i].batch, err)
			failed = err != nil
		}
	}
	if failed {
		p.failed(err)
		p.core.ApplyFailed(err)
	}
}

// release answers the calls of a batch that was applied, or was not.
func (p *Partition) release(b *batch, err error) {
	if err != nil {
		p.unsettled(b, err.Error())
		return
	}
	p.stats.records.Add(uint64(len(b.entries)))
	for _, call := range b.calls {
		p.answer(call, b.sentAt)
	}
	p.core.Recycle(b)
}

func (p *Partition) unsettled(b *batch, why string) {
	for _, call := range b.calls {
		call.fail(entities.OutcomeLost(p.id, why))
		p.answer(call, never)
	}
}

// jumps raises an alarm when the fold has met claims of absurd epochs; before is how many were known.
func (p *Partition) jumps(before uint64) {
	if n := p.fold.Counts().Jumped - before; n > 0 {
		p.alarm(fmt.Sprintf("%d claims with absurdly high epochs were void: no worker makes such claims, see who may write to the topic", n))
	}
}

// skip folds records that change nothing, so that the store's position passes them.
func (p *Partition) skip(gap []materializer.GapRecord) {
	defer p.jumps(p.fold.Counts().Jumped)
	for i := range gap {
		if _, err := p.fold.Record(nil, &gap[i].Record); err != nil {
			p.failed(err)
		}
	}
}

// reopen closes the session of an entity, nil: it has none, and opens another one.
func (p *Partition) reopen(ent *entity, session entities.Session, incarnation uint64) {
	service, key := ent.typ.Service, ent.key
	p.calling(func() {
		if session != nil {
			p.closeSession(session)
		}
		opening, err := p.openSession(context.Background(), service, key)
		if !p.post(input{kind: inOpened, entity: ent, incarnation: incarnation, opening: opening, err: err}) && opening != nil {
			p.closeSession(opening.Session)
		}
	})
}

func (p *Partition) closeSession(s entities.Session) {
	ctx, cancel := context.WithTimeout(context.Background(), p.limits.CloseTimeout)
	defer cancel()
	s.Close(ctx)
}

// claimBackoff is the pause between attempts to own a partition.
var claimBackoff = backoff.Policy{First: 50 * time.Millisecond, Max: 5 * time.Second, Jitter: 0.5} //nolint:gochecknoglobals // a constant

// pause waits before the next attempt to own the partition; attempt counts from 1.
func (p *Partition) pause(ctx context.Context, incarnation uint64, attempt int) {
	over, stop := p.clock.After(claimBackoff.PauseBy(attempt, p.random()))
	p.background(func() {
		defer stop()
		select {
		case <-over:
			p.post(input{kind: inWaited, incarnation: incarnation})
		case <-ctx.Done():
		}
	})
}

// expire frees the space of command ids outside the window, now and then.
func (p *Partition) expire() {
	now := p.clock.Now()
	if p.core.State() != Active || now.Sub(p.expired) < expireEvery {
		return
	}
	p.expired = now
	const most = 10_000
	n, err := materializer.Expire(p.store, p.address, p.core.Now().Log-int64(p.limits.DedupWindow), p.core.Now().Log-int64(entities.RoutedWindow), most)
	if err != nil {
		p.failed(err)
	}
	p.stats.expired.Add(uint64(n)) //nolint:gosec // a count
	p.forgetting = true
}

// forget frees the space of what is remembered of effects that their partitions are done with: a few
// rows at a time, until it has been through all of them.
func (p *Partition) forget() {
	if p.core.State() != Active || !p.forgetting {
		return
	}
	const most = 1024
	next, _, err := materializer.Forget(p.store, p.address, p.forgotten, most)
	if err != nil {
		p.failed(err)
	}
	p.forgotten, p.forgetting = next, next != nil
}

// attempted remembers why an effect or a timer did not get through.
func (p *Partition) attempted(what string, offset int64, err *entities.Error) {
	if err != nil && err.Reason != entities.FunctionRefused {
		p.lastError, p.lastFailed = fmt.Sprintf(what, offset, err.Message), p.clock.Now()
	}
}

func (p *Partition) failed(err error) {
	p.lastError, p.lastFailed = err.Error(), p.clock.Now()
}

func (p *Partition) alarm(what string) {
	p.stats.alarms.Add(1)
	p.lastError, p.lastFailed = what, p.clock.Now()
	if p.hooks.Alarm != nil {
		p.hooks.Alarm(p.id, what)
	}
}

// tellQuiet tells those who wait for it that nothing is under way.
func (p *Partition) tellQuiet() {
	if len(p.awaited) == 0 || !p.core.Quiet() {
		return
	}
	for _, tell := range p.awaited {
		tell(false)
	}
	p.awaited = nil
}

package partitions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/clock"
	"github.com/millrace-io/millrace/internal/multiplex"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/internal/tracing"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions/core"
	"github.com/millrace-io/millrace/partitions/journal"
	"github.com/millrace-io/millrace/partitions/repair"
	"github.com/millrace-io/millrace/partitions/replica"
	"github.com/millrace-io/millrace/partitions/routing"
)

// Options are the parameters of a Manager.
type Options struct {
	App    string
	Worker string
	Topic  broker.TopicInfo
	// Layout is that of the journal, which the caller has checked; zero: that of App with as many
	// partitions as the topic has.
	Layout entities.Layout
	// MorePartitions: the topic may have more than the layout, which hold nothing.
	MorePartitions bool
	Membership     broker.Membership
	Log            broker.Log
	Store          materializer.Store
	Functions      Functions
	// Types lists the entity types that the function serves now, for claims. Nil: claims name none.
	Types func() []string
	// Admit returns why this worker does not belong to the app whose workers a table lists; nil if it
	// does. It is called for each table before the worker takes anything that comes with it, and must
	// not block. Nil: every table is accepted.
	Admit  func(*broker.Table) error
	Limits Limits
	Hooks  Hooks
	// Group is the log's view of other workers; nil if there are none.
	Group broker.Group
	// Table is kept up to date with the tables of the group. Nil: the manager makes its own.
	Table *routing.Table
	// Peers carries commands to other workers; nil if there are none.
	Peers routing.Peers
	// OnEffectError is called for a side effect of an action that did not succeed and that no caller
	// waits for. It may be nil.
	OnEffectError func(entities.Target, error)
	// Tracer begins the spans of commands; nil if there are none.
	Tracer *tracing.Tracer
	// Clock defaults to the machine's.
	Clock clock.Clock
	// Random names ownerships and spreads pauses; nil means Go's generator. It may be called from many
	// goroutines.
	Random func() uint64
	// Rebuilds is how many partitions may be read in bulk at a time; 0 means 2.
	Rebuilds int
	// Loops is how many goroutines drive the partitions; 0 means one for each processor.
	Loops int
	// FeedBytes bounds the memory of what the consumers of feeds have not taken yet; 0 means
	// materializer.DefaultFeedBytes. Without consumers there is nothing.
	FeedBytes int
}

// Manager owns the partitions of a journal on this worker.
type Manager struct {
	options    Options
	shared     *shared
	partitions []*Partition
	loops      []*loop
	router     *routing.Router
	// mu guards the fields below, and orders the inputs that follow from them.
	mu sync.Mutex
	// contract is what is wrong with the topic, replaced that it is another one; assigned are the
	// partitions that the log assigns.
	contract error
	replaced bool
	assigned map[int32]bool
	// described is how many partitions the topic had at the last check.
	described int32
	// misfit is why the newest table, or an assignment, does not have this journal's layout.
	misfit error
	// handedOver are the partitions that live owners are to release by the present table.
	handedOver map[int32]bool
	// toInspect has room for one request to inspect the suspected logs.
	toInspect chan struct{}
	// barred has room for the reason why this worker has to leave its group; isBarred: there is one.
	barred   chan error
	isBarred bool
	// draining is closed when the membership is to end before the manager does, drained when it has
	// ended.
	draining, drained chan struct{}
	drainOnce         sync.Once
}

// NewManager returns a manager for the journal that o.Topic describes. Nothing runs before Run.
func NewManager(o Options) *Manager {
	if o.Clock == nil {
		o.Clock = clock.Wall{}
	}
	if o.Random == nil {
		o.Random = rand.Uint64
	}
	if o.Table == nil {
		o.Table = routing.NewTable()
	}
	if o.Types == nil {
		o.Types = func() []string { return nil }
	}
	o.Functions = whileMixed{o.Functions, o.Table}
	o.Rebuilds = cmp.Or(o.Rebuilds, 2)
	o.Loops = cmp.Or(o.Loops, runtime.NumCPU())
	if o.Log.SingleProcess() {
		// The cost of a log in this process is a sync, whatever the sync holds: a batch that waits for
		// the previous one would miss a sync. A busy partition still fills its batches, so that not every
		// command needs a sync.
		o.Limits.FillBytes = cmp.Or(o.Limits.FillBytes, 1)
		o.Limits.Inflight = cmp.Or(o.Limits.Inflight, 4)
	}
	if o.Layout == (entities.Layout{}) {
		o.Layout = entities.LayoutOf(o.App, o.Topic.Partitions)
	}
	o.Limits = o.Limits.among(o.Layout.Partitions, o.Topic)
	m := &Manager{
		options: o, described: o.Topic.Partitions, assigned: map[int32]bool{}, handedOver: map[int32]bool{},
		toInspect: make(chan struct{}, 1), barred: make(chan error, 1), draining: make(chan struct{}),
		drained: make(chan struct{}),
	}
	m.router = routing.NewRouter(routing.Options{
		Layout: o.Layout, Table: o.Table, Peers: o.Peers, MaxWaiting: o.Limits.MaxWaiting, Patience: o.Limits.MovePatience,
		Clock: o.Clock, Random: o.Random, Tracer: o.Tracer,
	}, o.Worker, numbered{m}, o.Functions, o.OnEffectError)
	m.shared = &shared{
		functions: o.Functions, router: m.router, types: o.Types, limits: o.Limits, hooks: o.Hooks, clock: o.Clock,
		random: o.Random, tracer: o.Tracer,
		refused: make(chan struct{}, 1),
	}
	rebuilds := make(chan struct{}, o.Rebuilds)
	feeds := materializer.NewFeeds(cmp.Or(o.FeedBytes, materializer.DefaultFeedBytes))
	if o.Hooks.RoleChanged != nil {
		feeds.OnTurn(o.Hooks.RoleChanged)
	}
	for id := range o.Layout.Partitions {
		image := &materializer.Image{
			Log: o.Log, Journal: broker.Partition{Topic: o.Topic.Name, ID: id}, TopicID: o.Topic.ID, Layout: o.Layout,
			// There are at most 4096 partitions.
			Store: o.Store, Address: materializer.Address{Generation: o.Layout.Generation, Partition: uint16(id)},
			Rebuilds: rebuilds, Progress: o.Hooks.Progress,
		}
		p := &Partition{
			shared: m.shared, id: id, image: image, tasks: newTasks(), time: coreTime{clock: o.Clock},
			inspector: repair.NewInspector(image),
			repair: repair.New(repair.Options{
				Image: image, PageRecords: o.Limits.MaxCommitRecords, PageBytes: o.Limits.AppendBytes - broker.AppendOverhead,
			}),
			replica: replica.New(replica.Options{
				Image: image, Feed: feeds.Feed(image), ReleaseTimeout: o.Limits.ReleaseTimeout, Warmed: m.warmed,
				Clock: o.Clock, Random: o.Random, Background: m.router.Background,
				Owner: func() func(context.Context) (int64, error) { return m.ownerPosition(id) },
			}),
		}
		p.core = core.New(core.Config{
			Partition: id, Worker: o.Worker, Layout: o.Layout, Limits: o.Limits.Limits, Single: o.Log.SingleProcess(),
			LaneOf: p.laneOf,
		})
		if p.inspector.Suspected() {
			m.inspectSuspected()
		}
		p.status.Store(&published{Status: Status{Partition: id}})
		m.partitions = append(m.partitions, p)
	}
	m.loops = make([]*loop, min(o.Loops, len(m.partitions)))
	for i := range m.loops {
		m.loops[i] = &loop{
			mail: newMailbox(), store: o.Store, clock: o.Clock, runners: multiplex.Runners{Most: idleRunners},
		}
	}
	for i, p := range m.partitions {
		l := m.loops[i%len(m.loops)]
		p.loop = l
		l.partitions = append(l.partitions, p)
	}
	return m
}

// ownerPosition returns a function that asks the owner of a partition how far it is: this worker,
// or another one. It is nil if there is none to ask.
func (m *Manager) ownerPosition(id int32) func(context.Context) (int64, error) {
	if p := m.partitions[id]; p.replica.Role() == materializer.Owning {
		return p.Position
	}
	return m.router.OwnerPosition(id)
}

// Router returns the router over the manager's partitions and those of other workers.
func (m *Manager) Router() *routing.Router { return m.router }

// Partition returns the partition of an entity id.
func (m *Manager) Partition(id string) *Partition {
	return m.partitions[entities.Partition(id, len(m.partitions))]
}

// Partitions returns all partitions, in order.
func (m *Manager) Partitions() []*Partition { return m.partitions }

// Staleness lists the age of the states from which relaxed reads on this worker were answered.
func (m *Manager) Staleness() []replica.Staleness {
	return m.shared.staleness.Report(m.options.Clock.Now())
}

// Contract returns why the partitions are given up: the topic's settings, or its number of
// partitions, were wrong at the last check, or the routing table is not one of this journal. Nil if
// all is right.
func (m *Manager) Contract() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.wrong()
}

// TopicPartitions returns how many partitions the topic had at the last check.
func (m *Manager) TopicPartitions() int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.described
}

func (m *Manager) wrong() error {
	if m.contract != nil {
		return m.contract
	}
	return m.misfit
}

// Run owns partitions as the log assigns them, until ctx ends; then it releases them in order. It
// returns an error if the membership ended otherwise.
func (m *Manager) Run(ctx context.Context) error {
	loops, stopLoops := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLoops()
	var running sync.WaitGroup
	for _, l := range m.loops {
		running.Go(func() { l.run(loops) }) // stopped by stopLoops, waited for below
	}
	member, leave := context.WithCancelCause(context.WithoutCancel(ctx))
	left := make(chan error, 1)
	running.Go(func() { left <- m.options.Log.Assignments(member, m.options.Membership, m.assign) }) // ends with member
	running.Go(func() { m.watchContract(member) })                                                   // ends with member
	running.Go(func() { m.inspectLogs(member) })                                                     // ends with member

	var err error
	select {
	case <-ctx.Done():
		err = m.leave(func() { leave(context.Cause(ctx)) }, left)
	case <-m.draining:
		if err = m.leave(func() { leave(errDrained) }, left); err == nil {
			close(m.drained)
			err = m.watch(ctx)
		}
	case why := <-m.barred:
		err = errors.Join(why, m.leave(func() { leave(why) }, left))
	case err = <-left:
		leave(err)
		if err == nil {
			err = errors.New("the log ended the membership")
		}
	}
	stopLoops()
	running.Wait()
	return err
}

// leave ends the membership. If there may be other workers, the group learns of it before the
// partitions are released, so that each partition has a successor that waits for the release.
func (m *Manager) leave(end func(), left <-chan error) error {
	if m.options.Group == nil {
		m.release(m.all(), nil)()
	}
	end()
	late, stop := m.options.Clock.After(leavePatience)
	defer stop()
	select {
	case err := <-left:
		m.release(m.all(), nil)()
		return err
	case <-late: // the brokers do not answer
		m.release(m.all(), nil)()
		return <-left
	}
}

// leavePatience is how long the end of a membership may take before partitions are released without
// an answer of the group.
const leavePatience = 5 * time.Second

var errDrained = errors.New("the worker was drained")

// Drain hands all partitions of this worker over to other workers, in order, and leaves the group
// for good. The worker goes on sending commands to their owners. It does not wait.
func (m *Manager) Drain() { m.drainOnce.Do(func() { close(m.draining) }) }

// Drained is closed when everything is handed over.
func (m *Manager) Drained() <-chan struct{} { return m.drained }

// Draining reports whether Drain was called.
func (m *Manager) Draining() bool {
	select {
	case <-m.draining:
		return true
	default:
		return false
	}
}

// watch keeps the routes fresh without a membership, until ctx ends.
func (m *Manager) watch(ctx context.Context) error {
	if m.options.Group == nil {
		<-ctx.Done()
		return nil
	}
	return m.options.Group.Watch(
		ctx, m.options.Membership.Group, m.options.Membership.Topic, m.options.Table.Set, m.options.Hooks.watchFailed,
	)
}

// assign passes the log's assignments on to the partitions. While the topic is not as it should be,
// this worker takes no partition.
func (m *Manager) assign(e broker.AssignmentEvent) {
	if m.bar(e.Table) {
		if e.Done != nil {
			e.Done()
		}
		return
	}
	if e.Table != nil {
		m.options.Table.Set(e.Table)
		if m.options.Table.Err() == nil {
			m.noteHandOvers(e.Table)
			m.setFollowed(e.Table)
		}
		m.warmed()
	}
	givenUp := m.refit(&e)
	m.mu.Lock()
	for _, id := range e.Assigned {
		m.assigned[id] = true
		if m.wrong() == nil {
			m.partitions[id].post(inAssigned{handedOver: m.handedOver[id]})
		}
	}
	for _, id := range e.Lost {
		delete(m.assigned, id)
		m.partitions[id].post(inLost{})
	}
	for _, id := range e.Revoked {
		delete(m.assigned, id)
	}
	released := m.release(e.Revoked, nil)
	m.mu.Unlock()
	givenUp()
	released()
	if e.Done != nil {
		e.Done()
	}
}

// bar reports whether this worker must not be in its group: then it takes no partition, and leaves.
func (m *Manager) bar(t *broker.Table) bool {
	if m.isBarred || t == nil || m.options.Admit == nil || mutation.On(mutation.Services) {
		return m.isBarred
	}
	if err := m.options.Admit(t); err != nil {
		m.isBarred = true
		m.barred <- err
	}
	return m.isBarred
}

// noteHandOvers notes which partitions live owners are to release.
func (m *Manager) noteHandOvers(t *broker.Table) {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.handedOver)
	for _, id := range t.HandedOver {
		m.handedOver[id] = true
	}
}

// setFollowed tells each partition whether this worker is to follow it.
func (m *Manager) setFollowed(t *broker.Table) {
	followed := make([]bool, len(m.partitions))
	for _, id := range t.Followed(m.options.Worker) {
		followed[id] = true
	}
	for id, p := range m.partitions {
		if p.replica.Want(followed[id]) {
			p.post(inFollowed{followed: followed[id]})
		}
	}
}

// warmed is called when an image has come close to the end of the log, or the table has changed:
// the group may have to move a partition to this worker.
func (m *Manager) warmed() {
	if m.options.Group != nil && !m.Draining() && m.options.Table.Current().Due(m.options.Membership) {
		m.options.Group.Rebalance()
	}
}

// Images returns how many records each image on this worker is behind the log: those of owned and
// of followed partitions, of which some may not be read yet, and those that were in the store when
// the worker started.
func (m *Manager) Images() map[int32]int64 {
	images := map[int32]int64{}
	for _, p := range m.partitions {
		state := p.status.Load().State
		if state == core.Halted || state == core.Repairing { // its store is no image of the log
			continue
		}
		if lag, ok := p.replica.Lag(state == core.Active || state == core.Suspect || state == core.Releasing); ok {
			images[p.id] = lag
		}
	}
	return images
}

// Owned returns the partitions that this worker should own, by the newest assignment; ok is false
// before the first one.
func (m *Manager) Owned() (owned []*Partition, ok bool) {
	t := m.options.Table.Current()
	if t == nil {
		return nil, false
	}
	for _, id := range t.Owned(m.options.Worker) {
		owned = append(owned, m.partitions[id])
	}
	return owned, true
}

// release asks partitions for an orderly end; wait waits for it. Each loop bounds its own part. why
// is nil if the log, or the end of the worker, asks for it.
func (m *Manager) release(ids []int32, why error) (wait func()) {
	var open sync.WaitGroup
	for _, id := range ids {
		open.Add(1)
		if !m.partitions[id].post(inRevoked{fail: why, released: open.Done}) {
			open.Done()
		}
	}
	return open.Wait
}

func (m *Manager) all() []int32 {
	ids := make([]int32, 0, len(m.partitions))
	for _, p := range m.partitions {
		ids = append(ids, p.id)
	}
	return ids
}

// checkPause is the shortest pause between two checks of the topic's settings.
const checkPause = time.Second

// watchContract checks the topic's settings from time to time, and as soon as the log has failed an
// append: wrong settings may be the reason, and then the partition would claim and be refused again
// and again. It checks once in checkPause at most, however many appends fail.
func (m *Manager) watchContract(ctx context.Context) {
	pause := min(checkPause, m.options.Limits.ContractCheck)
	for {
		again, stop := m.options.Clock.After(m.options.Limits.ContractCheck - pause)
		select {
		case <-ctx.Done():
			stop()
			return
		case <-again:
		case <-m.shared.refused:
			stop()
		}
		// If the log is not reachable now, the partitions' own watchdogs report it.
		if info, err := m.options.Log.Describe(ctx, m.options.Topic.Name); err == nil {
			m.checkTopic(info)
		}
		rested, stop := m.options.Clock.After(pause)
		select {
		case <-ctx.Done():
			stop()
			return
		case <-rested:
		}
	}
}

// checkTopic gives the partitions up while the topic's settings, or its number of partitions, are
// wrong, and takes the assigned ones again when they are right. What the log may have lost in
// between is checked: after the store's position by the catch-up, which halts at a loss before it
// serves; before that position by an inspection, while the partition serves, because the store has
// that part. Another topic under the same name is a halt: it does not hold what was acknowledged.
func (m *Manager) checkTopic(info broker.TopicInfo) {
	m.mu.Lock()
	if m.replaced {
		m.mu.Unlock()
		return
	}
	m.described = info.Partitions
	was, now := m.wrong(), errors.Join(
		journal.CheckSettings(info), journal.CheckPartitions(m.options.Layout, info, m.options.MorePartitions),
	)
	if limit := m.options.Limits.AppendBytes; now == nil && info.MaxAppendBytes > 0 && info.MaxAppendBytes < limit {
		now = fmt.Errorf("topic %s takes %d bytes at a time and took %d when this worker started: raise it again, or restart the worker", info.Name, info.MaxAppendBytes, limit)
	}
	released := func() {}
	switch {
	case info.ID != m.options.Topic.ID:
		now, m.replaced = materializer.TopicReplaced(m.options.Topic.ID, info.ID), true
		for _, p := range m.partitions {
			p.post(inReplaced{fail: now})
		}
	case was == nil && now != nil:
		released = m.release(m.all(), now)
	case m.contract != nil && now == nil:
		m.inspectSuspected()
		if m.misfit == nil {
			m.takeAgain()
		}
	}
	suspect := m.contract == nil && now != nil && !m.replaced
	m.contract = now
	m.mu.Unlock()
	if suspect {
		m.suspectLogs()
	}
	released()
}

// takeAgain takes the partitions that are assigned. The lock is held.
func (m *Manager) takeAgain() {
	for id := range m.partitions {
		if m.assigned[int32(id)] {
			m.partitions[id].post(inAssigned{})
		}
	}
}

// AwaitQuiet returns when nothing is under way: effects that are due are delivered, and those that
// they cause, and due timers have fired. It does not wait for what is tried again later, or is
// parked.
func (m *Manager) AwaitQuiet(ctx context.Context) error {
	for quiet := false; !quiet; {
		quiet = true
		for _, p := range m.partitions {
			answer := make(chan bool, 1)
			if !p.post(inQuiet{quiet: func(atOnce bool) { answer <- atOnce }}) {
				continue
			}
			select {
			case atOnce := <-answer:
				quiet = quiet && atOnce // what it waited for may have caused work in other partitions
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	return nil
}

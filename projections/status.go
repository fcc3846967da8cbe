package projections

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/internal/plural"
	"github.com/millrace-io/millrace/materializer"
)

// State is the state of a dataset of one partition on this worker.
type State uint8

// The states.
const (
	// Absent: the partition or the dataset is not known here.
	Absent State = iota
	// Building: it has not yet reached the end of the image. Its rows are not returned.
	Building
	// Live: it follows the image.
	Live
	// Paused: it was built, and an operator has paused it, or the worker does not keep the image
	// current now.
	Paused
	// Stopped: an error keeps it from going on.
	Stopped
	// Unsupported: this version of millrace cannot fold it.
	Unsupported
)

// String returns the state as shown to people.
func (s State) String() string {
	return [...]string{"ABSENT", "BUILDING", "LIVE", "PAUSED", "STOPPED", "UNSUPPORTED"}[s]
}

// Status is how a dataset of one partition stands.
type Status struct {
	Dataset uint32
	// Views names the versions of projections that have the dataset. Promoted: one of them is live.
	Views     []string
	Promoted  bool
	Partition materializer.Address
	State     State
	// Position is the offset up to which records are applied, End that of the image. What lies
	// between is the lag; Behind is its age, of which only the last record that was read is known.
	Position, End int64
	Behind        time.Duration
	// Rows and Parked are numbers of rows and of parked entities, Skipped and Unmapped of records.
	Rows, Parked, Skipped, Unmapped uint64
	// Incomplete is how many indexes and aggregates are being made from the rows.
	Incomplete int
	// Rate is how many records are read per second.
	Rate float64
	// LastError is the last error of the partition, or the last record that could not be folded; ""
	// if there was none. LastErrorAt is when this process has seen it; zero for one of another.
	LastError   string
	LastErrorAt time.Time
}

// Lag is how many records the dataset is behind.
func (s *Status) Lag() int64 { return max(s.End-s.Position, 0) }

// shown is what callers see of a dataset. It is not changed after it was made.
type shown struct {
	plan  *plan
	store materializer.Store
	// position is that of the rows in memory, stored what the store had of it; applied is up to
	// where waits are over.
	position position
	stored   materializer.Meta
	applied  int64
	joined   bool
	failed   error
	failedAt time.Time
	rate     rate
}

// rate counts records per second.
type rate struct {
	began   time.Time
	records int
	last    float64
}

// rateWindow is how long records are counted for a rate.
const rateWindow = time.Second

func (r *rate) add(now time.Time, records int) {
	switch since := now.Sub(r.began); {
	case since > 10*rateWindow:
		*r = rate{began: now, records: records}
	case since >= rateWindow:
		*r = rate{began: now, last: float64(r.records+records) / since.Seconds()}
	default:
		r.records += records
	}
}

// at returns the rate, 0 if it was long ago.
func (r *rate) at(now time.Time) float64 {
	if now.Sub(r.began) > 10*rateWindow {
		return 0
	}
	return r.last
}

// show shows callers how datasets stand now, after so many records.
func (p *partition) show(datasets []*dataset, records int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range datasets {
		p.shown[d.Number] = p.present(d, p.shown[d.Number], records)
		p.tellFollowers(d)
	}
	p.changed()
}

// present returns what callers see of a dataset now; old is what they saw before, or nil. The lock
// is held.
func (p *partition) present(d *dataset, old *shown, records int) *shown {
	now := p.engine.options.Clock.Now()
	next := &shown{
		plan: d.plan, store: p.store, position: d.position.copy(), stored: d.stored, applied: d.applied, joined: d.joined,
		failed: d.failed, failedAt: d.failedAt,
	}
	if old != nil {
		next.rate = old.rate
		if old.position.failed != d.position.failed {
			p.lastError, p.lastErrorAt = errors.New(d.position.failed.String()), now
		}
	}
	if records > 0 {
		next.rate.add(now, records)
	}
	return next
}

// showAll shows callers which datasets there are now.
func (p *partition) showAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[uint32]*shown{}
	for number, plan := range p.plans.byDataset {
		if d := p.datasets[number]; d != nil {
			all[number] = p.present(d, p.shown[number], 0)
		} else {
			all[number] = &shown{plan: plan}
		}
	}
	p.shown = all
	p.wakeFollowers()
	p.changed()
}

// changed wakes those who wait for a change. The lock is held.
func (p *partition) changed() {
	if p.moved != nil {
		close(p.moved)
		p.moved = nil
	}
}

// resumed shows that the store can be used.
func (p *partition) resumed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed = nil
	p.wakeFollowers()
	p.changed()
}

// stop shows that nothing is folded for now.
func (p *partition) stop(err error) {
	p.engine.options.Logger.Error("projections of a partition do not go on; they are tried again",
		observe.Partition, p.address.Partition, observe.Error, err)
	p.note(err)
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, is := errors.AsType[*storeError](err); is {
		p.failed = err
	}
	p.wakeFollowers()
	p.changed()
}

// note keeps an error for the status.
func (p *partition) note(err error) {
	now := p.engine.options.Clock.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastError, p.lastErrorAt = err, now
}

// gone shows that the partition is not attached any more.
func (p *partition) gone() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.shown)
	p.wakeFollowers()
	p.changed()
}

// state is that of a dataset of the partition. The lock is held.
func (p *partition) state(s *shown) State {
	switch {
	case s.plan.err != nil:
		return Unsupported
	case p.failed != nil || s.position.stopped:
		return Stopped
	case !s.position.built || !s.joined && !s.plan.paused:
		return Building
	case s.plan.paused:
		return Paused
	case p.replica.Role() == materializer.NoRole:
		return Paused
	default:
		return Live
	}
}

var errPaused = errors.New("an operator has paused it: resume it with `millrace projection resume`")

// cause says why a dataset is in its state. The lock is held.
func (p *partition) cause(s *shown) error {
	switch {
	case s.plan.err != nil:
		return s.plan.err
	case p.failed != nil:
		return p.failed
	case s.position.stopped:
		return errors.New(s.position.failed.String())
	case s.plan.paused:
		return errPaused
	default:
		return nil
	}
}

// status returns how the datasets of a partition stand, by their numbers.
func (p *partition) status(now time.Time) (all []Status) {
	end, open := p.replica.Feed().Position()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, number := range slices.Sorted(maps.Keys(p.shown)) {
		s := p.shown[number]
		n := Status{
			Dataset: number, Views: s.plan.names, Promoted: s.plan.live, Partition: p.address, State: p.state(s),
			Position: s.position.meta.Next, End: s.position.meta.Next, Rows: s.position.rows, Parked: s.position.parked,
			Skipped: s.position.skipped, Unmapped: s.position.unmapped, Incomplete: s.position.pending(),
			Rate: s.rate.at(now),
		}
		if open {
			n.End = max(end, n.Position)
		}
		if n.Lag() > 0 && s.position.meta.LogTime > 0 {
			n.Behind = max(now.Sub(time.Unix(0, s.position.meta.LogTime)), 0)
		}
		switch cause := p.cause(s); {
		case cause != nil:
			n.LastError, n.LastErrorAt = cause.Error(), p.lastErrorAt
		case s.failed != nil:
			n.LastError, n.LastErrorAt = s.failed.Error(), s.failedAt
		case p.lastError != nil:
			n.LastError, n.LastErrorAt = p.lastError.Error(), p.lastErrorAt
		case s.position.failed != (failure{}):
			n.LastError = s.position.failed.String()
		}
		all = append(all, n)
	}
	return all
}

// Status returns how each dataset of each attached partition stands.
func (e *Engine) Status() (all []Status) {
	now := e.options.Clock.Now()
	for _, p := range e.attached() {
		all = append(all, p.status(now)...)
	}
	return all
}

// readyLag, in records, and readyWithin, its age, are the lag with which a dataset is ready.
const (
	readyLag    = 1_000
	readyWithin = 5 * time.Second
)

// Ready reports whether a dataset is live and close to the end of the image in every attached
// partition, with all its indexes and aggregates. Without that, progress says what is missing.
func (e *Engine) Ready(dataset uint32) (ready bool, progress string) {
	if e.plans.Load().byDataset[dataset] == nil {
		return false, fmt.Sprintf("dataset %d is not defined on this worker yet", dataset)
	}
	now := e.options.Clock.Now()
	waiting := 0
	for _, p := range e.attached() {
		why := "it has not begun"
		for _, s := range p.status(now) {
			if s.Dataset == dataset {
				why = s.missing()
			}
		}
		if why != "" {
			waiting++
			progress = cmp.Or(progress, fmt.Sprintf("partition %d: %s", p.address.Partition, why))
		}
	}
	if waiting > 1 {
		progress += fmt.Sprintf(" (and %s)", plural.Of(waiting-1, "other partition"))
	}
	return waiting == 0, progress
}

// missing says why a dataset is not ready, "" if it is.
func (s *Status) missing() string {
	switch {
	case s.State == Building:
		progress := fmt.Sprintf("BUILDING, offset %d of %d", s.Position, s.End)
		if s.LastError != "" {
			progress += "; last error: " + s.LastError
		}
		return progress
	case s.State != Live:
		return fmt.Sprintf("%v: %s", s.State, cmp.Or(s.LastError, "the worker does not keep the partition's image current"))
	case s.Incomplete > 0:
		return plural.Of(s.Incomplete, "index or aggregate") + " to be made from the rows"
	case s.Lag() > readyLag || s.Lag() > 0 && s.Behind > readyWithin:
		return fmt.Sprintf("offset %d of %d", s.Position, s.End)
	default:
		return ""
	}
}

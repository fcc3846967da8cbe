package query

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millrace-io/millrace/entities"
	projectionv1 "github.com/millrace-io/millrace/proto/gen/millrace/projection/v1"
)

const (
	// standardWait and maxWait bound how long a query waits for rows that are fresh enough.
	standardWait = time.Second
	maxWait      = 30 * time.Second
)

// demand is how fresh an answer must be.
type demand struct {
	level entities.Consistency
	bound time.Duration
	// after has the positions of AtLeast. pages are those of the pages before: they hold at each
	// level.
	after, pages []entities.Position
	// session has the positions of the caller's session: they hold at each level, and are let go
	// where they cannot be had.
	session []entities.Position
	wait    time.Duration
	// staleAllowed: when the wait is over, whatever is there is the answer.
	staleAllowed bool
}

// Names of the headers that entities have for the same purpose.
const (
	headerConsistency = "millrace-consistency"
	headerToken       = "millrace-min-token" //nolint:gosec // the name of a header
	headerStaleness   = "millrace-max-staleness"
)

// demandOf reads how fresh the answer must be: of the request, else of the headers, else the
// projection's default.
func (m *method) demandOf(app string, r *request, cmd *entities.Command) (demand, error) {
	d := demand{wait: standardWait}
	named, byHeader := false, false
	if namedByHeader(cmd) {
		named, byHeader = true, true
		d.level, d.bound, d.after = cmd.Consistency, cmd.Bound, cmd.After
	}
	if r.freshness != nil {
		if err := d.read(app, r.freshness); err != nil {
			return d, invalid("%s: freshness: %w", m.name, err)
		}
		if r.freshness.GetLevel() != nil {
			if byHeader && (d.level != cmd.Consistency || d.bound != cmd.Bound || !slices.Equal(d.after, cmd.After)) {
				return d, invalid("%s: the request's freshness and the header %s differ: send one of them", m.name,
					headerConsistency)
			}
			named = true
		}
	}
	consistency := &m.p.definition.Consistency
	if !named {
		d.level = levelNamed(consistency.Default)
		d.bound = consistency.MaxStaleness
	}
	if name := d.level.String(); !slices.Contains(consistency.Allow, name) {
		return d, invalid("%s: the consistency %q is not allowed: use %s", m.name, name, listOf(consistency.Allow))
	}
	return d, nil
}

// takeSession adds the session's token to what a query demands that names no freshness. A caller
// may not know that there is one, so it is never a reason to refuse: what is no token of the
// present journal is dropped, and a level that the projection does not allow is not demanded.
func (c *call) takeSession(cmd *entities.Command) {
	text := cmd.Metadata.Get(entities.SessionToken)
	if text == "" || c.request.freshness.GetLevel() != nil || namedByHeader(cmd) {
		return
	}
	token, err := entities.DecodeToken(c.service.o.App, text)
	allowed := c.method.p.definition.Consistency.Allow
	switch {
	case err != nil:
		c.dropped.Store(true)
	case !token.Latest && slices.Contains(allowed, entities.AtLeast.String()):
		c.demand.session = token.Positions
	case token.Latest && slices.Contains(allowed, entities.Strong.String()):
		c.demand.level = entities.Strong
	}
}

// namedByHeader reports whether the headers that entities have name a freshness.
func namedByHeader(cmd *entities.Command) bool {
	return hasHeader(cmd, headerConsistency) || cmd.Consistency != entities.Strong || hasHeader(cmd, headerToken) ||
		hasHeader(cmd, headerStaleness)
}

func hasHeader(cmd *entities.Command, name string) bool { return cmd.Metadata.Get(name) != "" }

func listOf(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

func levelNamed(name string) entities.Consistency {
	for _, level := range []entities.Consistency{entities.Bounded, entities.AtLeast, entities.Strong} {
		if level.String() == name {
			return level
		}
	}
	return entities.Eventual
}

var (
	errWait    = errors.New("max_wait is negative: leave it out, or allow up to 30s")
	errBounded = errors.New("bounded needs an age above 0, as in 2s")
)

// read takes what a request names.
func (d *demand) read(app string, f *projectionv1.Freshness) error {
	d.staleAllowed = f.GetOnTimeout() == projectionv1.OnTimeout_ON_TIMEOUT_STALE
	if f.GetMaxWait() != nil {
		d.wait = min(f.GetMaxWait().AsDuration(), maxWait)
		if d.wait < 0 {
			return errWait
		}
	}
	switch level := f.GetLevel().(type) {
	case *projectionv1.Freshness_Eventual:
		d.level, d.bound, d.after = entities.Eventual, 0, nil
	case *projectionv1.Freshness_Strong:
		d.level, d.bound, d.after = entities.Strong, 0, nil
	case *projectionv1.Freshness_Bounded:
		d.level, d.bound, d.after = entities.Bounded, level.Bounded.AsDuration(), nil
		if d.bound <= 0 {
			return errBounded
		}
	case *projectionv1.Freshness_AtLeast:
		token, err := entities.DecodeToken(app, level.AtLeast)
		if err != nil {
			return err
		}
		d.level, d.bound, d.after = entities.AtLeast, 0, token.Positions
		if token.Latest {
			d.level, d.after = entities.Strong, nil
		}
	}
	return nil
}

// reading is a partition that was read, and what it included.
type reading struct {
	partition int32
	at        At
}

// open opens scans, all at once, each when its partition is fresh enough. The caller closes what
// is returned and not nil, with an error as well.
func (c *call) open(ctx context.Context, scans []*Scan) ([]Rows, error) {
	rows := make([]Rows, len(scans))
	errs := make([]error, len(scans))
	stale := make([]bool, len(scans))
	if len(scans) == 1 {
		rows[0], stale[0], errs[0] = c.openOne(ctx, scans[0])
	} else {
		var all sync.WaitGroup
		for i := range scans {
			all.Go(func() { rows[i], stale[i], errs[i] = c.openOne(ctx, scans[i]) })
		}
		all.Wait()
	}
	for i := range rows {
		if rows[i] != nil {
			c.include(reading{scans[i].Partition, rows[i].At()})
			c.stale = c.stale || stale[i]
		}
	}
	for _, err := range errs {
		if err != nil {
			return rows, err
		}
	}
	return rows, nil
}

// include notes what an answer includes of a partition.
func (c *call) include(r reading) {
	c.stale = c.stale || r.at.Age > c.method.p.definition.Consistency.MaxStaleness
	for i := range c.read {
		if c.read[i].partition == r.partition {
			if r.at.Position > c.read[i].at.Position {
				c.read[i] = r
			}
			return
		}
	}
	c.read = append(c.read, r)
}

// openOne waits until a partition is fresh enough and opens its scan.
func (c *call) openOne(ctx context.Context, scan *Scan) (rows Rows, stale bool, err error) {
	waiting, cancel := context.WithTimeout(ctx, c.patience(ctx))
	defer cancel()
	for {
		reach, asked, err := c.asked(waiting, scan.Partition)
		if err == nil {
			ask := *scan
			ask.Reach = reach
			rows, err = c.service.o.Executor.Open(waiting, &ask)
		}
		switch {
		case err == nil && (c.demand.level != entities.Bounded || c.current(asked)):
			return rows, false, nil
		case err == nil: // the wait was longer than the bound: ask again
			rows.Close()
		case waiting.Err() == nil || ctx.Err() != nil:
			return nil, false, err
		}
		if waiting.Err() != nil {
			return c.late(ctx, scan, reach)
		}
	}
}

// patience is how long to wait. Of the time that the call has, a part is left for the answer.
func (c *call) patience(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return c.demand.wait
	}
	return min(c.demand.wait, time.Until(deadline)*9/10)
}

// askAgain is the pause between two questions to an owner that could not be asked.
const askAgain = 50 * time.Millisecond

// asked is reach. An owner that is not known, or does not answer, is asked again while there is
// time.
func (c *call) asked(ctx context.Context, partition int32) (next int64, asked time.Time, err error) {
	for {
		next, asked, err = c.reach(ctx, partition)
		e, isOurs := errors.AsType[*entities.Error](err)
		if !isOurs || e.Reason != entities.Moved && e.Reason != entities.Unavailable {
			return next, asked, err
		}
		over, stop := c.service.o.Clock.After(askAgain)
		select {
		case <-over:
		case <-ctx.Done():
			stop()
			return 0, asked, err
		}
	}
}

// reach returns the offset up to which a partition must be, and when that was asked for.
func (c *call) reach(ctx context.Context, partition int32) (next int64, asked time.Time, err error) {
	d := &c.demand
	least := max(positionIn(d.after, partition), positionIn(d.pages, partition), c.sessionIn(partition))
	switch d.level {
	case entities.Bounded:
		if next, asked, ok := c.service.o.Freshness.Confirmed(partition); ok && c.current(asked) {
			return max(next, least), asked, nil
		}
	case entities.Strong, entities.Local:
	default:
		return least, asked, nil
	}
	asked = c.service.o.Clock.Now()
	next, err = c.service.o.Freshness.Confirm(ctx, partition)
	return max(next, least), asked, err
}

// current reports whether an answer of the owner is within the bound.
func (c *call) current(asked time.Time) bool {
	return c.service.o.Clock.Now().Sub(asked) <= c.demand.bound
}

// sessionIn is the position of the caller's session in a partition, 0 once the session is dropped.
func (c *call) sessionIn(partition int32) int64 {
	if c.dropped.Load() {
		return 0
	}
	return positionIn(c.demand.session, partition)
}

func positionIn(list []entities.Position, partition int32) int64 {
	for _, p := range list {
		if p.Partition == partition {
			return p.Next
		}
	}
	return 0
}

// late is what happens when the wait is over: a token from the future is told from rows that are
// behind.
func (c *call) late(ctx context.Context, scan *Scan, reach int64) (Rows, bool, error) {
	now := *scan
	now.Reach = 0
	rows, err := c.service.o.Executor.Open(ctx, &now)
	if err != nil {
		return nil, false, err
	}
	session := c.sessionIn(scan.Partition)
	if session == 0 && reach > 0 && reach == positionIn(c.demand.session, scan.Partition) {
		rows.Close() // the session was dropped by another partition's wait
		return c.openOne(ctx, scan)
	}
	if wanted := max(positionIn(c.demand.after, scan.Partition), session); wanted > rows.At().Position {
		asking, cancel := context.WithTimeout(ctx, standardWait)
		end, err := c.service.o.Freshness.Confirm(asking, scan.Partition)
		cancel()
		if err == nil && wanted > end {
			rows.Close()
			if session > 0 { // it is of a journal that is no more
				c.dropped.Store(true)
				return c.openOne(ctx, scan)
			}
			return nil, false, invalid("%s: the token names offset %d of partition %d, and only those below %d are committed: send the millrace-token of an earlier answer",
				c.method.name, wanted, scan.Partition, end)
		}
	}
	if c.demand.staleAllowed {
		return rows, true, nil
	}
	position := rows.At().Position
	rows.Close()
	if reach == 0 {
		return nil, false, entities.Errorf(entities.Deadline, entities.NotApplied,
			"%s: the owner of partition %d did not say within %v how far it is: allow more time with freshness.max_wait, or ask for eventual",
			c.method.name, scan.Partition, c.demand.wait)
	}
	return nil, false, entities.Errorf(entities.Deadline, entities.NotApplied,
		"%s: the rows of partition %d are at offset %d, and %d is wanted; waited %v: allow more time with freshness.max_wait, or take what is there with on_timeout: ON_TIMEOUT_STALE",
		c.method.name, scan.Partition, position, reach, c.demand.wait)
}

// token returns the positions that the answer includes, with those that the caller sent. More than
// a token holds do not extend the caller's.
func (c *call) token() string {
	sent := entities.Token{App: c.service.o.App, Generation: entities.Generation, Positions: c.demand.after}
	answered := entities.Token{App: sent.App, Generation: sent.Generation}
	for _, r := range c.read {
		if r.at.Position > 0 {
			answered.Positions = append(answered.Positions, entities.Position{Partition: r.partition, Next: r.at.Position})
		}
	}
	whole := sent
	whole.Positions = slices.Clone(sent.Positions)
	whole.Merge(&answered)
	if whole.Latest {
		whole = sent
	}
	if len(whole.Positions) == 0 {
		return ""
	}
	return whole.Encode()
}

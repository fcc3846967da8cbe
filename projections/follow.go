package projections

import (
	"bytes"
	"context"
	"slices"

	"github.com/millrace-io/millrace/internal/fields"
	"github.com/millrace-io/millrace/internal/mutation"
)

// Follower waits for changes of rows within a range. What is committed is compared with the ranges
// that could have it, so that a change costs what the followers within its reach cost, however many
// there are of others. It belongs to one goroutine, and must be closed.
//
//	W3  A follower hears of every change within its range that is committed after it has begun, or
//	    that it has to look again. (tell)
//	W4  What Await passes over has no change within the range. (Await)
type Follower struct {
	partition *partition
	ask       Ask
	of        Range
	// woken has a value when one of the fields below has changed.
	woken chan struct{}

	// hit is the offset of the first change within the range that Await has not returned, -1 if there
	// is none. again: there may be any, since the follower began or the datasets have changed. Both
	// are guarded by the lock of the partition.
	hit   int64
	again bool
}

// Follow begins to follow the changes of a range of rows; ask says of which dataset and partition.
// The error is a *NotHereError.
func (e *Engine) Follow(ask Ask, of Range) (*Follower, error) {
	p := e.partition(ask.Partition)
	if p == nil {
		return nil, &NotHereError{ask.Dataset, ask.Partition, Absent, "the worker has no image of the partition"}
	}
	f := &Follower{
		partition: p, ask: ask, of: of, woken: make(chan struct{}, 1), hit: -1, again: !mutation.On(mutation.Heard),
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := p.readable(&ask); err != nil {
		return nil, err
	}
	if p.followers == nil {
		p.followers = map[uint32]followers{}
	}
	if p.followers[ask.Dataset] == nil {
		p.followers[ask.Dataset] = followers{}
	}
	p.followers[ask.Dataset].add(f)
	return f, nil
}

// Close ends the follower.
func (f *Follower) Close() {
	p := f.partition
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.followers[f.ask.Dataset]
	if all.remove(f); len(all) == 0 {
		delete(p.followers, f.ask.Dataset)
	}
}

// Await waits until there may be changes within the range of records from an offset on. It returns
// the offset from which to look for them: those before are of other rows. Errors are *NotHereError,
// and the cause of ctx if that ends before; then no change lies between from and next.
func (f *Follower) Await(ctx context.Context, from int64) (next int64, err error) {
	for {
		found, err := f.look(&from)
		if found || err != nil {
			return from, err
		}
		select {
		case <-f.woken:
		case <-ctx.Done():
			if _, err := f.look(&from); err != nil { // it moves from on
				return from, err
			}
			return from, context.Cause(ctx)
		}
	}
}

// look moves from to where changes may be, or to where the rows are.
func (f *Follower) look(from *int64) (found bool, err error) {
	p := f.partition
	p.mu.Lock()
	defer p.mu.Unlock()
	s, err := p.readable(&f.ask)
	if err != nil {
		return false, err
	}
	// Without a log of changes the caller finds that out by itself.
	found = f.again && (s.stored.Next > *from || s.position.since == 0)
	switch {
	case found:
	case f.hit >= 0:
		found, *from = true, max(*from, f.hit)
	default:
		*from = max(*from, s.position.meta.Next)
	}
	f.hit, f.again = -1, false
	return found, nil
}

// wake notes a change at an offset; -1: there may be any. The lock of the partition is held.
func (f *Follower) wake(offset int64) {
	switch {
	case offset < 0:
		f.again = true
	case f.hit < 0:
		f.hit = offset
	}
	select {
	case f.woken <- struct{}{}:
	default: // it is awake
	}
}

// followers are those of a dataset, by what their ranges are of. The lock of the partition guards
// them.
type followers map[table]*ranges

// table is the rows by key, or an index.
type table struct {
	byIndex bool
	number  uint16
}

// ranges are those of the followers of a table. All tuples of a range begin with the bytes that its
// bounds have in common, so a tuple is compared with the ranges that have its first bytes.
type ranges struct {
	byPrefix map[string][]*sameRange
	// lengths counts the ranges by the lengths of their prefixes, which are few.
	lengths map[int]int
}

// sameRange is the followers of one range.
type sameRange struct {
	of  Range
	all []*Follower
}

func (r *Range) table() table {
	if r.ByIndex {
		return table{true, r.Index}
	}
	return table{}
}

// prefix is what all tuples of the range begin with.
func (r *Range) prefix() []byte {
	n := 0
	for n < len(r.Lower) && n < len(r.Upper) && r.Lower[n] == r.Upper[n] {
		n++
	}
	return r.Lower[:n]
}

func (r *Range) equal(o *Range) bool {
	return bytes.Equal(r.Lower, o.Lower) && bytes.Equal(r.Upper, o.Upper) && (r.Upper == nil) == (o.Upper == nil)
}

func (fs followers) add(f *Follower) {
	rs := fs[f.of.table()]
	if rs == nil {
		rs = &ranges{byPrefix: map[string][]*sameRange{}, lengths: map[int]int{}}
		fs[f.of.table()] = rs
	}
	prefix := f.of.prefix()
	near := rs.byPrefix[string(prefix)]
	i := slices.IndexFunc(near, func(s *sameRange) bool { return s.of.equal(&f.of) })
	if i < 0 {
		i = len(near)
		rs.byPrefix[string(prefix)] = append(near, &sameRange{of: f.of})
		rs.lengths[len(prefix)]++
	}
	s := rs.byPrefix[string(prefix)][i]
	s.all = append(s.all, f)
}

func (fs followers) remove(f *Follower) {
	rs, prefix := fs[f.of.table()], string(f.of.prefix())
	near := rs.byPrefix[prefix]
	i := slices.IndexFunc(near, func(s *sameRange) bool { return s.of.equal(&f.of) })
	s := near[i]
	s.all = slices.DeleteFunc(s.all, func(o *Follower) bool { return o == f })
	if len(s.all) > 0 {
		return
	}
	if rs.byPrefix[prefix] = slices.Delete(near, i, i+1); len(near) == 1 {
		delete(rs.byPrefix, prefix)
	}
	if rs.lengths[len(prefix)]--; rs.lengths[len(prefix)] == 0 {
		delete(rs.lengths, len(prefix))
	}
	if len(rs.byPrefix) == 0 {
		delete(fs, f.of.table())
	}
}

// tell wakes the followers that a change is for.
func (fs followers) tell(c *changeEntry) error {
	entry, err := parseWhole(c.value)
	if err != nil {
		return err
	}
	for t, rs := range fs {
		if !t.byIndex {
			rs.wake(entry.key, c.offset)
			continue
		}
		i := slices.IndexFunc(entry.places, func(p placed) bool { return p.number == t.number })
		if i < 0 { // as for Snapshot.Changes
			rs.wakeAll()
			continue
		}
		before, after := entry.places[i].before, entry.places[i].after
		if before != nil {
			rs.wake(append(bytes.Clone(before), entry.key...), c.offset)
		}
		if after != nil && !bytes.Equal(before, after) {
			rs.wake(append(bytes.Clone(after), entry.key...), c.offset)
		}
	}
	return nil
}

// wake wakes the followers whose range has a tuple.
func (rs *ranges) wake(tuple []byte, offset int64) {
	for n := range rs.lengths {
		if n > len(tuple) {
			continue
		}
		for _, s := range rs.byPrefix[string(tuple[:n])] {
			if !s.of.has(tuple) {
				continue
			}
			for _, f := range s.all {
				f.wake(offset)
			}
		}
	}
}

// wakeAll makes all followers look again.
func (rs *ranges) wakeAll() {
	for _, near := range rs.byPrefix {
		for _, s := range near {
			for _, f := range s.all {
				f.wake(-1)
			}
		}
	}
}

func (fs followers) wakeAll() {
	for _, rs := range fs {
		rs.wakeAll()
	}
}

// tellFollowers tells the followers of a dataset what was committed since they were told last. The
// lock is held.
func (p *partition) tellFollowers(d *dataset) {
	fs := p.followers[d.Number]
	for i := range d.told {
		if len(fs) == 0 {
			break
		}
		if err := fs.tell(&d.told[i]); err != nil { // who looks gets the error
			fs.wakeAll()
			break
		}
	}
	if d.position.stopped || d.failed != nil {
		fs.wakeAll()
	}
	d.told = d.told[:0]
}

// wakeFollowers makes all followers of the partition look again. The lock is held.
func (p *partition) wakeFollowers() {
	for _, fs := range p.followers {
		fs.wakeAll()
	}
}

// placed is where an entry says that a row was and is in an index; nil: it was not, is not.
type placed struct {
	number        uint16
	before, after []byte
}

// wholeEntry is an entry of the log of changes.
type wholeEntry struct {
	key    []byte
	places []placed
}

func parseWhole(value []byte) (e wholeEntry, err error) {
	r := fields.Of(value, errChange)
	for r.Next() && err == nil {
		switch r.Number {
		case changeKey:
			e.key = r.B
		case changeIndex:
			var p placed
			p.number, p.before, p.after, err = parseChangeIndex(r.B)
			e.places = append(e.places, p)
		}
	}
	if err == nil {
		err = r.Err
	}
	return e, err
}

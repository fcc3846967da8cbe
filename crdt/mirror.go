package crdt

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/millrace-io/millrace/internal/mutation"
)

// Mirror has the records of one entity as a holder read them: the newest snapshot of which it has
// all parts, the deltas behind it, and parts of snapshots that are not whole yet. Tombstones mean
// nothing to it.
type Mirror struct {
	options Options
	through int64
	base    *State
	deltas  []mirrored
	parts   map[snapshotKey]map[int]*Part
	now     *State
	deleted bool
}

type mirrored struct {
	at    at
	delta *Delta
}

type snapshotKey struct {
	through int64
	nonce   uint64
}

// NewMirror returns the mirror of an entity of which nothing was read.
func NewMirror(o Options) *Mirror {
	return &Mirror{
		options: o, through: -1, base: NewState(o), parts: map[snapshotKey]map[int]*Part{}, now: NewState(o),
	}
}

// Now returns the state folded through all that was read. It belongs to the mirror: do not change
// it.
func (m *Mirror) Now() *State { return m.now }

// Through is the offset that the newest whole snapshot covers, -1 without one.
func (m *Mirror) Through() int64 { return m.through }

// Take adds the delta at an offset and returns which of its commands are void; nil if a snapshot
// covers it, or it was read before. After an error the holder is not complete (see State.Apply).
func (m *Mirror) Take(offset, millis int64, d *Delta) ([]Void, error) {
	if offset <= m.through || len(m.deltas) > 0 && offset <= m.deltas[len(m.deltas)-1].at.offset {
		return nil, nil
	}
	voids, err := m.now.Apply(offset, millis, d)
	if err != nil {
		return nil, err
	}
	m.deltas = append(m.deltas, mirrored{at{offset, millis}, d})
	return voids, nil
}

// TakeDelete notes that the entity was deleted.
func (m *Mirror) TakeDelete() {
	m.deleted, m.deltas = true, nil
	m.base.Delete()
	m.now.Delete()
}

// TakePart adds a part of a snapshot. With the last part, a snapshot above the one so far takes its
// place. After an error (ErrNewer, or parts that do not fit each other) the holder is not complete.
func (m *Mirror) TakePart(p *Part) error {
	key := snapshotKey{p.Through, p.Nonce}
	if mutation.On(mutation.DeltaNonce) {
		key.nonce = 0
	}
	if p.Through <= m.through && !mutation.On(mutation.DeltaHighest) {
		return nil
	}
	if m.parts[key] == nil {
		m.parts[key] = map[int]*Part{}
	}
	m.parts[key][p.Index] = p
	if len(m.parts[key]) < p.Count && !mutation.On(mutation.DeltaParts) {
		return nil
	}
	var parts []*Part
	for _, i := range slices.Sorted(maps.Keys(m.parts[key])) {
		parts = append(parts, m.parts[key][i])
	}
	base, err := Join(m.options, parts)
	if err != nil {
		return err
	}
	return m.rebase(p.Through, base)
}

// rebase puts a snapshot in the place of the one so far, and of the deltas that it covers.
func (m *Mirror) rebase(through int64, base *State) error {
	if m.deleted {
		base.Delete()
	}
	tail, _ := slices.BinarySearchFunc(m.deltas, through+1, func(d mirrored, offset int64) int {
		return cmp.Compare(d.at.offset, offset)
	})
	m.through, m.base, m.deltas = through, base, slices.Clone(m.deltas[tail:])
	maps.DeleteFunc(m.parts, func(k snapshotKey, _ map[int]*Part) bool { return k.through <= through })
	now, err := m.Fold(math.MaxInt64)
	if err != nil {
		return err
	}
	m.now = now
	return nil
}

// Fold returns the state folded through an offset, which must not be below Through. The caller owns
// it.
func (m *Mirror) Fold(through int64) (*State, error) {
	s := m.base.Clone()
	for _, d := range m.deltas {
		if d.at.offset > through {
			break
		}
		if _, err := s.Apply(d.at.offset, d.at.millis, d.delta); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Covers returns the highest offset through which a snapshot may be written, when the partition was
// read up to next, exclusive, and the owner's journal has adopted effects and timers up to adopted,
// exclusive. It stays below the first command that owes some: a snapshot does not tell who does.
func (m *Mirror) Covers(next, adopted int64) int64 {
	if mutation.On(mutation.DeltaOwed) {
		return next - 1
	}
	for _, d := range m.deltas {
		owes := slices.ContainsFunc(d.delta.Commands, func(c Command) bool { return c.Owes })
		if d.at.offset >= adopted && owes {
			return min(next, d.at.offset) - 1
		}
	}
	return next - 1
}

// Snapshot returns the parts of a snapshot through an offset, squashed, none much above maxBytes.
// Through must be above Through of the mirror and at most what Covers says.
func (m *Mirror) Snapshot(through int64, nonce uint64, maxBytes int) ([]*Part, error) {
	if through <= m.through {
		return nil, fmt.Errorf("a snapshot through offset %d is not above the one through %d", through, m.through)
	}
	s, err := m.Fold(through)
	if err != nil {
		return nil, err
	}
	s.Squash(through)
	return s.Split(through, nonce, maxBytes), nil
}

// Owed is a command whose effects or timers the owner is to adopt.
type Owed struct {
	Offset int64
	// Index is the place of the command in its record.
	Index  int
	Writer Writer
	N      uint64
}

// Owes returns the commands that owe effects or timers, are not void, and lie at or behind adopted.
// What a snapshot covers is not among them: see Covers.
func (m *Mirror) Owes(adopted int64) ([]Owed, error) {
	s := m.base.Clone()
	var owed []Owed
	for _, d := range m.deltas {
		voids, err := s.Apply(d.at.offset, d.at.millis, d.delta)
		if err != nil {
			return nil, err
		}
		for i, void := range voids {
			c := &d.delta.Commands[i]
			if void == Effective && c.Owes && d.at.offset >= adopted {
				owed = append(owed, Owed{Offset: d.at.offset, Index: i, Writer: d.delta.Writer, N: c.N})
			}
		}
	}
	return owed, nil
}

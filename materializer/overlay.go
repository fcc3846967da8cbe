package materializer

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
)

// overlay takes rows in memory during a bulk rebuild and gives them back sorted, newest value of
// each key only. It holds no pointers but its few slices, so that millions of rows cost the garbage
// collector nothing.
//
// Rows are grouped by entity: a fold touches one entity's rows many times in a row, and only
// entities need to be sorted among each other.
type overlay struct {
	arena  []byte
	groups map[string]int32
	list   []overlayGroup
	rows   []overlayRow
}

type overlayGroup struct {
	prefix span
	// first and last row of a chain through rows; 0 is none (row 0 is never used).
	first, last int32
	// single[i] is the newest row of the kind with slot i+1.
	single [overlaySlots]int32
}

// overlaySlots is how many kinds of rows have a slot.
const overlaySlots = 2

type overlayRow struct {
	suffix, value span
	next          int32
	deleted       bool
}

// span is a piece of the arena.
type span struct{ start, size uint32 }

func newOverlay(bytes int) *overlay {
	o := &overlay{arena: make([]byte, 0, bytes)}
	o.reset()
	return o
}

func (o *overlay) reset() {
	o.arena = o.arena[:0]
	o.groups = make(map[string]int32, len(o.groups))
	o.list = o.list[:0]
	o.rows = append(o.rows[:0], overlayRow{})
}

// size is the memory that is filled, in bytes.
func (o *overlay) size() int { return len(o.arena) + len(o.rows)*24 + len(o.list)*96 }

// Put sets a row.
func (o *overlay) Put(key, value []byte) error {
	o.set(key, value, false)
	return nil
}

// Delete remembers that a row is gone.
func (o *overlay) Delete(key []byte) error {
	o.set(key, nil, true)
	return nil
}

func (o *overlay) set(key, value []byte, deleted bool) {
	cut := entityPrefix(key)
	g := o.group(key[:cut])
	suffix := key[cut:]
	slot := singleSlot(suffix)
	if slot >= 0 && g.single[slot] != 0 {
		row := &o.rows[g.single[slot]]
		row.value, row.deleted = o.keep(value), deleted
		return
	}
	n := int32(len(o.rows)) //nolint:gosec // bounded by the arena
	o.rows = append(o.rows, overlayRow{suffix: o.keep(suffix), value: o.keep(value), deleted: deleted})
	if g.first == 0 {
		g.first = n
	} else {
		o.rows[g.last].next = n
	}
	g.last = n
	if slot >= 0 {
		g.single[slot] = n
	}
}

func singleSlot(suffix []byte) int {
	if len(suffix) != 1 {
		return -1
	}
	if k := entityRows[suffix[0]]; k != nil {
		return k.slot - 1
	}
	return -1
}

func (o *overlay) group(prefix []byte) *overlayGroup {
	if i, known := o.groups[string(prefix)]; known {
		return &o.list[i]
	}
	o.groups[string(prefix)] = int32(len(o.list)) //nolint:gosec // bounded by the arena
	o.list = append(o.list, overlayGroup{prefix: o.keep(prefix)})
	return &o.list[len(o.list)-1]
}

func (o *overlay) keep(b []byte) span {
	s := span{uint32(len(o.arena)), uint32(len(b))} //nolint:gosec // bounded by the arena
	o.arena = append(o.arena, b...)
	return s
}

func (o *overlay) bytes(s span) []byte { return o.arena[s.start : s.start+s.size] }

// entityPrefix returns the length of the part of a key that all rows of its entity share; rows that
// belong to no entity share address and kind.
func entityPrefix(key []byte) int {
	const header = 5
	if len(key) <= header || key[header-1] != rowEntity {
		return min(header, len(key))
	}
	n := header
	for range 2 {
		size, w := binary.Uvarint(key[n:])
		n += w + int(size) //nolint:gosec // written by appendEntity
	}
	return n
}

// sorted returns a function that yields all rows in key order. With dropDeleted, removals are left
// out: right when nothing lies below.
func (o *overlay) sorted(dropDeleted bool) func() (Row, bool) {
	slices.SortFunc(o.list, func(a, b overlayGroup) int { return bytes.Compare(o.bytes(a.prefix), o.bytes(b.prefix)) })
	var (
		next  int
		chain []int32
		key   []byte
	)
	return func() (Row, bool) {
		for {
			if len(chain) == 0 {
				if next == len(o.list) {
					return Row{}, false
				}
				chain = o.chain(&o.list[next], chain)
				key = append(key[:0], o.bytes(o.list[next].prefix)...)
				next++
			}
			row := &o.rows[chain[0]]
			chain = chain[1:]
			if row.deleted && dropDeleted {
				continue
			}
			prefix := o.list[next-1].prefix.size
			key = append(key[:prefix], o.bytes(row.suffix)...)
			return Row{Key: key, Value: o.bytes(row.value), Delete: row.deleted}, true
		}
	}
}

// chain returns a group's rows sorted by suffix, the newest of each.
func (o *overlay) chain(g *overlayGroup, buf []int32) []int32 {
	buf = buf[:0]
	for n := g.first; n != 0; n = o.rows[n].next {
		buf = append(buf, n)
	}
	slices.SortFunc(buf, func(a, b int32) int {
		if c := bytes.Compare(o.bytes(o.rows[a].suffix), o.bytes(o.rows[b].suffix)); c != 0 {
			return c
		}
		return cmp.Compare(b, a)
	})
	return slices.CompactFunc(buf, func(a, b int32) bool {
		return bytes.Equal(o.bytes(o.rows[a].suffix), o.bytes(o.rows[b].suffix))
	})
}

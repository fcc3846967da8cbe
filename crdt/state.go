package crdt

import (
	"maps"
	"slices"
)

// Options are the same for all holders of a topic; they stand in its first record.
type Options struct {
	// Window is how far, in offsets, Command.Seen may be behind the record of the command.
	Window int64
	// IDWindow is how long an id is known, in milliseconds of the entity's log time.
	IDWindow int64
	// KeepWriters keeps contributions of different writers apart behind the window, for types that
	// do not show what lost writers contributed.
	KeepWriters bool
}

// contribution is what one command put into a leaf. One that stands for several, behind the window,
// has the highest of their offsets.
type contribution struct {
	offset int64
	writer Writer
	n      uint64
	// What follows is set by type: a counter's amount; a register's clock, reverse and value; a vote.
	amount  int64
	clock   int64
	reverse bool
	value   Element
	yes     bool
}

// node is a value: the entity itself, or what lies under a key.
type node struct {
	typ Type
	// own are contributions to a counter, register, flag or vote.
	own []contribution
	// touches keep the key present under which the node lies.
	touches  []contribution
	elements map[Element][]contribution
	keys     map[Element][]*node
}

func (v *node) empty() bool {
	return len(v.own) == 0 && len(v.touches) == 0 && len(v.elements) == 0 && len(v.keys) == 0
}

func (v *node) clone() *node {
	c := &node{typ: v.typ, own: slices.Clone(v.own), touches: slices.Clone(v.touches)}
	if v.elements != nil {
		c.elements = make(map[Element][]contribution, len(v.elements))
		for _, e := range sortedElements(v.elements) {
			c.elements[e] = slices.Clone(v.elements[e])
		}
	}
	if v.keys != nil {
		c.keys = make(map[Element][]*node, len(v.keys))
		for _, k := range sortedElements(v.keys) {
			for _, child := range v.keys[k] {
				c.keys[k] = append(c.keys[k], child.clone())
			}
		}
	}
	return c
}

// child finds the value of a type under a key, nil if there is none.
func (v *node) child(s Step) *node {
	for _, c := range v.keys[s.Key] {
		if c.typ == s.Type {
			return c
		}
	}
	return nil
}

// grow is child, and makes it where it is missing. Values under one key are in the order of types.
func (v *node) grow(s Step) *node {
	if c := v.child(s); c != nil {
		return c
	}
	if v.keys == nil {
		v.keys = map[Element][]*node{}
	}
	c := &node{typ: s.Type}
	below := append(v.keys[s.Key], c)
	slices.SortFunc(below, func(a, b *node) int { return int(a.typ) - int(b.typ) })
	v.keys[s.Key] = below
	return c
}

func sortedElements[V any](m map[Element]V) []Element {
	return slices.SortedFunc(maps.Keys(m), compareElements)
}

// lastOf is the last number of a writer that was folded, and the offset of its record.
type lastOf struct {
	n      uint64
	offset int64
}

// KnownID is what the state keeps of a command that had an id.
type KnownID struct {
	Offset int64
	// Millis is the entity's log time at that offset.
	Millis       int64
	Hash, Answer []byte
}

// State is the value of one entity, folded up to some offset.
type State struct {
	options Options
	root    node
	deleted bool
	// millis is the entity's log time: the highest time of its records, in milliseconds.
	millis  int64
	writers map[Writer]lastOf
	ids     map[ID]KnownID
}

// NewState returns the state of an entity without records.
func NewState(o Options) *State {
	return &State{options: o, writers: map[Writer]lastOf{}, ids: map[ID]KnownID{}}
}

// Clone returns a copy that shares nothing that Apply changes.
func (s *State) Clone() *State {
	return &State{
		options: s.options, root: *s.root.clone(), deleted: s.deleted, millis: s.millis,
		writers: maps.Clone(s.writers), ids: maps.Clone(s.ids),
	}
}

// Type returns the type of the entity, 0 before its first change.
func (s *State) Type() Type { return s.root.typ }

// Deleted reports whether the entity was deleted, which is for good.
func (s *State) Deleted() bool { return s.deleted }

// Known returns what the state keeps of an id; false when it is not known, or no longer.
func (s *State) Known(id ID) (KnownID, bool) {
	row, ok := s.ids[id]
	return row, ok && s.millis-row.Millis < s.options.IDWindow
}

package materializer

import (
	"bytes"
	"maps"
	"slices"
	"strings"
)

// Types are entity types. The zero value has none. It is not changed after it was made.
type Types struct {
	every bool
	names map[string]struct{}
}

// EveryType has all types, and the records that belong to no entity.
func EveryType() Types { return Types{every: true} }

// TypesOf returns the types with these names.
func TypesOf(names ...string) Types {
	t := Types{names: make(map[string]struct{}, len(names))}
	for _, name := range names {
		t.names[name] = struct{}{}
	}
	return t
}

// String returns the names, in order.
func (t Types) String() string {
	if t.every {
		return "every type"
	}
	return strings.Join(slices.Sorted(maps.Keys(t.names)), ", ")
}

// has reports whether a record with this key is of one of the types.
func (t Types) has(key []byte) bool {
	if t.every {
		return true
	}
	typ, _, found := bytes.Cut(key, []byte{'/'})
	if !found {
		return false
	}
	_, named := t.names[string(typ)]
	return named
}

// cover reports whether the types have all of others.
func (t Types) cover(others Types) bool {
	if t.every || others.every {
		return t.every
	}
	for name := range others.names {
		if _, named := t.names[name]; !named {
			return false
		}
	}
	return true
}

// with returns the types of both.
func (t Types) with(others Types) Types {
	switch {
	case t.every, t.cover(others):
		return t
	case others.every:
		return others
	}
	names := maps.Clone(others.names)
	if names == nil {
		names = map[string]struct{}{}
	}
	maps.Copy(names, t.names)
	return Types{names: names}
}

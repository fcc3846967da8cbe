package materializer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/entities"
)

// Listed is an entity in a list.
type Listed struct {
	Key  entities.Key
	Head Head
	// Value is that of a value entity. It is valid only during the call.
	Value *entities.Payload
}

// jumpAfter is how many rows of an entity are read through before the rest is jumped over: a new
// scan costs about as much.
const jumpAfter = 16

// Entities yields the entities of a type whose ids begin with prefix, in the order of their keys
// (length of the id, then id), until yield returns false. It begins behind the id after, if that is
// not empty. Entities whose value was deleted are left out.
func (p Partition) Entities(typ, prefix, after string, yield func(Listed) bool) error {
	walk := walk{p: p, prefix: prefix, yield: yield}
	walk.ofType = p.Address.row(nil, rowEntity)
	walk.ofType = append(binary.AppendUvarint(walk.ofType, uint64(len(typ))), typ...)
	from := walk.ofType
	if after != "" {
		from = behind(appendEntity(nil, p.Address, typ, after))
	}
	for from != nil {
		walk.next, walk.passed = nil, 0
		if err := errors.Join(p.Rows.Scan(from, behind(walk.ofType), walk.row), walk.failed); err != nil {
			return err
		}
		from = walk.next
	}
	return nil
}

// behind returns the first key that does not begin with the end of a prefix. Its last byte is a
// letter, a part of a text, or the length of an empty one.
func behind(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// walk goes through the rows of a type, and jumps over those that are not needed.
type walk struct {
	p      Partition
	ofType []byte
	prefix string
	yield  func(Listed) bool

	// passed are the rows of the present entity, entity, that were read for nothing.
	passed int
	entity []byte
	// head is the key of the present entity's head.
	head []byte
	// next is where a new scan is to begin; nil: all was seen.
	next   []byte
	failed error
}

// row looks at one row, and returns whether the next one is of interest.
func (w *walk) row(key, value []byte) bool {
	cut := entityPrefix(key)
	size, width := binary.Uvarint(key[len(w.ofType):])
	if width <= 0 || cut >= len(key) || len(key)-len(w.ofType)-width < int(size) { //nolint:gosec // compared only
		w.failed = fmt.Errorf("%w: the key %x names no entity", ErrCorrupt, key)
		return false
	}
	id := key[len(w.ofType)+width : cut]
	if !bytes.HasPrefix(id, []byte(w.prefix)) {
		sameLength := key[:len(w.ofType)+width]
		if len(id) >= len(w.prefix) && string(id) < w.prefix {
			w.next = append(bytes.Clone(sameLength), w.prefix...)
		} else {
			w.next = behind(sameLength)
		}
		return false
	}
	if !bytes.Equal(key[:cut], w.entity) {
		w.entity, w.passed = append(w.entity[:0], key[:cut]...), 0
	}
	w.head = entityRow(append(w.head[:0], key[:cut]...), entityHead)
	if order := bytes.Compare(key, w.head); order != 0 {
		if w.passed++; w.passed < jumpAfter {
			return true
		}
		if w.next = bytes.Clone(w.head); order > 0 {
			w.next = behind(key[:cut])
		}
		return false
	}
	head, content, err := parseHead(value)
	if err != nil || head.Deleted {
		w.failed = err
		return err == nil
	}
	listed := Listed{Key: entityOf(key), Head: head}
	if len(content) > 0 {
		_, payload, err := parseContent(content)
		if err != nil {
			w.failed = fmt.Errorf("%s: %w", listed.Key, err)
			return false
		}
		listed.Value = &payload
	}
	return w.yield(listed)
}

// TypeCount is the number of entities of a type.
type TypeCount struct {
	Type  string
	Kind  entities.Kind
	Count int64
}

// Types counts the entities of each type. more is asked now and then whether to go on.
func (p Partition) Types(more func() bool) ([]TypeCount, error) {
	var counts []TypeCount
	from, upper := p.Address.rows(rowEntity)
	for {
		var typ []byte
		if err := p.Rows.Scan(from, upper, func(key, _ []byte) bool {
			size, width := binary.Uvarint(key[addressSize+1:])
			typ = bytes.Clone(key[addressSize+1+width:][:size])
			return false
		}); err != nil || typ == nil {
			return counts, err
		}
		c := TypeCount{Type: string(typ)}
		if err := p.Entities(c.Type, "", "", func(e Listed) bool {
			c.Count, c.Kind = c.Count+1, e.Head.Kind
			return c.Count%1024 != 0 || more()
		}); err != nil {
			return counts, err
		}
		if c.Count > 0 {
			counts = append(counts, c)
		}
		if !more() {
			return counts, nil
		}
		from = p.Address.row(nil, rowEntity)
		from = behind(append(binary.AppendUvarint(from, uint64(len(typ))), typ...))
	}
}

// TimersOf yields the timers of an entity, by name, until yield returns false.
func (p Partition) TimersOf(key entities.Key, yield func(name string, t Timer) bool) error {
	prefix := appendEntity(nil, p.Address, key.Type, key.ID)
	lower, upper := entityRow(bytes.Clone(prefix), entityTimer), append(prefix, entityTimer+1)
	var failed error
	err := p.Rows.Scan(lower, upper, func(row, value []byte) bool {
		var t Timer
		if t, failed = parseTimer(bytes.Clone(value)); failed != nil {
			return false
		}
		return yield(timerName(row), t)
	})
	return errors.Join(err, failed)
}

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

// Entities yields the entities of a type whose ids begin with prefix, in the order of their keys
// (length of the id, then id), until yield returns false. It begins behind the id after, if that is
// not empty. Entities whose value was deleted are left out.
func (p Partition) Entities(typ, prefix, after string, yield func(Listed) bool) (err error) {
	ofType := binary.AppendUvarint(p.Address.row(nil, rowEntity), uint64(len(typ)))
	ofType = append(ofType, typ...)
	from := ofType
	if after != "" {
		from = behind(appendEntity(nil, p.Address, typ, after))
	}
	rows := p.Rows.Iterator(from, behind(ofType))
	defer func() { err = errors.Join(err, rows.Close()) }()
	var head []byte
	for more := rows.First(); more; {
		key := rows.Key()
		cut := entityPrefix(key)
		size, width := binary.Uvarint(key[len(ofType):])
		if width <= 0 || cut >= len(key) || len(key)-len(ofType)-width < int(size) { //nolint:gosec // compared only
			return fmt.Errorf("%w: the key %x names no entity", ErrCorrupt, key)
		}
		sameLength, id := key[:len(ofType)+width], key[len(ofType)+width:cut]
		switch {
		case bytes.HasPrefix(id, []byte(prefix)):
		case len(id) >= len(prefix) && string(id) < prefix:
			more = rows.SeekGE(append(bytes.Clone(sameLength), prefix...))
			continue
		default:
			more = rows.SeekGE(behind(sameLength))
			continue
		}
		head = entityRow(append(head[:0], key[:cut]...), entityHead)
		if !forward(rows, head) {
			return nil
		}
		if bytes.Equal(rows.Key(), head) {
			entity, err := listed(rows)
			if err != nil || !entity.Head.Deleted && !yield(entity) {
				return err
			}
		}
		more = forward(rows, append(head[:cut], 0xff)) //nolint:gocritic // above the kinds of its rows
	}
	return nil
}

// jumpAfter is how many rows are read through before the rest is jumped over: a seek costs about as
// much.
const jumpAfter = 16

// forward moves to the first row that is not below the key, from one below it or at it.
func forward(rows Iterator, key []byte) bool {
	for range jumpAfter {
		if bytes.Compare(rows.Key(), key) >= 0 {
			return true
		}
		if !rows.Next() {
			return false
		}
	}
	return rows.SeekGE(key)
}

// listed reads the entity whose head is the present row.
func listed(rows Iterator) (Listed, error) {
	head, content, err := parseHead(rows.Value())
	if err != nil || head.Deleted {
		return Listed{Head: head}, err
	}
	l := Listed{Key: entityOf(rows.Key()), Head: head}
	if len(content) > 0 {
		_, payload, err := parseContent(content)
		if err != nil {
			return l, fmt.Errorf("%s: %w", l.Key, err)
		}
		l.Value = &payload
	}
	return l, nil
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

// TypeCount is the number of entities of a type. More: there are more than were counted.
type TypeCount struct {
	Type  string
	Kind  entities.Kind
	Count int64
	More  bool
}

// Types counts the entities of each type, at most so many if most is not 0. more is asked now and
// then whether to go on.
func (p Partition) Types(most int64, more func() bool) ([]TypeCount, error) {
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
			if c.More = most > 0 && c.Count == most; c.More {
				return false
			}
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

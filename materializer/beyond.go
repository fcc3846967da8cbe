package materializer

import (
	"encoding/binary"
	"fmt"

	"github.com/millrace-io/millrace/entities"
)

// Beyond counts what a partition's rows hold of records at or behind an offset: what is in danger when the log ends there.
type Beyond struct {
	// Records are those of entities: events, values, snapshots. Entities have some of them.
	Records, Entities int64
	// Commands are those whose answers are remembered, effects of other partitions included; Effects are open ones, Timers are set.
	Commands, Effects, Timers int64
	// Examples are the first entities, as type/id.
	Examples []string
}

// Empty says whether there is nothing.
func (b *Beyond) Empty() bool {
	return b.Records+b.Entities+b.Commands+b.Effects+b.Timers == 0
}

// Beyond looks at every row of the partition.
func (p Partition) Beyond(offset int64, examples int) (Beyond, error) {
	var (
		b      Beyond
		failed error
	)
	lower, upper := p.Address.Range()
	err := p.Rows.Scan(lower, upper, func(key, value []byte) bool {
		failed = b.add(key, value, offset, examples)
		return failed == nil
	})
	if err == nil {
		err = failed
	}
	return b, err
}

func (b *Beyond) add(key, value []byte, offset int64, examples int) error {
	switch key[addressSize] {
	case rowOutbox:
		if tailOffset(key) >= offset {
			b.Effects++
		}
	case rowDelivered:
		if len(key) == sourceHeader {
			return nil
		}
		return b.command(value, offset)
	case rowEntity:
		cut := entityPrefix(key)
		switch key[cut] {
		case entityIndex:
			if tailOffset(key) >= offset {
				b.Records++
			}
		case entityHead:
			head, _, err := parseHead(value)
			if err != nil || head.Offset < offset {
				return err
			}
			if b.Entities++; len(b.Examples) < examples {
				b.Examples = append(b.Examples, entityOf(key).String())
			}
		case entityDedup:
			return b.command(value, offset)
		case entityTimer:
			d := decoder{rest: value}
			if set := d.varint(); set >= offset {
				b.Timers++
			}
			return d.error("timer of an entity")
		}
	}
	return nil
}

func (b *Beyond) command(value []byte, offset int64) error {
	stored, err := parseStored(value)
	if err == nil && stored.Offset >= offset {
		b.Commands++
	}
	return err
}

// addressSize is the length of the address at the start of every key.
const addressSize = 4

// tailOffset is the offset at the end of a key.
func tailOffset(key []byte) int64 {
	return int64(binary.BigEndian.Uint64(key[len(key)-8:])) //nolint:gosec // offsets are positive
}

// entityOf returns the entity of one of its rows.
func entityOf(key []byte) entities.Key {
	d := decoder{rest: key[addressSize+1:]}
	typ := d.bytes(d.uvarint())
	id := d.bytes(d.uvarint())
	return entities.Key{Type: string(typ), ID: string(id)}
}

// rowName says what a row is, for people.
func rowName(key []byte) string {
	if len(key) <= addressSize {
		return fmt.Sprintf("row %x", key)
	}
	switch kind := key[addressSize]; kind {
	case rowEntity:
		what := map[byte]string{
			entityHead: "head", entityState: "snapshot", entityTail: "event", entityIndex: "index", entityDedup: "stored answer", entityTimer: "timer",
		}[key[entityPrefix(key)]]
		switch key[entityPrefix(key)] {
		case entityTail, entityIndex:
			return fmt.Sprintf("%s: %s %d", entityOf(key), what, tailOffset(key))
		case entityTimer:
			return fmt.Sprintf("%s: timer %q", entityOf(key), key[entityPrefix(key)+1:])
		default:
			return fmt.Sprintf("%s: %s", entityOf(key), what)
		}
	case rowMeta:
		return "position"
	case rowOutbox, rowParked:
		return fmt.Sprintf("effect of offset %d", tailOffset(key))
	case rowRefused:
		return fmt.Sprintf("refusal of offset %d", tailOffset(key))
	case rowDelivered:
		return fmt.Sprintf("effect of partition %d", binary.BigEndian.Uint16(key[addressSize+3:]))
	default:
		return fmt.Sprintf("row %c %x", kind, key[addressSize+1:])
	}
}

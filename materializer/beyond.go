package materializer

import (
	"github.com/millrace-io/millrace/entities"
)

// Beyond counts what a partition's rows hold of records at or after an offset: what may be lost
// when the log ends there.
type Beyond struct {
	// Records are those of entities: events, values, snapshots. Entities have some of them.
	Records, Entities int64
	// Commands are those whose answers are remembered, effects of other partitions included;
	// Effects are open ones, Timers are set.
	Commands, Effects, Timers int64
	// Examples are the first entities, as type/id.
	Examples []string
}

// Empty reports whether there is nothing.
func (b *Beyond) Empty() bool {
	return b.Records+b.Entities+b.Commands+b.Effects+b.Timers == 0
}

// Beyond reads every row of the partition.
func (p Partition) Beyond(offset int64, examples int) (Beyond, error) {
	c := count{offset: offset, examples: examples}
	var failed error
	lower, upper := p.Address.Range()
	err := p.Rows.Scan(lower, upper, func(key, value []byte) bool {
		if k, _ := kindOf(key); k != nil && k.beyond != nil {
			failed = k.beyond(&c, key, value)
		}
		return failed == nil
	})
	if err == nil {
		err = failed
	}
	return c.Beyond, err
}

// count counts rows by their kinds (rowKind.beyond).
type count struct {
	Beyond

	offset   int64
	examples int
}

func (c *count) index(key, _ []byte) error {
	if tailOffset(key) >= c.offset {
		c.Records++
	}
	return nil
}

func (c *count) head(key, value []byte) error {
	head, _, err := parseHead(value)
	if err != nil || head.Offset < c.offset {
		return err
	}
	if c.Entities++; len(c.Examples) < c.examples {
		c.Examples = append(c.Examples, entityOf(key).String())
	}
	return nil
}

func (c *count) timer(_, value []byte) error {
	d := decoder{rest: value}
	if set := d.varint(); set >= c.offset {
		c.Timers++
	}
	return d.error("timer of an entity")
}

func (c *count) effect(key, _ []byte) error {
	if tailOffset(key) >= c.offset {
		c.Effects++
	}
	return nil
}

func (c *count) delivered(key, value []byte) error {
	if len(key) == sourceHeader {
		return nil // how far the source has settled
	}
	return c.command(key, value)
}

func (c *count) command(_, value []byte) error {
	stored, err := parseStored(value)
	if err == nil && stored.Offset >= c.offset {
		c.Commands++
	}
	return err
}

// entityOf returns the entity of one of its rows.
func entityOf(key []byte) entities.Key {
	d := decoder{rest: key[addressSize+1:]}
	typ := d.bytes(d.uvarint())
	id := d.bytes(d.uvarint())
	return entities.Key{Type: string(typ), ID: string(id)}
}

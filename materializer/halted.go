package materializer

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
)

// Halt is the mark of a halted partition. It is stored beside the rows of the fold, so that a
// restart keeps what only a running worker could detect; the rows themselves stay as they were.
type Halt struct {
	// Position is the offset after the last one that was known to be used.
	Position int64
	// Why is the cause, for people.
	Why string
}

// ErrTopicReplaced: the journal was deleted and created again.
var ErrTopicReplaced = errors.New("the journal is not the one that the store was folded from")

// ErrHaltedBefore: the store has the mark of a halted partition that was not repaired since.
var ErrHaltedBefore = errors.New("halted before this start")

// ErrOnlyCopy: the store has another format and would be folded anew, and the log has lost a part
// of what it was folded from.
var ErrOnlyCopy = errors.New("the store may be the only copy of what the log has lost")

// TopicReplaced returns ErrTopicReplaced with the ids of both topics.
func TopicReplaced(stored, found string) error {
	return fmt.Errorf("%w: it was topic id %s, now it is %s", ErrTopicReplaced, stored, found)
}

// Halts reports whether an error means that data is gone or unreadable, so that going on would hide
// it.
func Halts(err error) bool {
	for _, cause := range []error{
		broker.ErrOutOfRange, broker.ErrRegressed, entities.ErrLayout, ErrUnfoldable, ErrLost, ErrTopicReplaced,
		ErrHaltedBefore, ErrOnlyCopy,
	} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}

// Halted returns the partition's mark; ok is false when it has none.
func (p Partition) Halted() (h Halt, ok bool, err error) {
	b, err := p.Rows.Get(p.Address.haltedKey())
	if err != nil || b == nil {
		return Halt{}, false, err
	}
	d := decoder{rest: b}
	h.Position = d.varint()
	h.Why = string(d.rest)
	err = d.error("row of a halted partition")
	return h, err == nil, err
}

// MarkHalted sets the mark, durably.
func MarkHalted(store Store, a Address, h Halt) error {
	batch := store.NewBatch()
	defer batch.Close() //nolint:errcheck // nothing to lose
	return errors.Join(batch.Put(a.haltedKey(), append(binary.AppendVarint(nil, h.Position), h.Why...)), batch.Commit(),
		store.Flush())
}

// Resume removes the marks of a halted partition and of a suspected log, durably: the log is again
// what was folded.
func Resume(store Store, a Address) error {
	batch := store.NewBatch()
	defer batch.Close() //nolint:errcheck // nothing to lose
	return errors.Join(batch.Delete(a.haltedKey()), batch.Delete(a.suspectedKey()), batch.Commit(), store.Flush())
}

// Suspected returns the mark of a partition whose log below the store's position must be searched
// for losses; ok is false when it has none. damage is what an earlier search has found; empty:
// nothing yet.
func (p Partition) Suspected() (damage string, ok bool, err error) {
	b, err := p.Rows.Get(p.Address.suspectedKey())
	return string(b), b != nil, err
}

// MarkSuspected sets the mark of some partitions, durably.
func MarkSuspected(store Store, damage string, of ...Address) error {
	batch := store.NewBatch()
	defer batch.Close() //nolint:errcheck // nothing to lose
	for _, a := range of {
		if err := batch.Put(a.suspectedKey(), []byte(damage)); err != nil {
			return err
		}
	}
	return errors.Join(batch.Commit(), store.Flush())
}

// ClearSuspected removes the mark, durably: the log was searched and has everything.
func ClearSuspected(store Store, a Address) error {
	batch := store.NewBatch()
	defer batch.Close() //nolint:errcheck // nothing to lose
	return errors.Join(batch.Delete(a.suspectedKey()), batch.Commit(), store.Flush())
}

// StartOver forgets everything of the partition, the mark too, so that it is folded anew: from
// start on, which is 0 unless the log has lost its beginning. Both steps are durable; between them
// an empty partition is folded from 0.
func StartOver(store Store, a Address, topicID string, start int64) error {
	lower, upper := a.Range()
	if err := store.DropRange(lower, upper); err != nil || start == 0 {
		return err
	}
	meta := MetaFrom(topicID, start)
	batch := store.NewBatch()
	defer batch.Close() //nolint:errcheck // the log has it
	return errors.Join(batch.Put(a.metaKey(), meta.Append(nil)), batch.Commit(), store.Flush())
}

func (a Address) haltedKey() []byte { return a.row(nil, rowHalted) }

func (a Address) suspectedKey() []byte { return a.row(nil, rowSuspected) }

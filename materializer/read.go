package materializer

import (
	"bytes"
	"errors"

	"github.com/millrace-io/millrace/entities"
)

// Partition reads the rows of one partition. It is a value; many goroutines may use it.
type Partition struct {
	Rows    Reader
	Address Address
}

// Meta returns the partition's meta row; ok is false when there is none.
func (p Partition) Meta() (m Meta, ok bool, err error) {
	b, err := p.Rows.Get(p.Address.metaKey())
	if err != nil || b == nil {
		return Meta{}, false, err
	}
	m, err = ParseMeta(b)
	return m, err == nil, err
}

// Head returns an entity's first row; ok is false for an entity without records.
func (p Partition) Head(key entities.Key) (h Head, ok bool, err error) {
	h, _, ok, err = p.head(key)
	return h, ok, err
}

func (p Partition) head(key entities.Key) (h Head, content []byte, ok bool, err error) {
	b, err := p.Rows.Get(entityRow(appendEntity(nil, p.Address, key.Type, key.ID), entityHead))
	if err != nil || b == nil {
		return Head{}, nil, false, err
	}
	h, content, err = parseHead(b)
	return h, content, err == nil, err
}

// Load returns everything by which an entity's session begins. An entity without records is an
// empty Loaded.
func (p Partition) Load(key entities.Key) (entities.Loaded, error) {
	head, content, known, err := p.head(key)
	if err != nil || !known {
		return entities.Loaded{}, err
	}
	k := entityKinds[head.Kind]
	if k == nil {
		return entities.Loaded{}, errKind(key, head.Kind)
	}
	return k.load(p, key, appendEntity(nil, p.Address, key.Type, key.ID), &head, content)
}

// Stored returns what is remembered of a command id; ok is false when nothing is. Whether it is
// still within the window is for the caller to decide by log time.
func (p Partition) Stored(key entities.Key, principal, commandID string) (s Stored, ok bool, err error) {
	b, err := p.Rows.Get(appendDedup(appendEntity(nil, p.Address, key.Type, key.ID), principal, commandID))
	if err != nil || b == nil {
		return Stored{}, false, err
	}
	s, err = parseStored(b)
	return s, err == nil, err
}

// History yields the offsets of an entity's records, oldest first.
func (p Partition) History(key entities.Key, yield func(offset int64) bool) error {
	prefix := appendEntity(nil, p.Address, key.Type, key.ID)
	lower, upper := entityRow(bytes.Clone(prefix), entityIndex), append(prefix, entityIndex+1)
	return p.Rows.Scan(lower, upper, func(row, _ []byte) bool { return yield(tailOffset(row)) })
}

// Expire removes dedup rows whose log time is before the given one, and those of ids that a router
// gave from before routed, at most limit of each, and returns how many. It only frees space: rows
// outside the window are not honoured anyway.
func Expire(store Store, a Address, before, routed int64, limit int) (int, error) {
	batch := store.NewBatch()
	defer batch.Close() //nolint:errcheck // nothing to lose
	callers, err := expire(store, batch, a, rowExpiry, before, limit)
	if err != nil {
		return 0, err
	}
	routers, err := expire(store, batch, a, rowRouted, routed, limit)
	if err != nil || callers+routers == 0 {
		return 0, err
	}
	return callers + routers, batch.Commit()
}

func expire(store Store, batch Batch, a Address, kind byte, before int64, limit int) (int, error) {
	lower := a.row(nil, kind)
	upper := appendExpiry(nil, a, kind, before, nil)
	var failed error
	n := 0
	err := store.Scan(lower, upper, func(key, _ []byte) bool {
		failed = expireOne(store, batch, key)
		n++
		return failed == nil && n < limit
	})
	return n, errors.Join(err, failed)
}

// expireOne removes an expiry row and its dedup row, unless the id was used again since.
func expireOne(rows Reader, batch Rows, expiry []byte) error {
	dedup := append([]byte(nil), expiry[expiryHeader:]...)
	b, err := rows.Get(dedup)
	if err != nil {
		return err
	}
	if b != nil {
		stored, err := parseStored(b)
		if err != nil {
			return err
		}
		if stored.LogTime == numberAt(expiry[expiryHeader-8:]) {
			if err := batch.Delete(dedup); err != nil {
				return err
			}
		}
	}
	return batch.Delete(expiry)
}

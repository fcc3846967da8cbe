package materializer

import (
	"bytes"
	"errors"
)

// Difference is a row that two folds of a partition do not agree on.
type Difference struct {
	// Row says which one it is, What how they differ.
	Row, What string
}

// String returns both.
func (d Difference) String() string { return d.Row + " " + d.What }

// Compare compares the rows of a store with a fold of the log up to the same position, and calls on
// for each that differs, until it returns an error. What a worker sweeps from its store, because it
// does not count any more, need not be there. After a repair (restored), records have found other
// places in the log: position and index are not compared.
func Compare(store, fold Partition, restored bool, on func(Difference) error) (err error) {
	have, want := store.all(), fold.all()
	defer func() { err = errors.Join(err, have.Close(), want.Close()) }()
	isStored, isFolded := have.First(), want.First()
	for (isStored || isFolded) && have.Error() == nil && want.Error() == nil {
		a, b := have.Key(), want.Key()
		var order int
		switch {
		case !isFolded:
			order = -1
		case !isStored:
			order = 1
		default:
			order = bytes.Compare(underAddress(fold.Address, a), b)
		}
		key, what := a, ""
		if order > 0 {
			key = b
		}
		switch {
		case order < 0:
			what = extra(key, restored)
		case order > 0:
			what = missing(key, restored)
		case !bytes.Equal(have.Value(), want.Value()):
			what = unequal(key, have.Value(), want.Value(), restored)
		}
		if what != "" {
			if err := on(Difference{Row: rowName(key), What: what}); err != nil {
				return err
			}
		}
		if order <= 0 {
			isStored = have.Next()
		}
		if order >= 0 {
			isFolded = want.Next()
		}
	}
	return nil
}

// all goes over all rows of the partition.
func (p Partition) all() Iterator { return p.Rows.Iterator(p.Address.Range()) }

// underAddress is the key of the same row under another address.
func underAddress(a Address, key []byte) []byte {
	m := readdressed(a, key)
	if k := partitionRows[key[addressSize]]; k != nil && k.embeds > 0 {
		copy(m[k.embeds:], a.append(nil))
	}
	return m
}

// extra says what is wrong about a row that only the store has, "" if it may be there.
func extra(key []byte, restored bool) string {
	if k, _ := kindOf(key); k != nil && (k.local || restored && k.relocated) {
		return ""
	}
	return "is in the store and not in the log"
}

// missing says what is wrong about a row that only the log has, "" if the store need not have it.
func missing(key []byte, restored bool) string {
	if k, _ := kindOf(key); k != nil && (k.swept || restored && k.relocated) {
		return ""
	}
	return "is in the log and not in the store"
}

// unequal says what is wrong about two rows that differ, "" if they mean the same.
func unequal(key, have, want []byte, restored bool) string {
	if k, _ := kindOf(key); k != nil && k.same != nil && k.same(have, want, restored) {
		return ""
	}
	return "differs from the one in the log"
}

// sameMeta: an owner does not know the times of claims. All else must be the same, unless a repair
// has written records again.
func sameMeta(have, want []byte, restored bool) bool {
	a, err := ParseMeta(have)
	b, err2 := ParseMeta(want)
	a.LogTime, b.LogTime = 0, 0
	return restored || (err == nil && err2 == nil && a == b)
}

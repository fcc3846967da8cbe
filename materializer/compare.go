package materializer

import (
	"bytes"
	"iter"
)

// Difference is a row that two folds of a partition do not agree on.
type Difference struct {
	// Row says which one it is, What how they differ.
	Row, What string
}

// String returns both.
func (d Difference) String() string { return d.Row + " " + d.What }

// Compare compares the rows of a store with a fold of the log up to the same position, and calls on for each that differs, until
// it returns an error. What a worker sweeps from its store, because it does not count any more, need not be there. After a repair
// (restored), records have found other places in the log: position and index are not compared.
func Compare(store, fold Partition, restored bool, on func(Difference) error) error {
	var scanErr error
	next := func(p Partition) (func() ([]byte, []byte, bool), func()) {
		lower, upper := p.Address.Range()
		return iter.Pull2(func(yield func(key, value []byte) bool) {
			if err := p.Rows.Scan(lower, upper, yield); err != nil {
				scanErr = err
			}
		})
	}
	have, stopHave := next(store)
	defer stopHave()
	want, stopWant := next(fold)
	defer stopWant()
	c := comparison{restored: restored}
	a, av, aok := have()
	b, bv, bok := want()
	for (aok || bok) && scanErr == nil {
		var order int
		switch {
		case !bok:
			order = -1
		case !aok:
			order = 1
		default:
			order = bytes.Compare(moved(fold.Address, a), b)
		}
		what := ""
		switch {
		case order < 0:
			what = c.extra(a)
		case order > 0:
			what = c.missing(b)
		case !bytes.Equal(av, bv):
			what = c.unequal(a, av, bv)
		}
		if what != "" {
			key := a
			if order > 0 {
				key = b
			}
			if err := on(Difference{Row: rowName(key), What: what}); err != nil {
				return err
			}
		}
		if order <= 0 {
			a, av, aok = have()
		}
		if order >= 0 {
			b, bv, bok = want()
		}
	}
	return scanErr
}

type comparison struct{ restored bool }

// index says whether a key is that of a record's place in the log.
func index(key []byte) bool {
	return key[addressSize] == rowEntity && key[entityPrefix(key)] == entityIndex
}

// extra says what is wrong about a row that only the store has.
func (c *comparison) extra(key []byte) string {
	kind := key[addressSize]
	switch {
	case kind == rowHalted, kind == rowSuspected, c.restored && (index(key) || kind == rowTimer || isExpiry(kind)): // of the last two, some stand for what was set anew since
		return ""
	default:
		return "is in the store and not in the log"
	}
}

// missing says what is wrong about a row that only the log has: nothing about answers that have expired, and about what became of
// timers and effects that are done.
func (c *comparison) missing(key []byte) string {
	swept := false
	switch key[addressSize] {
	case rowExpiry, rowRouted, rowTimer, rowDelivered:
		swept = true
	case rowEntity:
		kind := key[entityPrefix(key)]
		swept = kind == entityDedup || (c.restored && kind == entityIndex)
	}
	if swept {
		return ""
	}
	return "is in the log and not in the store"
}

// unequal says what is wrong about two rows that differ.
func (c *comparison) unequal(key, have, want []byte) string {
	if key[addressSize] == rowMeta {
		a, err := parseMeta(have)
		b, err2 := parseMeta(want)
		// The owner does not know the times of claims; all else must be the same.
		a.LogTime, b.LogTime = 0, 0
		if c.restored || (err == nil && err2 == nil && a == b) {
			return ""
		}
	}
	return "is another one in the log"
}

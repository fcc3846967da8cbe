package storetest

import (
	"encoding/binary"
	"errors"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/materializer"
)

// positionKey is a row that every operation sets to the number of operations done, as the fold does
// with its offset.
const positionKey = "\x00position"

// operation is one change of a store that a crash must leave whole or not at all. It also sets the
// position.
type operation struct {
	rows         []materializer.Row
	ingest, drop bool
	lower, upper string // of the drop
	flush        bool   // afterwards
}

// history is a sequence of operations; after n of them, the model at n is what a store holds.
type history struct {
	operations []operation
	durable    int // that many operations must survive from here on
}

func (s suite) crash(t *testing.T) {
	t.Run("OpensAsAPrefix", s.crashPrefix)
	t.Run("DuringAnOperation", s.crashDuring)
	t.Run("DuringAnIngestApart", s.crashDuringApartIngest)
	t.Run("AfterClose", s.crashAfterClose)
}

// crashPrefix writes at random and cuts the power at random, over and over on the disk that the
// last cut left.
func (s suite) crashPrefix(t *testing.T) {
	for i, unsynced := range []int{0, 50, 100} {
		random := s.generator(t, uint64(10+i))
		disk := s.Disk(t)
		var past history
		for range 8 {
			store, err := disk.Open(t)
			check(t, err)
			var next Disk
			cut := random.IntN(300)
			for n := range 300 {
				past.grow(t, store, random)
				if n == cut {
					next = disk.Crash(unsynced, random)
					break
				}
			}
			check(t, store.Close())
			disk = next
			past.recovered(t, disk)
		}
	}
}

// maxCuts bounds how often the power is cut during one operation.
const maxCuts = 300

// crashDuring cuts the power before every single write to the disk while one operation runs: it
// must be there whole or not at all, and with it everything that was committed before.
func (s suite) crashDuring(t *testing.T) {
	bulk := operation{ingest: true}
	for i := range 5000 {
		key := binary.BigEndian.AppendUint32([]byte("bulk/"), uint32(i))
		bulk.rows = append(bulk.rows, materializer.Row{Key: key, Value: key})
	}
	for i, op := range []operation{bulk, {flush: true}, {drop: true, lower: "key/050", upper: "key/150"}} {
		random := s.generator(t, uint64(20+i))
		disk := s.Disk(t)
		store, err := disk.Open(t)
		check(t, err)
		var past history
		for range 50 {
			past.grow(t, store, random)
		}
		past.operations = append(past.operations, op)
		cuts := cutDuring(disk, random, func() { check(t, perform(store, op, len(past.operations))) })
		after := past
		after.durable = len(past.operations)
		after.recovered(t, disk.Crash(0, random))
		check(t, store.Close())
		for _, cut := range cuts {
			from := past // a copy: each cut continues on its own copy
			from.recovered(t, cut)
		}
	}
}

// crashDuringApartIngest is about an ingest that shares no key with what was committed before it,
// so that nothing but the contract keeps the two in order.
func (s suite) crashDuringApartIngest(t *testing.T) {
	random := s.generator(t, 30)
	disk := s.Disk(t)
	store, err := disk.Open(t)
	check(t, err)
	write(t, store, "before=1")
	cuts := cutDuring(disk, random, func() { check(t, store.Ingest(each(parseAll("later=2")...))) })
	cuts = append(cuts, disk.Crash(0, random))
	check(t, store.Close())
	for i, cut := range cuts {
		store, err := cut.Open(t)
		check(t, err)
		later, err := store.Get([]byte("later"))
		check(t, err)
		if last := i == len(cuts)-1; last || later != nil {
			wantRows(t, store, "", "", "before=1", "later=2")
		}
		check(t, store.Close())
	}
}

// cutDuring returns the disk as it was before each write that happened during act. Background work
// may write meanwhile and afterwards too.
func cutDuring(disk Disk, random *rand.Rand, act func()) []Disk {
	var cutting sync.Mutex
	var cuts []Disk
	own := rand.New(rand.NewPCG(random.Uint64(), 0)) //nolint:gosec // a test must repeat
	room := maxCuts
	disk.Watch(func() {
		cutting.Lock()
		defer cutting.Unlock()
		if room > 0 {
			room--
			cuts = append(cuts, disk.Crash([]int{0, 50, 100}[len(cuts)%3], own))
		}
	})
	act()
	disk.Watch(nil)
	cutting.Lock()
	defer cutting.Unlock()
	room = 0
	return cuts
}

func (s suite) crashAfterClose(t *testing.T) {
	random := s.generator(t, 40)
	disk := s.Disk(t)
	store, err := disk.Open(t)
	check(t, err)
	var past history
	for range 20 {
		past.grow(t, store, random)
	}
	check(t, store.Close())
	past.durable = len(past.operations)
	past.recovered(t, disk.Crash(0, random))
	past.recovered(t, disk)
}

// grow performs one more random operation.
func (h *history) grow(t *testing.T, store materializer.Store, random *rand.Rand) {
	t.Helper()
	op := operation{rows: randomRows(random)}
	switch n := random.IntN(100); {
	case n < 3:
		op.ingest, op.rows = true, ascending(op.rows)
	case n < 5:
		op.drop, op.lower, op.upper, op.rows = true, randomKey(random), randomKey(random), nil
	case n < 7:
		op.flush = true
	}
	h.operations = append(h.operations, op)
	check(t, perform(store, op, len(h.operations)))
	if op.ingest || op.drop || op.flush {
		h.durable = len(h.operations)
	}
}

// perform does one operation, the position included. A drop is two steps on the store, so it comes
// after its position and removes rows that are independent of it; see at.
func perform(store materializer.Store, op operation, number int) error {
	position := materializer.Row{Key: []byte(positionKey), Value: binary.BigEndian.AppendUint64(nil, uint64(number))} //nolint:gosec // a count
	if op.ingest {
		return store.Ingest(each(append([]materializer.Row{position}, op.rows...)...))
	}
	b := store.NewBatch()
	err := b.Put(position.Key, position.Value)
	for _, row := range op.rows {
		if row.Delete {
			err = errors.Join(err, b.Delete(row.Key))
		} else {
			err = errors.Join(err, b.Put(row.Key, row.Value))
		}
	}
	err = errors.Join(err, b.Commit(), b.Close())
	if op.drop {
		err = errors.Join(err, store.DropRange([]byte(op.lower), []byte(op.upper)))
	}
	if op.flush {
		err = errors.Join(err, store.Flush())
	}
	return err
}

// at returns the rows after n operations. The second model leaves out a drop that the last of them
// contains: the power may have gone between the position and the drop.
func (h *history) at(n int) (all, withoutLastDrop model) {
	all = model{}
	for i, op := range h.operations[:n] {
		all.apply(op.rows)
		all[positionKey] = string(binary.BigEndian.AppendUint64(nil, uint64(i+1)))
		if op.drop {
			withoutLastDrop = maps.Clone(all)
			all.dropRange(op.lower, op.upper)
		} else {
			withoutLastDrop = nil
		}
	}
	return all, withoutLastDrop
}

// recovered opens the disk and fails unless the store holds exactly the rows after some number of
// operations, at least the durable ones. What came later is forgotten: the next operations follow
// those that survived.
func (h *history) recovered(t *testing.T, disk Disk) {
	t.Helper()
	store, err := disk.Open(t)
	check(t, err)
	value, err := store.Get([]byte(positionKey))
	check(t, err)
	position := 0
	if value != nil {
		position = int(binary.BigEndian.Uint64(value)) //nolint:gosec // written by perform
	}
	if position < h.durable || position > len(h.operations) {
		t.Fatalf("store opens at operation %d; %d were durable, %d committed", position, h.durable, len(h.operations))
	}
	want, withoutLastDrop := h.at(position)
	diff, err := difference(store, want)
	check(t, err)
	if diff != "" && withoutLastDrop != nil {
		diff, err = difference(store, withoutLastDrop)
		check(t, err)
		if diff == "" {
			check(t, store.DropRange([]byte(h.operations[position-1].lower), []byte(h.operations[position-1].upper)))
		}
	}
	if diff != "" {
		t.Fatalf("store opens at operation %d of %d but does not hold its rows:\n%s", position, len(h.operations), diff)
	}
	check(t, store.Close())
	h.operations = h.operations[:position]
	h.durable = position
}

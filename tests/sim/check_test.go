package sim

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
)

func (w *world) openEffects() int {
	n := 0
	for p := range int32(parts) {
		w.eachEffect(p, func(materializer.Effect) { n++ })
	}
	return n
}

// eachEffect yields the open effects of a partition, parked ones included.
func (w *world) eachEffect(p int32, yield func(materializer.Effect)) {
	view := materializer.Partition{
		Rows: w.workers[0].store, Address: materializer.Address{Generation: 1, Partition: uint16(p)},
	}
	if err := view.Outbox(0, func(e materializer.Effect) bool { yield(e); return true }); err != nil {
		w.wrong("read the outbox: %v", err)
	}
}

func (w *world) openTimers() int {
	n := 0
	for p := range parts {
		view := materializer.Partition{
			Rows: w.workers[0].store, Address: materializer.Address{Generation: 1, Partition: uint16(p)},
		}
		if err := view.Due(0, 0, func(materializer.Due) bool { n++; return true }); err != nil {
			w.wrong("read the timers: %v", err)
		}
	}
	return n
}

// notCompared are kinds of rows (materializer, rowkinds.go) that are not those of a fold from
// nothing: m has the times of claims, which their owner does not know; of q and t, the owner sweeps
// what has gone stale.
var notCompared = []byte("mqt")

// compareStore compares the owner's rows with a fold of the log from nothing.
func (w *world) compareStore(t *testing.T) {
	t.Helper()
	w.compareRows(t, w.workers[0].store)
}

// compareRows compares a store with a fold of the log from nothing.
func (w *world) compareRows(t *testing.T, store *memstore.Store) {
	t.Helper()
	for p := range parts {
		address := materializer.Address{Generation: 1, Partition: uint16(p)}
		want := memstore.New()
		fold := materializer.NewFold(address, topicID(w), materializer.Meta{})
		if w.gapped[p] {
			fold.PassOver(nil)
		}
		batch := want.NewBatch()
		records := w.log.Records(broker.Partition{Topic: topic, ID: int32(p)})
		for i := range records {
			if _, err := fold.Record(batch, &records[i]); err != nil {
				w.wrong("fold partition %d from nothing: %v", p, err)
			}
		}
		if err := errors.Join(fold.WriteMeta(batch), batch.Commit()); err != nil {
			t.Fatal(err)
		}
		lower, upper := address.Range()
		if w.links != nil { // the ids that routers give expire after two minutes
			store = store.Clone()
			for _, rows := range []*memstore.Store{store, want} {
				if _, err := materializer.Expire(rows, address, 0, math.MaxInt64, math.MaxInt); err != nil {
					t.Fatal(err)
				}
			}
		}
		var a, b []string
		rows := func(into *[]string) func(k, v []byte) bool {
			return func(k, v []byte) bool {
				if bytes.IndexByte(notCompared, k[4]) >= 0 {
					return true
				}
				*into = append(*into, fmt.Sprintf("%x=%x", k, v))
				return true
			}
		}
		if err := errors.Join(store.Scan(lower, upper, rows(&a)), want.Scan(lower, upper, rows(&b))); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(a, b) {
			w.wrong("the store of partition %d is not the fold of its log: %d rows, %d wanted", p, len(a), len(b))
		}
	}
}

func topicID(w *world) string {
	info, err := w.workers[0].client.Describe(w.ctx, topic)
	if err != nil {
		return ""
	}
	return info.ID
}

// compareEffects: what a cell s has sent is what its cell b has got, of a cell f its cell g, of a
// cell p its cell d, and of a cell l its cell m.
func (w *world) compareEffects() {
	for _, pair := range []string{"sb", "fg", "pd", "lm"} {
		for _, n := range []string{"0", "1"} {
			from, to := pair[:1]+n, pair[1:]+n
			if sent, got := number(w.stored(from)), number(w.stored(to)); sent != got {
				w.wrong("%s has sent %d, %s has got %d", from, sent, to, got)
			}
		}
	}
}

// number is a cell's state; nothing is 0.
func number(state []byte) int {
	n, _ := strconv.Atoi(strings.TrimRight(string(state), "."))
	return n
}

// compareAlarms: each timer fired as it was last set, and no other fired.
func (w *world) compareAlarms() {
	for _, key := range keys {
		if left := w.stored(key); key[0] == 't' && len(left) > 0 {
			w.wrong("%s is left with %q: every timer fires once, unless it is cancelled or set anew", key, left)
		}
	}
}

func (w *world) stored(id string) []byte { return w.storedIn(w.workers[0].store, id) }

func (w *world) storedIn(rows materializer.Reader, id string) []byte {
	view := materializer.Partition{
		Rows: rows, Address: materializer.Address{Generation: 1, Partition: uint16(entities.Partition(id, parts))},
	}
	loaded, err := view.Load(command(id, "").Key)
	if err != nil {
		w.wrong("load %s: %v", id, err)
	}
	if loaded.State == nil {
		return nil
	}
	return loaded.State.Value
}

// check checks the history.
func (w *world) check() {
	err := linearizable(w.history, w.moment+1, func(key string) bool {
		// those change by effects and timers, too
		return strings.ContainsRune("btdm", rune(key[0])) || w.forgotten[entities.Partition(key, parts)]
	})
	if err != nil {
		w.wrong("%w", err)
	}
}

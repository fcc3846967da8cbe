package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/millrace-io/millrace/projections/query"
	"github.com/millrace-io/millrace/projections/query/local"
)

// watcher is a client that keeps the rows of a range of one partition: all, or those of cells that
// were set so often. It asks one worker after the other what has changed since its position, and
// begins again where a worker does not know, or another version is in force.
type watcher struct {
	scan query.Scan
	// sets is what the rows have in common; 0: nothing.
	sets int
	// from is the offset before which the rows are complete, -1 before the first ones.
	from int64
	rows map[string]string
}

// newWatchers returns some of each kind, for each partition.
func newWatchers() (all []*watcher) {
	for p := range int32(parts) {
		all = append(all, &watcher{from: -1, scan: query.Scan{Partition: p}})
		for sets := 1; sets <= 3; sets++ {
			all = append(all, &watcher{from: -1, sets: sets, scan: query.Scan{
				Partition: p, Table: query.ByIndex, Number: bySets, Lower: tupleOf(sets), Upper: tupleOf(sets + 1),
			}})
		}
	}
	return all
}

// tupleOf is how an index has a number: bytes in the order of the numbers.
func tupleOf(n int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)^1<<63) }

// cellOf is the cell of a key tuple.
func cellOf(key []byte) string {
	return strings.TrimFunc(string(key), func(r rune) bool { return unicode.IsControl(r) })
}

// watch has a watcher go on, by way of a worker that knows which version is in force.
func (w *world) watch(c *watcher, asks, answers *worker) {
	if asks.dead || answers.dead || answers.frozen {
		return
	}
	v := w.views
	if inForce := uint32(asks.side.known.inForce); c.scan.Dataset != inForce {
		c.scan.Dataset, c.from = inForce, -1
	}
	ctx, cancel := context.WithTimeout(w.ctx, 2*pullPatience)
	defer cancel()
	from := &local.Executor{Engine: answers.side.engine, Count: parts}
	if c.from < 0 {
		w.watchFirst(ctx, c, from, answers)
		return
	}
	changes, err := from.Changes(ctx, &c.scan, c.from, pullPatience)
	_, gap := errors.AsType[*query.GapError](err)
	_, gone := errors.AsType[*query.NotHereError](err)
	switch {
	case gap:
		v.seen["watch reset"]++
		c.from = -1
		return
	case gone || errors.Is(err, context.DeadlineExceeded):
		v.seen["watch waits"]++
		return
	case err != nil:
		w.wrong("watch partition %d on %s: %v", c.scan.Partition, answers.name, err)
		return
	case changes.Through < c.from:
		w.wrong("watch partition %d on %s: from offset %d back to %d", c.scan.Partition, answers.name, c.from,
			changes.Through)
	}
	for i := range changes.Rows {
		changed := &changes.Rows[i]
		if changed.Row == nil {
			delete(c.rows, cellOf(changed.Key))
			continue
		}
		c.rows[cellOf(changed.Key)] = shown(query.ByKey, &query.Entry{Row: changed.Row})
	}
	v.seen["watch went on"]++
	if c.from = changes.Through; changes.At.Position == c.from { // else it has rows of a later moment
		w.compareWatch(c, answers)
	}
}

// watchFirst takes all rows of the range.
func (w *world) watchFirst(ctx context.Context, c *watcher, from *local.Executor, answers *worker) {
	rows, err := from.Open(ctx, &c.scan)
	if err != nil {
		return // as for any query: see answer
	}
	defer rows.Close()
	c.from, c.rows = rows.At().Position, map[string]string{}
	for {
		e, err := rows.Next(ctx)
		if err != nil {
			w.wrong("watch partition %d on %s: %v", c.scan.Partition, answers.name, err)
			c.from = -1
			return
		}
		if e == nil {
			break
		}
		text := shown(query.ByKey, e)
		cell, _, _ := strings.Cut(text, "=")
		c.rows[cell] = text
	}
	w.views.seen["watch began"]++
	w.compareWatch(c, answers)
}

// compareWatch: what a watcher has is what a query returns at its position.
func (w *world) compareWatch(c *watcher, answers *worker) {
	scan := query.Scan{Dataset: c.scan.Dataset, Partition: c.scan.Partition}
	all := w.views.effects[scan.Partition].rowsAt(w, int(scan.Partition), c.from, &scan)
	var want []string
	for _, r := range all {
		if c.sets == 0 || r.sets == c.sets {
			want = append(want, r.String())
		}
	}
	slices.Sort(want)
	if got := slices.Sorted(maps.Values(c.rows)); !slices.Equal(got, want) {
		w.wrong("a watch of cells that were set %d times (0: any), dataset %d, partition %d, by way of %s, has %v at offset %d; the log has %v",
			c.sets, scan.Dataset, scan.Partition, answers.name, got, c.from, want)
		c.from = -1
	}
}

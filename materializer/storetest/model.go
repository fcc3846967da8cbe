package storetest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/millrace-io/millrace/materializer"
)

// model is what a store should hold.
type model map[string]string

func (m model) apply(rows []materializer.Row) {
	for _, row := range rows {
		if row.Delete {
			delete(m, string(row.Key))
		} else {
			m[string(row.Key)] = string(row.Value)
		}
	}
}

func (m model) dropRange(lower, upper string) {
	maps.DeleteFunc(m, func(key, _ string) bool { return lower <= key && (upper == "" || key < upper) })
}

// keys is how many keys random operations use: few, so that operations share keys.
const keys = 200

func randomKey(r *rand.Rand) string { return fmt.Sprintf("key/%03d", r.IntN(keys)) }

func randomRow(r *rand.Rand) materializer.Row {
	row := materializer.Row{Key: []byte(randomKey(r)), Delete: r.IntN(4) == 0}
	if !row.Delete {
		row.Value = fmt.Appendf(nil, "%d/%0*d", r.Uint32(), r.IntN(200), 0)
	}
	return row
}

func randomRows(r *rand.Rand) []materializer.Row {
	rows := make([]materializer.Row, r.IntN(20))
	for i := range rows {
		rows[i] = randomRow(r)
	}
	return rows
}

// ascending sorts rows by key and keeps one of each.
func ascending(rows []materializer.Row) []materializer.Row {
	slices.SortFunc(rows, func(a, b materializer.Row) int { return slices.Compare(a.Key, b.Key) })
	return slices.CompactFunc(rows, func(a, b materializer.Row) bool { return slices.Equal(a.Key, b.Key) })
}

// random runs a sequence of random operations on a store and on a map, with snapshots that stay
// open over many of them.
func (s suite) random(t *testing.T) {
	const operations = 1500
	random := s.generator(t, 1)
	store, want := s.open(t), model{}
	b := store.NewBatch()
	type view struct {
		snapshot materializer.Snapshot
		want     model
	}
	var views []view
	for i := range operations {
		switch n := random.IntN(100); {
		case n < 60:
			rows := randomRows(random)
			fill(t, b, rows)
			check(t, b.Commit())
			want.apply(rows)
		case n < 65:
			rows := ascending(randomRows(random))
			check(t, store.Ingest(each(rows...)))
			want.apply(rows)
		case n < 68:
			lower, upper := randomKey(random), randomKey(random)
			check(t, store.DropRange([]byte(lower), []byte(upper)))
			want.dropRange(lower, upper)
		case n < 70:
			check(t, store.Flush())
		case n < 75 && len(views) < 5:
			views = append(views, view{store.Snapshot(), maps.Clone(want)})
		case n < 80 && len(views) > 0:
			oldest := views[0]
			views = views[1:]
			wantModel(t, oldest.snapshot, oldest.want, "snapshot closed at operation %d", i)
			check(t, oldest.snapshot.Close())
		case n < 85:
			wantModel(t, store, want, "operation %d", i)
		default:
			key := randomKey(random)
			if value, ok := want[key]; ok {
				wantValue(t, store, key, value)
			} else {
				wantAbsent(t, store, key)
			}
		}
	}
	wantModel(t, store, want, "the end")
	check(t, b.Close())
	for _, v := range views {
		wantModel(t, v.snapshot, v.want, "snapshot at the end")
		check(t, v.snapshot.Close())
	}
}

func wantModel(t *testing.T, r materializer.Reader, want model, where string, args ...any) {
	t.Helper()
	diff, err := difference(r, want)
	check(t, err)
	if diff != "" {
		t.Fatalf("%s:\n%s", fmt.Sprintf(where, args...), diff)
	}
}

package storetest

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/materializer"
)

// iterator tests iterators of a store and of its snapshots.
func (s suite) iterator(t *testing.T) {
	for name, reader := range map[string]func(*testing.T, materializer.Store) materializer.Reader{
		"Store": func(_ *testing.T, store materializer.Store) materializer.Reader { return store },
		"Snapshot": func(t *testing.T, store materializer.Store) materializer.Reader {
			snapshot := store.Snapshot()
			t.Cleanup(func() { check(t, snapshot.Close()) })
			return snapshot
		},
		"Batch": batchOver,
	} {
		t.Run(name, func(t *testing.T) {
			t.Run("Moves", func(t *testing.T) { s.moves(t, reader) })
			t.Run("Bounds", func(t *testing.T) { s.bounds(t, reader) })
			if name != "Batch" { // of which there is a test of its own
				t.Run("Random", func(t *testing.T) { s.randomMoves(t, reader) })
			}
		})
	}
	t.Run("RandomBatch", s.randomBatch)
	t.Run("KeepsItsView", s.keepsItsView)
	t.Run("Close", s.closeIterator)
}

// batchOver returns a batch that shows the rows of a store, after its first and its last row were
// removed and others added, because it has the contrary.
func batchOver(t *testing.T, store materializer.Store) materializer.Reader {
	t.Helper()
	b := store.NewIndexedBatch()
	t.Cleanup(func() { check(t, b.Close()) })
	rows := store.Iterator(nil, nil)
	for _, move := range []func() bool{rows.First, rows.Last} {
		if move() {
			check(t, b.Put(rows.Key(), rows.Value()))
			write(t, store, "-"+string(rows.Key()))
		}
	}
	check(t, rows.Close())
	write(t, store, "aa=0", "d=0", "zz=0")
	for _, key := range []string{"aa", "d", "zz", "never"} {
		check(t, b.Delete([]byte(key)))
	}
	return b
}

// layered returns a store whose rows lie in several layers: merged tables, a table of their own,
// the memory for new rows; with removals of rows that lie deeper.
func (s suite) layered(t *testing.T) materializer.Store {
	t.Helper()
	store := s.open(t)
	check(t, store.Ingest(each(parseAll("a=1", "b=1", "c=1", "e=1")...)))
	write(t, store, "bb=2", "c=2", "d=2")
	check(t, store.Flush())
	write(t, store, "-b", "e=3", "-never")
	check(t, store.DropRange([]byte("d"), []byte("dd")))
	write(t, store, "f=4")
	return store // a=1 bb=2 c=2 e=3 f=4
}

func (s suite) moves(t *testing.T, reader func(*testing.T, materializer.Store) materializer.Reader) {
	empty := reader(t, s.open(t)).Iterator(nil, nil)
	wantMoves(t, empty, "First", "", "Next", "", "Prev", "", "Last", "", "SeekGE a", "", "SeekLT a", "")
	check(t, empty.Close())

	rows := reader(t, s.layered(t)).Iterator(nil, nil)
	wantMoves(t, rows,
		"Next", "a=1", "Next", "bb=2", "Prev", "a=1", "Prev", "", "Prev", "", "Next", "a=1",
		"Last", "f=4", "Next", "", "Next", "", "Prev", "f=4", "Prev", "e=3", "Next", "f=4",
		"SeekGE b", "bb=2", "Prev", "a=1", "SeekGE bb", "bb=2", "Next", "c=2", "SeekGE d", "e=3", "Prev", "c=2",
		"SeekLT d", "c=2", "Next", "e=3", "SeekLT c", "bb=2", "Prev", "a=1", "SeekLT a", "", "Next", "a=1",
		"SeekLT z", "f=4", "SeekGE g", "", "Prev", "f=4", "SeekGE ", "a=1", "SeekLT ", "", "Next", "a=1",
	)
	check(t, rows.Close())

	rows = reader(t, s.layered(t)).Iterator(nil, nil)
	wantMoves(t, rows, "Prev", "f=4") // the first move
	check(t, rows.Close())
}

func (s suite) bounds(t *testing.T, reader func(*testing.T, materializer.Store) materializer.Reader) {
	r := reader(t, s.layered(t))
	lower, upper := []byte("bb"), []byte("e")
	rows := r.Iterator(lower, upper)
	lower[0], upper[0] = 'x', 'x' // the iterator has its own
	wantMoves(t, rows,
		"First", "bb=2", "Next", "c=2", "Next", "", "Prev", "c=2", "Last", "c=2", "Prev", "bb=2", "Prev", "", "Next", "bb=2",
		"SeekGE a", "bb=2", "SeekGE cc", "", "Prev", "c=2", "SeekGE z", "", "Prev", "c=2",
		"SeekLT z", "c=2", "SeekLT bb", "", "Next", "bb=2", "SeekLT a", "", "Next", "bb=2",
	)
	check(t, rows.Close())
	for _, b := range [][2]string{{"c", "c"}, {"e", "b"}, {"cc", "d"}, {"x", ""}, {"x", "z"}, {"", "a"}} {
		rows := r.Iterator([]byte(b[0]), []byte(b[1]))
		wantMoves(t, rows, "First", "", "Last", "", "SeekGE a", "", "SeekLT z", "", "Next", "", "Prev", "")
		check(t, rows.Close())
	}
}

// wantMoves makes moves and fails unless each ends at the row that follows it, "" for none.
func wantMoves(t *testing.T, rows materializer.Iterator, moves ...string) {
	t.Helper()
	for i := 0; i < len(moves); i += 2 {
		ok := move(rows, moves[i])
		got := ""
		if ok {
			got = string(rows.Key()) + "=" + string(rows.Value())
		} else if rows.Key() != nil || rows.Value() != nil {
			t.Fatalf("move %d, %s: no row, and key %q, value %q", i/2, moves[i], rows.Key(), rows.Value())
		}
		if got != moves[i+1] {
			t.Fatalf("move %d, %s: %q (%v), want %q", i/2, moves[i], got, rows.Error(), moves[i+1])
		}
	}
	check(t, rows.Error())
}

// move makes one move, named as its method, with the key of a seek behind it.
func move(rows materializer.Iterator, name string) bool {
	var method, key string
	_, _ = fmt.Sscan(name, &method, &key)
	switch method {
	case "First":
		return rows.First()
	case "Last":
		return rows.Last()
	case "Next":
		return rows.Next()
	case "Prev":
		return rows.Prev()
	case "SeekGE":
		return rows.SeekGE([]byte(key))
	default:
		return rows.SeekLT([]byte(key))
	}
}

// sorted is an iterator over a map: what the others are compared with.
type sorted struct {
	model model
	keys  []string // within the bounds
	at    int      // -1 is before them, len(keys) behind them
	moved bool
}

func (m model) iterator(lower, upper string) *sorted {
	keys := slices.Sorted(maps.Keys(m))
	keys = slices.DeleteFunc(keys, func(key string) bool { return key < lower || upper != "" && key >= upper })
	return &sorted{model: m, keys: keys}
}

// move makes one move and returns the row, "" for none.
func (s *sorted) move(name string) string {
	var method, key string
	_, _ = fmt.Sscan(name, &method, &key)
	switch {
	case method == "First", method == "Next" && !s.moved:
		s.at = 0
	case method == "Last", method == "Prev" && !s.moved:
		s.at = len(s.keys) - 1
	case method == "Next":
		s.at = min(s.at+1, len(s.keys))
	case method == "Prev":
		s.at = max(s.at-1, -1)
	case method == "SeekGE":
		s.at, _ = slices.BinarySearch(s.keys, key)
	default:
		s.at, _ = slices.BinarySearch(s.keys, key)
		s.at--
	}
	s.moved = true
	if s.at < 0 || s.at >= len(s.keys) {
		return ""
	}
	return s.keys[s.at] + "=" + s.model[s.keys[s.at]]
}

// randomMoves compares iterators with a sorted map while rows are written.
func (s suite) randomMoves(t *testing.T, reader func(*testing.T, materializer.Store) materializer.Reader) {
	random := s.generator(t, 50)
	store := s.open(t)
	var past history
	var open []*pair
	for range 150 {
		past.grow(t, store, random)
		want, _ := past.at(len(past.operations))
		if len(open) == 4 {
			check(t, open[0].rows.Close())
			open = open[1:]
		}
		open = append(open, newPair(reader(t, store), want, random))
		for _, p := range open {
			p.compare(t, random)
		}
	}
	for _, p := range open {
		check(t, p.rows.Close())
	}
}

// pair is an iterator and what it must show.
type pair struct {
	rows         materializer.Iterator
	want         *sorted
	lower, upper string
	moves        []string
}

func newPair(r materializer.Reader, m model, random *rand.Rand) *pair {
	p := &pair{}
	if random.IntN(3) > 0 {
		p.lower = randomKey(random)
	}
	if random.IntN(3) > 0 {
		p.upper = randomKey(random)
	}
	p.rows, p.want = r.Iterator([]byte(p.lower), []byte(p.upper)), m.iterator(p.lower, p.upper)
	return p
}

// compare makes some random moves with both.
func (p *pair) compare(t *testing.T, random *rand.Rand) {
	t.Helper()
	for range random.IntN(20) {
		name := []string{"First", "Last", "Next", "Next", "Next", "Prev", "Prev", "Prev", "SeekGE", "SeekLT"}[random.IntN(10)]
		if name == "SeekGE" || name == "SeekLT" {
			name += " " + randomKey(random)
		}
		p.moves = append(p.moves, name)
		got := ""
		if move(p.rows, name) {
			got = string(p.rows.Key())
			if random.IntN(2) == 0 { // or the value is never asked for
				got += "=" + string(p.rows.Value())
			}
		}
		want := p.want.move(name)
		key, _, _ := strings.Cut(want, "=")
		if got != want && got != key {
			t.Fatalf("between %q and %q, after %q: %q (%v), want %q", p.lower, p.upper, p.moves, got, p.rows.Error(), want)
		}
	}
	check(t, p.rows.Error())
}

// keepsItsView: what is written later does not show, and a snapshot may be closed before.
func (s suite) keepsItsView(t *testing.T) {
	store := s.layered(t)
	snapshot := store.Snapshot()
	write(t, store, "g=5", "-a")
	ofStore, ofSnapshot := store.Iterator(nil, nil), snapshot.Iterator(nil, nil)
	check(t, snapshot.Close())
	wantMoves(t, ofStore, "First", "bb=2")
	write(t, store, "bc=6", "-bb", "-g", "c=6")
	check(t, store.Flush())
	check(t, store.Ingest(each(parseAll("-e", "h=7")...)))
	check(t, store.DropRange([]byte("c"), nil))
	wantMoves(t, ofStore, "Next", "c=2", "Next", "e=3", "Next", "f=4", "Next", "g=5", "Next", "",
		"First", "bb=2", "Last", "g=5")
	wantMoves(t, ofSnapshot, "First", "a=1", "SeekGE e", "e=3", "Last", "f=4")
	wantRows(t, store, "", "", "bc=6")
	check(t, errors.Join(ofStore.Close(), ofSnapshot.Close()))
}

func (s suite) closeIterator(t *testing.T) {
	store := s.Open(t)
	write(t, store, "a=1", "b=2")
	snapshot := store.Snapshot()

	closed := store.Iterator(nil, nil)
	wantMoves(t, closed, "First", "a=1")
	check(t, closed.Close())
	check(t, closed.Close())
	wantClosedIterator(t, closed)

	fresh, ofSnapshot := store.Iterator(nil, nil), snapshot.Iterator(nil, nil)
	b := store.NewIndexedBatch()
	put(t, b, "c=3")
	ofBatch := b.Iterator(nil, nil)
	wantMoves(t, ofBatch, "Last", "c=3", "Prev", "b=2")
	atRow, idle := store.Iterator(nil, nil), store.Iterator(nil, nil)
	wantMoves(t, atRow, "Last", "b=2")
	wantMoves(t, idle, "Last", "b=2")
	check(t, store.Close()) // with iterators open
	check(t, idle.Close())
	for _, rows := range []materializer.Iterator{
		fresh, ofSnapshot, ofBatch, atRow, store.Iterator(nil, nil), snapshot.Iterator(nil, nil),
	} {
		wantClosedIterator(t, rows)
	}
	wantClosedReader(t, b)
	check(t, errors.Join(b.Close(), snapshot.Close()))
}

// wantClosedIterator fails unless an iterator refuses each move, and closes it.
func wantClosedIterator(t testing.TB, rows materializer.Iterator) {
	t.Helper()
	for _, name := range []string{"First", "Last", "Next", "Prev", "SeekGE a", "SeekLT z"} {
		if move(rows, name) {
			t.Errorf("%s after Close goes to %q", name, rows.Key())
		}
	}
	if err := rows.Error(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("error after Close: %v, want fs.ErrClosed", err)
	}
	if rows.Key() != nil || rows.Value() != nil {
		t.Errorf("key after Close is %q, value %q", rows.Key(), rows.Value())
	}
	for range 2 {
		if err := rows.Close(); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("Close after the move: %v, want fs.ErrClosed", err)
		}
	}
}

// randomBatch compares a batch and its iterators with a sorted map, while rows are written to the
// batch and to the store below it.
func (s suite) randomBatch(t *testing.T) {
	random := s.generator(t, 60)
	store, below := s.open(t), model{}
	b := store.NewIndexedBatch()
	plain := store.NewBatch()
	var own []materializer.Row
	var open []*pair
	for range 300 {
		rows := randomRows(random)
		switch random.IntN(6) {
		case 0:
			fill(t, plain, rows)
			check(t, plain.Commit())
			below.apply(rows)
		case 1:
			check(t, b.Commit())
			below.apply(own)
			own = nil
			for _, p := range open {
				wantClosedIterator(t, p.rows)
			}
			open = nil
		default:
			fill(t, b, rows)
			own = append(own, rows...)
		}
		want := maps.Clone(below)
		want.apply(own)
		wantModel(t, b, want, "batch")
		wantModel(t, store, below, "store below the batch")
		key := randomKey(random)
		if value, ok := want[key]; ok {
			wantValue(t, b, key, value)
		} else {
			wantAbsent(t, b, key)
		}
		open = append(open, newPair(b, want, random))
		for _, p := range open {
			p.compare(t, random)
		}
	}
	check(t, b.Close())
	for _, p := range open {
		wantClosedIterator(t, p.rows)
	}
	wantClosedReader(t, b)
	check(t, plain.Close())
	wantModel(t, store, below, "store after the batch was closed")
}

func fill(t *testing.T, b materializer.Batch, rows []materializer.Row) {
	t.Helper()
	for _, row := range rows {
		if row.Delete {
			check(t, b.Delete(row.Key))
		} else {
			check(t, b.Put(row.Key, row.Value))
		}
	}
}

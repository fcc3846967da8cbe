package storetest

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/materializer"
)

func (s suite) rows(t *testing.T) {
	store := s.open(t)
	wantAbsent(t, store, "a")
	write(t, store, "a=1", "b=", "c=3")
	wantValue(t, store, "a", "1")
	wantValue(t, store, "b", "") // an empty value is not an absent one
	write(t, store, "a=2", "-c", "-never")
	wantValue(t, store, "a", "2")
	wantAbsent(t, store, "c")
	wantAbsent(t, store, "aa")

	t.Run("ValueIsTheCallersOwn", func(t *testing.T) {
		value, err := store.Get([]byte("a"))
		check(t, err)
		value[0] = 'x'
		wantValue(t, store, "a", "2")
	})
	t.Run("KeyAndValueAreCopied", func(t *testing.T) {
		b := store.NewBatch()
		key, value := []byte("key"), []byte("value")
		check(t, b.Put(key, value))
		key[0], value[0] = 'x', 'x'
		check(t, b.Commit())
		check(t, b.Close())
		wantValue(t, store, "key", "value")
		wantAbsent(t, store, "xey")
	})
	t.Run("LargeValue", func(t *testing.T) {
		write(t, store, "large="+strings.Repeat("v", 1<<20))
		wantValue(t, store, "large", strings.Repeat("v", 1<<20))
	})
	t.Run("AnyBytes", func(t *testing.T) {
		key, value := []byte{0, 0xff, 0, 0xff, 0xff}, []byte{0xff, 0, 0}
		b := store.NewBatch()
		check(t, b.Put(key, value))
		check(t, b.Commit())
		check(t, b.Close())
		got, err := store.Get(key)
		check(t, err)
		if !bytes.Equal(got, value) {
			t.Errorf("value is %x, want %x", got, value)
		}
	})
	t.Run("EmptyKeyIsRefused", func(t *testing.T) {
		b := store.NewBatch()
		for name, err := range map[string]error{
			"Put":    b.Put(nil, []byte("v")),
			"Delete": b.Delete([]byte{}),
			"Ingest": store.Ingest(each(parseAll("=v", "a=0")...)),
		} {
			if err == nil || !strings.Contains(err.Error(), "key is empty") {
				t.Errorf("%s: %v, want an error that says that the key is empty", name, err)
			}
		}
		check(t, b.Commit())
		check(t, b.Close())
		wantAbsent(t, store, "")
		wantValue(t, store, "a", "2")
	})
	t.Run("Size", func(t *testing.T) {
		check(t, store.Flush())
		if store.Size() == 0 {
			t.Error("a store with rows has size 0")
		}
	})
}

func (s suite) batches(t *testing.T) {
	store := s.open(t)
	write(t, store, "old=1")

	b := store.NewBatch()
	put(t, b, "new=1")
	put(t, b, "-old")
	wantRows(t, store, "", "", "old=1") // nothing before the commit
	check(t, b.Commit())
	wantRows(t, store, "", "", "new=1") // and all of it after

	check(t, b.Commit()) // empty now
	wantRows(t, store, "", "", "new=1")
	put(t, b, "again=1")
	check(t, b.Commit())
	wantRows(t, store, "", "", "again=1", "new=1")

	put(t, b, "dropped=1")
	check(t, b.Close())
	check(t, b.Close())
	wantRows(t, store, "", "", "again=1", "new=1")
	for name, err := range map[string]error{
		"Put": b.Put([]byte("k"), nil), "Delete": b.Delete([]byte("k")), "Commit": b.Commit(),
	} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s on a closed batch: %v, want fs.ErrClosed", name, err)
		}
	}

	t.Run("LastWriteWins", func(t *testing.T) {
		write(t, store, "k=1", "-k", "k=2")
		wantValue(t, store, "k", "2")
		write(t, store, "k=3", "-k")
		wantAbsent(t, store, "k")
	})
	t.Run("OrderOfCommits", func(t *testing.T) {
		first, second := store.NewBatch(), store.NewBatch()
		put(t, first, "order=first")
		put(t, second, "order=second")
		check(t, second.Commit())
		check(t, first.Commit())
		wantValue(t, store, "order", "first")
		check(t, first.Close())
		check(t, second.Close())
	})
	t.Run("ReuseAfterALargeOne", func(t *testing.T) {
		b := store.NewBatch()
		for _, value := range []string{strings.Repeat("x", 4<<20), "small", strings.Repeat("y", 4<<20)} {
			put(t, b, "reused="+value)
			check(t, b.Commit())
			wantValue(t, store, "reused", value)
		}
		check(t, b.Close())
	})
}

func (s suite) scan(t *testing.T) {
	store := s.open(t)
	wantRows(t, store, "", "")
	write(t, store, "b=2", "d=4", "a=1", "c=3", "e=5")
	write(t, store, "-e", "c=33")
	for _, tc := range []struct {
		lower, upper string
		want         []string
	}{
		{"", "", []string{"a=1", "b=2", "c=33", "d=4"}},
		{"b", "d", []string{"b=2", "c=33"}},
		{"b", "d\x00", []string{"b=2", "c=33", "d=4"}},
		{"bb", "", []string{"c=33", "d=4"}},
		{"", "b", []string{"a=1"}},
		{"b", "b", nil},
		{"d", "b", nil},
		{"x", "", nil},
	} {
		wantRows(t, store, tc.lower, tc.upper, tc.want...)
	}

	t.Run("StopsWhenToldTo", func(t *testing.T) {
		var seen []string
		check(t, store.Scan(nil, nil, func(key, _ []byte) bool {
			seen = append(seen, string(key))
			return len(seen) < 2
		}))
		if len(seen) != 2 {
			t.Errorf("scan went on to %q after yield returned false", seen)
		}
	})
	t.Run("ShowsOneMoment", func(t *testing.T) {
		var seen []string
		check(t, store.Scan(nil, nil, func(key, _ []byte) bool {
			seen = append(seen, string(key))
			write(t, store, "-"+string(key), "z=26")
			wantAbsent(t, store, string(key))
			return true
		}))
		if got := strings.Join(seen, ""); got != "abcd" {
			t.Errorf("scan saw %q, want abcd: writes during the scan must not show", got)
		}
		wantRows(t, store, "", "", "z=26")
	})
}

func (s suite) snapshot(t *testing.T) {
	store := s.open(t)
	write(t, store, "a=1", "b=2")
	before := store.Snapshot()
	write(t, store, "a=11", "-b", "c=3")
	check(t, store.Flush())
	check(t, store.Ingest(each(parseAll("d=4")...)))
	after := store.Snapshot()
	check(t, store.DropRange([]byte("a"), nil))

	wantRows(t, before, "", "", "a=1", "b=2")
	wantRows(t, before, "b", "", "b=2")
	wantRows(t, before, "b", "b")
	wantValue(t, before, "a", "1")
	wantAbsent(t, before, "c")
	wantRows(t, after, "", "", "a=11", "c=3", "d=4")
	wantRows(t, store, "", "")

	check(t, before.Close())
	check(t, before.Close())
	wantClosedReader(t, before)
	wantValue(t, after, "a", "11") // the other one is unharmed
	check(t, after.Close())
}

func (s suite) close(t *testing.T) {
	store := s.Open(t)
	write(t, store, "a=1")
	snapshot, b := store.Snapshot(), store.NewBatch()
	put(t, b, "b=2")
	check(t, store.Close()) // with a snapshot and a batch still open
	check(t, store.Close())

	wantClosedReader(t, store)
	wantClosedReader(t, snapshot)
	late := store.Snapshot()
	wantClosedReader(t, late)
	fresh := store.NewBatch()
	put(t, fresh, "c=3")
	for name, err := range map[string]error{
		"Commit of an open batch": b.Commit(),
		"Commit of a new batch":   fresh.Commit(),
		"Flush":                   store.Flush(),
		"Ingest":                  store.Ingest(each(parseAll("d=4")...)),
		"Ingest of nothing":       store.Ingest(each()),
		"DropRange":               store.DropRange(nil, []byte("z")),
	} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s after Close: %v, want fs.ErrClosed", name, err)
		}
	}
	if size := store.Size(); size != 0 {
		t.Errorf("size after Close is %d, want 0", size)
	}
	check(t, errors.Join(b.Close(), fresh.Close(), snapshot.Close(), late.Close()))
}

func wantClosedReader(t *testing.T, r materializer.Reader) {
	t.Helper()
	if _, err := r.Get([]byte("a")); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Get after Close: %v, want fs.ErrClosed", err)
	}
	err := r.Scan(nil, nil, func(key, _ []byte) bool {
		t.Errorf("scan after Close yields %q", key)
		return false
	})
	if !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Scan after Close: %v, want fs.ErrClosed", err)
	}
	wantClosedIterator(t, r.Iterator(nil, nil))
}

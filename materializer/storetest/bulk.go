package storetest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/materializer"
)

func (s suite) ingest(t *testing.T) {
	store := s.open(t)
	write(t, store, "a=1", "b=2", "c=3")
	check(t, store.Ingest(each(parseAll("-a", "b=22", "bb=", "-never", "z=26")...)))
	want := []string{"b=22", "bb=", "c=3", "z=26"}
	wantRows(t, store, "", "", want...)

	t.Run("RefusesKeysThatDoNotAscend", func(t *testing.T) {
		for _, rows := range [][]string{
			{"d=4", "c=33"},
			{"d=4", "d=5"},
			{"d=4", "-d"},
			{"b=0", "d=4", "e=5", "a=1"},
		} {
			err := store.Ingest(each(parseAll(rows...)...))
			if err == nil || !strings.Contains(err.Error(), "ascend") {
				t.Errorf("ingest of %q: %v, want an error that says that keys must ascend", rows, err)
			}
			wantRows(t, store, "", "", want...)
		}
	})
	t.Run("Nothing", func(t *testing.T) {
		check(t, store.Ingest(each()))
		wantRows(t, store, "", "", want...)
	})
	t.Run("KeepsItsPlaceAmongBatches", func(t *testing.T) {
		write(t, store, "order=1", "gone=1")
		check(t, store.Ingest(each(parseAll("-gone", "order=2")...)))
		wantValue(t, store, "order", "2")
		wantAbsent(t, store, "gone")
		write(t, store, "order=3")
		wantValue(t, store, "order", "3")
		check(t, store.Ingest(each(parseAll("order=4")...)))
		wantValue(t, store, "order", "4")
		write(t, store, "-order")
		wantAbsent(t, store, "order")
	})
	t.Run("ManyRows", func(t *testing.T) {
		store := s.open(t)
		const count = 20_000
		rows := make([]materializer.Row, count)
		for i := range rows {
			rows[i] = parse(fmt.Sprintf("%08d=%s", i, strings.Repeat("v", i%200)))
		}
		check(t, store.Ingest(each(rows...)))
		next := 0
		check(t, store.Scan(nil, nil, func(key, value []byte) bool {
			if next == count || string(key) != string(rows[next].Key) || string(value) != string(rows[next].Value) {
				t.Errorf("row %d is %q with %d bytes", next, key, len(value))
				return false
			}
			next++
			return true
		}))
		if next != count {
			t.Errorf("%d rows, want %d", next, count)
		}
	})
}

func (s suite) dropRange(t *testing.T) {
	store := s.open(t)
	check(t, store.DropRange(nil, nil)) // an empty store
	write(t, store, "a=1", "b=2", "c=3")
	check(t, store.Ingest(each(parseAll("d=4", "e=5")...)))
	write(t, store, "f=6")
	for _, tc := range []struct {
		lower, upper string
		want         []string
	}{
		{"b", "b", []string{"a=1", "b=2", "c=3", "d=4", "e=5", "f=6"}},
		{"e", "b", []string{"a=1", "b=2", "c=3", "d=4", "e=5", "f=6"}},
		{"x", "", []string{"a=1", "b=2", "c=3", "d=4", "e=5", "f=6"}},
		{"b", "d", []string{"a=1", "d=4", "e=5", "f=6"}},
		{"e", "", []string{"a=1", "d=4"}},
		{"", "b", []string{"d=4"}},
		{"", "", nil},
	} {
		check(t, store.DropRange([]byte(tc.lower), []byte(tc.upper)))
		wantRows(t, store, "", "", tc.want...)
	}
	write(t, store, "b=again")
	wantRows(t, store, "", "", "b=again")
}

package storetest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/materializer"
)

// check fails the test on an error.
func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write commits one batch of rows, given as "key=value", or "-key" for a removal.
func write(t testing.TB, store materializer.Store, rows ...string) {
	t.Helper()
	b := store.NewBatch()
	for _, row := range rows {
		put(t, b, row)
	}
	check(t, b.Commit())
	check(t, b.Close())
}

func put(t testing.TB, b materializer.Batch, row string) {
	t.Helper()
	r := parse(row)
	if r.Delete {
		check(t, b.Delete(r.Key))
	} else {
		check(t, b.Put(r.Key, r.Value))
	}
}

func parse(row string) materializer.Row {
	if key, removal := strings.CutPrefix(row, "-"); removal {
		return materializer.Row{Key: []byte(key), Delete: true}
	}
	key, value, _ := strings.Cut(row, "=")
	return materializer.Row{Key: []byte(key), Value: []byte(value)}
}

// each returns the rows one by one, as Ingest takes them, in buffers that are used again.
func each(rows ...materializer.Row) func() (materializer.Row, bool) {
	var buffer materializer.Row
	return func() (materializer.Row, bool) {
		if len(rows) == 0 {
			return materializer.Row{}, false
		}
		buffer.Key = append(buffer.Key[:0], rows[0].Key...)
		buffer.Value = append(buffer.Value[:0], rows[0].Value...)
		buffer.Delete = rows[0].Delete
		rows = rows[1:]
		return buffer, true
	}
}

func parseAll(rows ...string) []materializer.Row {
	parsed := make([]materializer.Row, len(rows))
	for i, row := range rows {
		parsed[i] = parse(row)
	}
	return parsed
}

// wantRows fails unless a scan from lower to upper yields exactly these rows in this order.
func wantRows(t testing.TB, r materializer.Reader, lower, upper string, want ...string) {
	t.Helper()
	var got []string
	check(t, r.Scan([]byte(lower), []byte(upper), func(key, value []byte) bool {
		got = append(got, string(key)+"="+string(value))
		return true
	}))
	if !slices.Equal(got, want) {
		t.Fatalf("rows from %q to %q are %q, want %q", lower, upper, got, want)
	}
}

// wantValue fails unless the row has this value.
func wantValue(t testing.TB, r materializer.Reader, key, want string) {
	t.Helper()
	got, err := r.Get([]byte(key))
	check(t, err)
	if got == nil || string(got) != want {
		t.Fatalf("value of %q is %q (nil: %v), want %q", key, got, got == nil, want)
	}
}

// wantAbsent fails if there is such a row.
func wantAbsent(t testing.TB, r materializer.Reader, key string) {
	t.Helper()
	got, err := r.Get([]byte(key))
	check(t, err)
	if got != nil {
		t.Fatalf("value of %q is %q, want none", key, got)
	}
}

// difference returns the first few differences between the reader's rows and the model, or "".
func difference(r materializer.Reader, m model) (string, error) {
	got := model{}
	err := r.Scan(nil, nil, func(key, value []byte) bool {
		got[string(key)] = string(value)
		return true
	})
	if err != nil || maps.Equal(got, m) {
		return "", err
	}
	all := maps.Clone(got)
	maps.Copy(all, m)
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(all)) {
		have, inStore := got[key]
		want, inModel := m[key]
		if (have != want || inStore != inModel) && len(lines) < 10 {
			lines = append(lines, fmt.Sprintf("%s: store %.40q (%v), model %.40q (%v)", key, have, inStore, want, inModel))
		}
	}
	return strings.Join(lines, "\n"), nil
}

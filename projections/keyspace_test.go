package projections_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/internal/leaktest"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/projections"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// kinds are all kinds, with the names of their constants.
var kinds = map[projections.Kind]string{
	projections.KindPosition: "KindPosition", projections.KindRow: "KindRow", projections.KindIndex: "KindIndex",
	projections.KindAggregate: "KindAggregate", projections.KindChange: "KindChange", projections.KindParked: "KindParked",
}

// TestKeySpaceDocument compares docs/views-keyspace.md with the constants of keyspace.go.
func TestKeySpaceDocument(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "views-keyspace.md"))
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("keyspace.go")
	if err != nil {
		t.Fatal(err)
	}
	var declared, known []string
	for _, m := range regexp.MustCompile(`(?m)^\t(Kind\w+) +Kind = '(.)'`).FindAllStringSubmatch(string(source), -1) {
		declared = append(declared, fmt.Sprintf("| `%s` | %s |", m[2], m[1]))
	}
	for kind, name := range kinds {
		known = append(known, fmt.Sprintf("| `%c` | %s |", kind, name))
	}
	described := regexp.MustCompile("(?m)^\\| `.` \\| \\w+ \\|").FindAllString(string(page), -1)
	for _, list := range [][]string{declared, known, described} {
		slices.Sort(list)
	}
	if !slices.Equal(declared, known) || !slices.Equal(declared, described) {
		t.Errorf("keyspace.go has\n%q\nthis test\n%q\nand the page\n%q", declared, known, described)
	}
	for _, w := range []string{
		fmt.Sprintf("# The key space of the views, version %d\n", projections.KeyVersion),
		fmt.Sprintf("`KeyVersion`, today **%d**", projections.KeyVersion),
	} {
		if !strings.Contains(string(page), w) {
			t.Errorf("docs/views-keyspace.md does not say %q", w)
		}
	}
}

var orders = projections.Dataset{Address: materializer.Address{Generation: 1, Partition: 2}, Number: 3}

// TestGoldenKeys: these bytes lie in stores, and are taken apart into what they were made of.
func TestGoldenKeys(t *testing.T) {
	for want, test := range map[string]struct {
		key  []byte
		want projections.Key
	}{
		"00010002000000036d":        {orders.PositionKey(nil), projections.Key{Kind: projections.KindPosition}},
		"000100020000000372" + "61": {orders.RowKey(nil, []byte("a")), projections.Key{Kind: projections.KindRow, Tuple: []byte("a")}},
		"000100020000000369" + "0004" + "6162": {
			orders.IndexKey(nil, 4, []byte("a"), []byte("b")), projections.Key{Kind: projections.KindIndex, Piece: 4, Tuple: []byte("ab")},
		},
		"000100020000000367" + "0005" + "67": {
			orders.AggregateKey(nil, 5, []byte("g")), projections.Key{Kind: projections.KindAggregate, Piece: 5, Tuple: []byte("g")},
		},
		"00010002000000036c" + "0000000000000006" + "00000007": {
			orders.ChangeKey(nil, 6, 7), projections.Key{Kind: projections.KindChange, Offset: 6, Index: 7},
		},
		"00010002000000036b" + "65": {orders.ParkedKey(nil, "e"), projections.Key{Kind: projections.KindParked, Entity: "e"}},
	} {
		if got := hex.EncodeToString(test.key); got != want {
			t.Errorf("a key is %s, want %s", got, want)
		}
		test.want.Dataset = orders
		if k, err := projections.ParseKey(test.key); err != nil || fmt.Sprint(k) != fmt.Sprint(test.want) {
			t.Errorf("%s is %+v (%v), want %+v", want, k, err, test.want)
		}
	}
	for damaged, want := range map[string]string{
		"": "has no header", "0001000200000003": "has no header",
		"00010002000000036d00":                            "is not of the form of kind 'm'",
		"00010002000000036900":                            "is not of the form of kind 'i'",
		"000100020000000367":                              "is not of the form of kind 'g'",
		"00010002000000036c" + "0000000000000006":         "is not of the form of kind 'l'",
		"00010002000000036c" + "800000000000000600000007": "is not of the form of kind 'l'",
		"00010002000000037a":                              "the kind 'z', which this version does not know",
	} {
		b, err := hex.DecodeString(damaged)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := projections.ParseKey(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", damaged, err, want)
		}
	}
}

// one draws a key and the dataset that it is of, from few numbers and from the largest.
func one(t *rapid.T) []byte {
	small := func(limit uint64, name string) uint64 {
		return rapid.SampledFrom([]uint64{0, 1, 2, limit - 1, limit}).Draw(t, name)
	}
	d := projections.Dataset{
		Address: materializer.Address{
			Generation: uint16(small(0xffff, "generation")), Partition: uint16(small(0xffff, "partition")),
		},
		Number: uint32(small(0xffffffff, "dataset")),
	}
	number := uint16(small(0xffff, "number"))
	tail := []byte(rapid.SampledFrom([]string{"", "\x00", "a", "\xff", "\xff\xff"}).Draw(t, "tail"))
	switch rapid.SampledFrom([]byte("mrigkl")).Draw(t, "kind") {
	case 'm':
		return d.PositionKey(nil)
	case 'r':
		return d.RowKey(nil, tail)
	case 'i':
		return d.IndexKey(nil, number, tail, []byte("key"))
	case 'g':
		return d.AggregateKey(nil, number, tail)
	case 'k':
		return d.ParkedKey(nil, string(tail))
	default:
		return d.ChangeKey(nil, int64(small(1<<63-1, "offset")), uint32(small(0xffffffff, "index")))
	}
}

// TestRangesHaveTheirKeys: a range has the keys that it is for, and no other.
func TestRangesHaveTheirKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		of, key := one(t), one(t)
		a, err := projections.ParseKey(of)
		if err != nil {
			t.Fatal(err)
		}
		b, err := projections.ParseKey(key)
		if err != nil {
			t.Fatal(err)
		}
		check := func(what string, lower, upper []byte, want bool) {
			if got := bytes.Compare(key, lower) >= 0 && (upper == nil || bytes.Compare(key, upper) < 0); got != want {
				t.Fatalf("%s: %x is in %x to %x: %v, want %v", what, key, lower, upper, got, want)
			}
		}
		isKind := a.Dataset == b.Dataset && a.Kind == b.Kind
		lower, upper := projections.GenerationRange(a.Generation)
		check("generation", lower, upper, a.Generation == b.Generation)
		lower, upper = projections.PartitionRange(a.Address)
		check("partition", lower, upper, a.Address == b.Address)
		lower, upper = a.Range()
		check("dataset", lower, upper, a.Dataset == b.Dataset)
		lower, upper = a.KindRange(a.Kind)
		check("kind", lower, upper, isKind)
		switch a.Kind {
		case projections.KindIndex:
			lower, upper = a.IndexRange(a.Piece)
			check("index", lower, upper, isKind && a.Piece == b.Piece)
		case projections.KindAggregate:
			lower, upper = a.AggregateRange(a.Piece)
			check("aggregate", lower, upper, isKind && a.Piece == b.Piece)
		case projections.KindChange:
			lower, upper = a.ChangesBefore(a.Offset)
			check("changes", lower, upper, isKind && b.Offset < a.Offset)
		case projections.KindPosition, projections.KindRow, projections.KindParked: // no smaller ranges
		}
	})
}

// TestDroppedDatasetLeavesTheOthers drops ranges of a store.
func TestDroppedDatasetLeavesTheOthers(t *testing.T) {
	store := memstore.New()
	batch := store.NewBatch()
	var all []projections.Dataset
	for _, generation := range []uint16{1, 2} {
		for _, partition := range []uint16{0, 0xffff} {
			for _, number := range []uint32{1, 2, 0xffffffff} {
				d := projections.Dataset{
					Address: materializer.Address{Generation: generation, Partition: partition}, Number: number,
				}
				all = append(all, d)
				for _, key := range [][]byte{
					d.PositionKey(nil), d.RowKey(nil, []byte("\xff\xff")), d.IndexKey(nil, 0xffff, nil, nil),
					d.AggregateKey(nil, 1, nil), d.ChangeKey(nil, 1, 0), d.ParkedKey(nil, "e"),
				} {
					if err := batch.Put(key, []byte("v")); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	if err := batch.Commit(); err != nil {
		t.Fatal(err)
	}
	count := func() (counts []int) {
		for _, d := range all {
			n := 0
			rows := store.Iterator(d.Range())
			for more := rows.First(); more; more = rows.Next() {
				n++
			}
			if err := rows.Close(); err != nil {
				t.Fatal(err)
			}
			counts = append(counts, n)
		}
		return counts
	}
	drop := func(lower, upper []byte) {
		t.Helper()
		if err := store.DropRange(lower, upper); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		drop func()
		want []int
	}{
		{func() {}, []int{6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6}},
		{func() { drop(all[0].IndexRange(0xffff)) }, []int{5, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6}},
		{func() { drop(all[2].Range()) }, []int{5, 6, 0, 6, 6, 6, 6, 6, 6, 6, 6, 6}},
		{func() { drop(projections.PartitionRange(all[3].Address)) }, []int{5, 6, 0, 0, 0, 0, 6, 6, 6, 6, 6, 6}},
		{func() { drop(projections.GenerationRange(2)) }, []int{5, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
	} {
		step.drop()
		if got := count(); !slices.Equal(got, step.want) {
			t.Errorf("rows of the datasets are %v, want %v", got, step.want)
		}
	}
}

// FuzzParseKey: each key is taken apart or refused, and made again as it was.
func FuzzParseKey(f *testing.F) {
	f.Add(orders.IndexKey(nil, 4, []byte("a"), []byte("b")))
	f.Add(orders.ChangeKey(nil, 6, 7))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := projections.ParseKey(b)
		if err != nil {
			return
		}
		var again []byte
		switch k.Kind {
		case projections.KindPosition:
			again = k.PositionKey(nil)
		case projections.KindRow:
			again = k.RowKey(nil, k.Tuple)
		case projections.KindIndex:
			again = k.IndexKey(nil, k.Piece, k.Tuple, nil)
		case projections.KindAggregate:
			again = k.AggregateKey(nil, k.Piece, k.Tuple)
		case projections.KindChange:
			again = k.ChangeKey(nil, k.Offset, k.Index)
		case projections.KindParked:
			again = k.ParkedKey(nil, k.Entity)
		}
		if !bytes.Equal(again, b) {
			t.Errorf("%x becomes %x", b, again)
		}
	})
}

package entities

import (
	"errors"
	"strings"
	"testing"
)

// TestLayoutsThatDiffer: every field counts, and the error names both sides and, for the number of
// partitions, the setting to change.
func TestLayoutsThatDiffer(t *testing.T) {
	mine := LayoutOf("shop", 8)
	if err := mine.Differs(LayoutOf("shop", 8), "the journal"); err != nil {
		t.Errorf("alike: %v", err)
	}
	for name, test := range map[string]struct {
		other Layout
		want  []string
	}{
		"partitions": {LayoutOf("shop", 4), []string{"the journal is for 4 partitions, this process uses 8", "--partitions 4"}},
		"app":        {LayoutOf("books", 8), []string{`app "books"`, `app "shop"`}},
		"generation": {Layout{"shop", 2, 8, Slots, "murmur2"}, []string{"generation 2", "generation 1"}},
		"slots":      {Layout{"shop", 1, 8, 16384, "murmur2"}, []string{"16384 slots", "4096 slots"}},
		"hash":       {Layout{"shop", 1, 8, Slots, "xxh64"}, []string{`hash "xxh64"`, `hash "murmur2"`}},
		"none":       {Layout{}, []string{"0 partitions"}},
	} {
		err := mine.Differs(test.other, "the journal")
		if !errors.Is(err, ErrLayout) {
			t.Errorf("%s: %v, want a layout that differs", name, err)
			continue
		}
		for _, w := range test.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v does not say %q", name, err, w)
			}
		}
	}
}

// TestPartitionCounts: a power of two from 1 to the number of slots.
func TestPartitionCounts(t *testing.T) {
	for count, right := range map[int32]bool{
		-4: false, 0: false, 1: true, 2: true, 3: false, 12: false, 16: true, 4096: true, 8192: false, 1 << 30: false,
	} {
		if err := LayoutOf("shop", count).Check(); (err == nil) != right {
			t.Errorf("%d partitions: %v", count, err)
		}
	}
	l := LayoutOf("shop", 4)
	for partition, has := range map[int32]bool{-1: false, 0: true, 3: true, 4: false, 1 << 30: false} {
		if l.Has(partition) != has {
			t.Errorf("partition %d of 4: %v", partition, !has)
		}
	}
}

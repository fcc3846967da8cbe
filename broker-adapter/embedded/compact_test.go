package embedded

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// TestCompactedTopicKeepsTheNewest writes few keys many times, several times within a group, and
// reads what is left, also after a restart: the newest record of each key, and all records without
// a key, at their offsets.
func TestCompactedTopicKeepsTheNewest(t *testing.T) {
	const seed = 11
	rng := rand.New(rand.NewPCG(seed, seed))
	mem, p := vfs.NewMem(), broker.Partition{Topic: "cells", ID: 1}
	log := mustOpen(t, Options{Dir: "/log", FS: mem})
	if err := log.Create(t.Context(), broker.TopicSpec{Name: p.Topic, Partitions: 2, Compacted: true}); err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{}
	var offset int64
	for range 200 {
		records := make([]broker.Record, 1+rng.IntN(4))
		for i := range records {
			records[i].Value = fmt.Appendf(nil, "%d", offset)
			name := fmt.Sprintf("nameless %d", offset)
			if k := rng.IntN(10); k > 0 {
				name = fmt.Sprintf("key %d", k)
				records[i].Key = []byte(name)
			}
			want[name] = offset
			offset++
		}
		result := make(chan broker.AppendResult, 1)
		log.Append(p, records, func(r broker.AppendResult) { result <- r })
		if r := <-result; r.Err != nil || r.Last != offset-1 {
			t.Fatalf("append: %+v, want to end at %d", r, offset-1)
		}
	}
	for range 2 {
		if got := readCompacted(t, log, p, offset); !slices.Equal(got, sortedOffsets(want)) {
			t.Fatalf("read offsets %v, want %v", got, sortedOffsets(want))
		}
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
		log = mustOpen(t, Options{Dir: "/log", FS: mem})
	}
}

func sortedOffsets(m map[string]int64) []int64 {
	var offsets []int64
	for _, offset := range m {
		offsets = append(offsets, offset)
	}
	slices.Sort(offsets)
	return offsets
}

// readCompacted returns the offsets that are left, and checks that values belong to them.
func readCompacted(t *testing.T, log *Log, p broker.Partition, end int64) []int64 {
	t.Helper()
	r, err := log.Read(p, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	var offsets []int64
	for next := int64(0); next < end; {
		batch, err := r.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, record := range batch.Records {
			if string(record.Value) != fmt.Sprint(record.Offset) {
				t.Fatalf("offset %d holds %q", record.Offset, record.Value)
			}
			offsets = append(offsets, record.Offset)
		}
		next = batch.Next
	}
	return offsets
}

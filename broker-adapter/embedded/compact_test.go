package embedded

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// TestCompactedTopicKeepsTheNewest writes and deletes few keys many times, several times within a
// group, and reads what is left, also after each restart.
func TestCompactedTopicKeepsTheNewest(t *testing.T) {
	const seed = 11
	rng := rand.New(rand.NewPCG(seed, seed))
	mem, h := vfs.NewMem(), newHistory()
	log := mustOpen(t, Options{Dir: "/log", FS: mem})
	h.create(t, log)
	for range 10 {
		for range 40 {
			h.append(log, randomRecords(rng))
		}
		if refused := h.wait(); refused != nil {
			t.Fatal(refused)
		}
		h.verify(t, log, h.end())
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
		log = mustOpen(t, Options{Dir: "/log", FS: mem})
		h.verify(t, log, h.end())
		if rows := countRows(t, log); rows != len(h.left(h.end())) {
			t.Fatalf("seed %d: %d rows of keys, %d keys are left", seed, rows, len(h.left(h.end())))
		}
	}
}

// TestPowerCutWhileCompacting cuts the power at a random operation of the disk. What is there then
// is exactly what is left of some number of whole appends, at least of all that were acknowledged:
// a record and the end of the one that it replaces are on the disk together or not at all.
func TestPowerCutWhileCompacting(t *testing.T) {
	for _, keep := range []int{0, 50, 100} {
		for seed := range *seeds {
			t.Run(fmt.Sprintf("unsynced kept=%d%%/seed=%d", keep, seed), func(t *testing.T) {
				t.Parallel()
				cutPowerWhileCompacting(t, keep, seed)
			})
		}
	}
}

func cutPowerWhileCompacting(t *testing.T, keep int, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, uint64(keep)))
	ofDisk := rand.New(rand.NewPCG(seed, uint64(keep)+1))
	disk, h := vfs.NewCrashableMem(), newHistory()
	var (
		countdown atomic.Int64
		once      sync.Once
		after     *vfs.MemFS
		acked     int64
	)
	countdown.Store(1 << 60)
	cut := errorfs.InjectorFunc(func(errorfs.Op) error {
		if countdown.Add(-1) < 0 {
			once.Do(func() {
				acked = h.acked.Load() // first, since what is acknowledged later may be lost
				after = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: keep, RNG: ofDisk})
			})
		}
		return nil
	})
	log := mustOpen(t, Options{Dir: "/log", FS: errorfs.Wrap(disk, cut), MemTableBytes: minMemTableBytes})
	h.create(t, log)
	for range 100 {
		h.append(log, randomRecords(rng))
	}
	countdown.Store(rng.Int64N(600))
	for countdown.Load() >= 0 {
		h.append(log, randomRecords(rng))
	}
	if err := errors.Join(h.wait(), log.Close()); err != nil {
		t.Fatal(err)
	}

	again := mustOpen(t, Options{Dir: "/log", FS: after, MemTableBytes: minMemTableBytes})
	end, err := again.End(t.Context(), h.part)
	if err != nil || end < acked || !h.ends[end] {
		t.Fatalf("the log ends at %d (%v); %d was acknowledged; that is the end of an append: %t", end, err, acked,
			h.ends[end])
	}
	h.verify(t, again, end)
	h.records = h.records[:end]
	for range 20 {
		h.append(again, randomRecords(rng))
	}
	if err := h.wait(); err != nil {
		t.Fatal(err)
	}
	h.verify(t, again, h.end())
}

// randomRecords returns one to four records of ten keys, a third of them tombstones.
func randomRecords(rng *rand.Rand) []broker.Record {
	records := make([]broker.Record, 1+rng.IntN(4))
	for i := range records {
		records[i].Key = fmt.Appendf(nil, "key %d", rng.IntN(10))
		if rng.IntN(3) > 0 {
			records[i].Value = fmt.Appendf(nil, "%d", rng.Uint64())
		}
	}
	return records
}

// history is what one writer has appended to a compacted partition, by offset.
type history struct {
	part    broker.Partition
	records []broker.Record
	// ends are the offsets at which appends end; acked is the highest that was acknowledged.
	ends  map[int64]bool
	acked atomic.Int64

	slots chan struct{}
	open  sync.WaitGroup
	mu    sync.Mutex
	err   error
}

func newHistory() *history {
	return &history{
		part: broker.Partition{Topic: "shop.deltas", ID: 1}, ends: map[int64]bool{0: true},
		slots: make(chan struct{}, 8),
	}
}

func (h *history) create(t *testing.T, log *Log) {
	t.Helper()
	if err := log.Create(t.Context(), broker.TopicSpec{Name: h.part.Topic, Partitions: 2, Compacted: true}); err != nil {
		t.Fatal(err)
	}
}

func (h *history) end() int64 { return int64(len(h.records)) }

// append appends without waiting for the result, unless eight are open.
func (h *history) append(log *Log, records []broker.Record) {
	h.records = append(h.records, records...)
	end := h.end()
	h.ends[end] = true
	h.slots <- struct{}{}
	h.open.Add(1)
	log.Append(h.part, records, func(r broker.AppendResult) {
		defer h.open.Done()
		if r.Err == nil && r.Last != end-1 {
			r.Err = fmt.Errorf("append ended at %d, want %d", r.Last, end-1)
		}
		if r.Err == nil {
			h.acked.Store(end)
		}
		h.mu.Lock()
		h.err = errors.Join(h.err, r.Err)
		h.mu.Unlock()
		<-h.slots
	})
}

// wait waits for all results and returns the errors.
func (h *history) wait() error {
	h.open.Wait()
	return h.err
}

// left returns the offsets of the records that are left of those below end: the newest of each key
// unless it is a tombstone, and the last of all.
func (h *history) left(end int64) []int64 {
	newest := map[string]int64{}
	for offset, r := range h.records[:end] {
		newest[string(r.Key)] = int64(offset)
	}
	var offsets []int64
	for _, offset := range newest {
		if h.records[offset].Value != nil || offset == end-1 {
			offsets = append(offsets, offset)
		}
	}
	slices.Sort(offsets)
	return offsets
}

// verify reads the partition from several offsets and compares it with what should be left.
func (h *history) verify(t *testing.T, log *Log, end int64) {
	t.Helper()
	left := h.left(end)
	for _, from := range []int64{0, end / 2, end - 1} {
		want := slices.DeleteFunc(slices.Clone(left), func(offset int64) bool { return offset < from })
		if got := h.read(t, log, from, end); !slices.Equal(got, want) {
			t.Fatalf("from %d to %d: offsets %v, want %v", from, end, got, want)
		}
	}
}

// read returns the offsets from one to the end, and checks that each record is the one appended.
func (h *history) read(t *testing.T, log *Log, from, end int64) []int64 {
	t.Helper()
	r, err := log.Read(h.part, from)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	var offsets []int64
	for next := from; next < end; {
		batch, err := r.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, got := range batch.Records {
			want := h.records[got.Offset]
			if string(got.Key) != string(want.Key) || string(got.Value) != string(want.Value) ||
				(got.Value == nil) != (want.Value == nil) {
				t.Fatalf("offset %d holds %q=%q, want %q=%q", got.Offset, got.Key, got.Value, want.Key, want.Value)
			}
			offsets = append(offsets, got.Offset)
		}
		next = batch.Next
	}
	return offsets
}

// countRows counts the rows that find the newest record of a key.
func countRows(t *testing.T, log *Log) (n int) {
	t.Helper()
	iter, err := log.current.Load().NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = iter.Close() }()
	for ok := iter.SeekGE([]byte{newestPrefix}); ok && iter.Key()[0] == newestPrefix; ok = iter.Next() {
		n++
	}
	return n
}

// TestReaderOfSupersededRecords: all records between a reader and the end that it knew are
// superseded before it looks at them. They are a gap, not damage.
func TestReaderOfSupersededRecords(t *testing.T) {
	log, h := mustOpen(t, Options{Ephemeral: true}), newHistory()
	h.create(t, log)
	one := []broker.Record{{Key: []byte("k"), Value: []byte("1")}}
	h.append(log, one)
	h.append(log, one)
	if err := h.wait(); err != nil {
		t.Fatal(err)
	}
	opened, err := log.Read(h.part, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = opened.Close() }()
	r := opened.(*reader)   //nolint:forcetypeassert // by this log
	batch, err := r.scan(1) // as of when the log ended at 1
	if err != nil || len(batch.Records) != 0 || batch.Next != 1 || batch.End != 2 {
		t.Fatalf("a batch of %d records to %d of %d, %v; want none to 1 of 2", len(batch.Records), batch.Next, batch.End, err)
	}
	if batch, err = r.Next(t.Context()); err != nil || len(batch.Records) != 1 || batch.Records[0].Offset != 1 {
		t.Fatalf("then %+v, %v", batch, err)
	}
}

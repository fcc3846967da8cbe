package materializer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/leaktest"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

var (
	journal = broker.Partition{Topic: "app.journal", ID: 0}
	address = materializer.Address{Generation: 1}
)

// write appends records to a simulated log.
type writer struct {
	t     testing.TB
	world *simlog.World
	log   broker.Log
	epoch uint64
	// ordinal is that of the present owner's last record.
	ordinal uint64
}

func newWriter(t testing.TB) *writer {
	t.Helper()
	world := simlog.New(simlog.Options{})
	w := &writer{t: t, world: world, log: world.Client("w")}
	t.Cleanup(func() { _ = w.log.Close() })
	if err := w.log.Create(t.Context(),
		broker.TopicSpec{Name: journal.Topic, Partitions: 1, MaxRecordBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *writer) put(key, value string, env record.Envelope) {
	if env.Epoch == 0 && env.Kind != 0 {
		w.ordinal++
		env.Epoch, env.Nonce, env.Ordinal = w.epoch, 7, w.ordinal
	}
	r := broker.Record{Value: []byte(value)}
	if key != "" {
		r.Key = []byte(key)
	}
	if env.Kind != 0 {
		r.Headers = []broker.Header{{Key: record.HeaderKey, Value: env.Append(nil)}}
	}
	w.world.Inject(journal, r)
}

func (w *writer) claim() {
	w.epoch++
	w.ordinal = 0
	w.put("", "", record.Envelope{Kind: record.Claim, Epoch: w.epoch, Nonce: 7})
}

func (w *writer) end() int64 {
	end, err := w.log.End(w.t.Context(), journal)
	if err != nil {
		w.t.Fatal(err)
	}
	return end
}

// fold folds the whole log into a new store and returns both.
func (w *writer) fold(
	how func(context.Context, *materializer.Follower, int64) error,
) (materializer.Store, *materializer.Fold) {
	w.t.Helper()
	store := memstore.New()
	fold := materializer.NewFold(address, "topic", materializer.Meta{})
	reader, err := w.log.Read(journal, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	defer reader.Close()
	if err := how(w.t.Context(), materializer.NewFollower(reader, store, fold), w.end()); err != nil {
		w.t.Fatal(err)
	}
	return store, fold
}

func batched(ctx context.Context, f *materializer.Follower, until int64) error {
	return f.CatchUp(ctx, until, nil)
}

func dump(t testing.TB, s materializer.Reader) (rows []string) {
	t.Helper()
	lower, upper := address.Range()
	if err := s.Scan(lower, upper, func(key, value []byte) bool {
		rows = append(rows, fmt.Sprintf("%q = %q", key, value))
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return rows
}

// TestFoldByExample: the effect of each kind of record on an entity.
func TestFoldByExample(t *testing.T) {
	w := newWriter(t)
	w.claim()
	event := func(seq uint64, text string) {
		w.put("cart/1", text, record.Envelope{Kind: record.Event, Sequence: seq, TypeURL: "t/e", LogTime: int64(seq)})
	}
	event(1, "a")
	event(2, "b")
	w.put("cart/1", "ab", record.Envelope{Kind: record.Snapshot, Sequence: 2, TypeURL: "t/s"})
	event(3, "c")
	w.put("", "", record.Envelope{Kind: record.Barrier})
	w.put("cart/1", "never", record.Envelope{Kind: record.Event, Epoch: 9, Nonce: 9, Sequence: 4})
	w.put("", "foreign", record.Envelope{})
	w.put("counter/1", "5", record.Envelope{
		Kind: record.State, TypeURL: "t/v", CommandID: "id", Principal: "bob",
		PayloadHash: 3, Answer: []byte("yes"), LogTime: 77,
	})
	w.put("counter/2", "6", record.Envelope{Kind: record.State, TypeURL: "t/v"})
	w.put("counter/2", "", record.Envelope{Kind: record.Delete})
	w.put("cart/1", "half", record.Envelope{Kind: record.Event, Sequence: 4, Index: 0, Count: 2})

	store, fold := w.fold(batched)
	view := materializer.Partition{Rows: store, Address: address}
	cart, err := view.Load(entities.Key{Type: "cart", ID: "1"})
	if err != nil {
		t.Fatal(err)
	}
	if cart.Sequence != 3 || cart.State == nil || string(cart.State.Value) != "ab" || cart.StateSequence != 2 {
		t.Errorf("cart %+v", cart)
	}
	var tail []string
	if err := cart.Events(func(e entities.Event) error {
		tail = append(tail, fmt.Sprint(e.Sequence, string(e.Payload.Value)))
		return nil
	}); err != nil || !slices.Equal(tail, []string{"3c"}) {
		t.Errorf("events %v, %v", tail, err)
	}
	if one, err := view.Load(entities.Key{Type: "counter", ID: "1"}); err != nil || one.State == nil ||
		string(one.State.Value) != "5" {
		t.Errorf("counter 1: %+v, %v", one, err)
	}
	if two, err := view.Load(entities.Key{Type: "counter", ID: "2"}); err != nil || two.State != nil {
		t.Errorf("counter 2: %+v, %v", two, err)
	}
	if none, err := view.Load(entities.Key{Type: "cart", ID: "2"}); err != nil || none.Sequence != 0 ||
		none.Events != nil {
		t.Errorf("an entity without records: %+v, %v", none, err)
	}
	stored, ok, err := view.Stored(entities.Key{Type: "counter", ID: "1"}, "bob", "id")
	if err != nil || !ok || string(stored.Answer) != "yes" || stored.PayloadHash != 3 || stored.LogTime != 77 {
		t.Errorf("stored %+v, %v, %v", stored, ok, err)
	}
	if _, ok, _ := view.Stored(entities.Key{Type: "counter", ID: "1"}, "alice", "id"); ok {
		t.Error("another principal got bob's answer")
	}
	var offsets []int64
	if err := view.History(entities.Key{Type: "cart", ID: "1"}, func(o int64) bool {
		offsets = append(offsets, o)
		return true
	}); err != nil || !slices.Equal(offsets, []int64{1, 2, 3, 4}) {
		t.Errorf("history %v, %v", offsets, err)
	}
	if c := fold.Counts(); c.Void != 1 || c.Foreign != 1 || c.Events != 6 {
		t.Errorf("counts %+v", c)
	}
	meta, _, err := view.Meta()
	if err != nil || meta.Next != w.end()-1 {
		t.Errorf("next is %d, %v: it must stand before the open group at %d", meta.Next, err, w.end()-1)
	}

	if n, err := materializer.Expire(store, address, 78, 78, 10); err != nil || n != 1 {
		t.Errorf("expired %d, %v", n, err)
	}
	if _, ok, _ := view.Stored(entities.Key{Type: "counter", ID: "1"}, "bob", "id"); ok {
		t.Error("the command id is still there")
	}
}

// TestEveryWayOfFoldingIsTheSame: random logs with several owners, groups, dedup rows, void and
// foreign records, folded in batches, in bulk with overlays of any size, and from any place where a
// former fold stopped.
func TestEveryWayOfFoldingIsTheSame(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			w := newWriter(t)
			randomLog(w, rnd, 600)
			store, _ := w.fold(batched)
			want := dump(t, store)
			for _, size := range []int{1, 2_000, 1 << 20} {
				bulk, _ := w.fold(func(ctx context.Context, f *materializer.Follower, until int64) error {
					return f.Bulk(ctx, until, size)
				})
				if got := dump(t, bulk); !slices.Equal(got, want) {
					t.Fatalf("in bulk with an overlay of %d bytes: %d rows, in batches %d\n%s", size, len(got), len(want),
						firstDifference(got, want))
				}
			}
			resumed := memstore.New()
			for stop := int64(0); stop < w.end(); stop += 1 + rnd.Int64N(100) {
				w.resume(resumed, stop)
			}
			w.resume(resumed, w.end())
			if got := dump(t, resumed); !slices.Equal(got, want) {
				t.Fatalf("in pieces: %s", firstDifference(got, want))
			}
		})
	}
}

// resume continues the fold at the store's position.
func (w *writer) resume(store materializer.Store, until int64) {
	w.t.Helper()
	meta, _, err := materializer.Partition{Rows: store, Address: address}.Meta()
	if err != nil {
		w.t.Fatal(err)
	}
	reader, err := w.log.Read(journal, meta.Next)
	if err != nil {
		w.t.Fatal(err)
	}
	defer reader.Close()
	fold := materializer.NewFold(address, "topic", meta)
	if err := materializer.NewFollower(reader, store, fold).CatchUp(w.t.Context(), until, nil); err != nil {
		w.t.Fatal(err)
	}
}

func firstDifference(got, want []string) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("row %d: %s, want %s", i, got[i], want[i])
		}
	}
	return fmt.Sprintf("%d rows, want %d", len(got), len(want))
}

// randomLog writes n groups of a few entities under changing owners.
func randomLog(w *writer, rnd *rand.Rand, n int) {
	w.claim()
	sequence, snapshot := map[string]uint64{}, map[string]uint64{}
	for i := range n {
		switch rnd.IntN(20) {
		case 0:
			w.claim()
		case 1:
			w.put("", "void", record.Envelope{Kind: record.Event, Epoch: w.epoch, Nonce: 99, Sequence: 1})
		case 2:
			w.put("", "foreign", record.Envelope{})
		case 3, 4, 5, 6, 7:
			key := fmt.Sprint("counter/", rnd.IntN(5))
			kind := record.State
			if rnd.IntN(4) == 0 {
				kind = record.Delete
			}
			w.put(key, fmt.Sprint(i), record.Envelope{
				Kind: kind, TypeURL: "t/v", LogTime: int64(i),
				CommandID: fmt.Sprint(rnd.IntN(40)), Answer: []byte{byte(i)},
			})
		default:
			key := fmt.Sprint("cart/", rnd.IntN(5))
			events := 1 + rnd.IntN(3)
			withSnapshot := rnd.IntN(6) == 0
			count := uint32(events)
			if withSnapshot {
				count++
			}
			for e := range events {
				sequence[key]++
				w.put(key, fmt.Sprint(i), record.Envelope{
					Kind: record.Event, Sequence: sequence[key], TypeURL: "t/e",
					LogTime: int64(i), Index: uint32(e), Count: count,
				})
			}
			if withSnapshot {
				w.put(key, "s", record.Envelope{
					Kind: record.Snapshot, Sequence: sequence[key], PreviousSnapshot: snapshot[key],
					TypeURL: "t/s", Index: count - 1, Count: count,
				})
				snapshot[key] = sequence[key]
			}
		}
	}
}

// TestUnknownKindsStopTheFold: a valid record that this version does not know is an error with its
// offset, never skipped.
func TestUnknownKindsStopTheFold(t *testing.T) {
	w := newWriter(t)
	w.claim()
	w.put("cart/1", "x", record.Envelope{Kind: 99})
	store := memstore.New()
	fold := materializer.NewFold(address, "topic", materializer.Meta{})
	reader, err := w.log.Read(journal, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	err = materializer.NewFollower(reader, store, fold).CatchUp(t.Context(), w.end(), nil)
	if !errors.Is(err, materializer.ErrUnfoldable) || !bytes.Contains([]byte(err.Error()), []byte("offset 1")) {
		t.Errorf("error %v; want one that names offset 1", err)
	}
}

// TestAMissingEventIsFoundOut: an entity whose tail lacks an event is not loaded.
func TestAMissingEventIsFoundOut(t *testing.T) {
	w := newWriter(t)
	w.claim()
	w.put("cart/1", "a", record.Envelope{Kind: record.Event, Sequence: 1, TypeURL: "t/e"})
	w.put("cart/1", "c", record.Envelope{Kind: record.Event, Sequence: 3, TypeURL: "t/e"})
	store, _ := w.fold(batched)
	loaded, err := materializer.Partition{Rows: store, Address: address}.Load(entities.Key{Type: "cart", ID: "1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := loaded.Events(func(entities.Event) error { return nil }); !errors.Is(err, materializer.ErrCorrupt) {
		t.Errorf("error %v, want %v", err, materializer.ErrCorrupt)
	}
}

// TestClaimsSetTheLogsClock: a claim counts by the log's append time, and log time never goes back.
func TestClaimsSetTheLogsClock(t *testing.T) {
	w := newWriter(t)
	before := time.Now().UnixNano()
	w.claim()
	_, fold := w.fold(batched)
	if lt := fold.Meta().LogTime; lt < before || lt > time.Now().UnixNano() {
		t.Errorf("log time %d, appended between %d and now", lt, before)
	}
	was := fold.Meta().LogTime
	w.put("counter/1", "1", record.Envelope{Kind: record.State, LogTime: 5})
	if _, fold = w.fold(batched); fold.Meta().LogTime < was {
		t.Error("log time went back")
	}
}

// TestReleased: a partition has no owner before the first claim, and after a release by its owner.
func TestReleased(t *testing.T) {
	w := newWriter(t)
	released := func() bool {
		_, fold := w.fold(func(ctx context.Context, f *materializer.Follower, end int64) error {
			return f.CatchUp(ctx, end, nil)
		})
		return fold.Released()
	}
	for _, step := range []struct {
		what string
		do   func()
		want bool
	}{
		{"an empty log", func() {}, true},
		{"a claim", w.claim, false},
		{"a release by another worker", func() { w.put("", "", record.Envelope{Kind: record.Release, Epoch: 9, Nonce: 9, Ordinal: 1}) }, false},
		{"a release by the owner", func() { w.put("", "", record.Envelope{Kind: record.Release}) }, true},
		{"the next claim", w.claim, false},
	} {
		if step.do(); released() != step.want {
			t.Errorf("after %s the partition counts as released: %v", step.what, !step.want)
		}
	}
}

package readside_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities/record"
	ordersv1 "github.com/millrace-io/millrace/examples/orders/orders/v1"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/materializer/pebblestore"
	"github.com/millrace-io/millrace/projections"
	"github.com/millrace-io/millrace/tests/kit"
	"github.com/millrace-io/millrace/tests/readside"
)

// image is a journal of one partition and the image of a worker that has folded all of it.
type image struct {
	world *simlog.World
	log   broker.Log
	feed  *materializer.Feed
	size  int
}

const topic = "millrace.journal"

func (i *image) Address() materializer.Address { return materializer.Address{Generation: 1} }
func (i *image) Feed() *materializer.Feed      { return i.feed }
func (i *image) Role() materializer.Role       { return i.feed.Role() }
func (i *image) Folded() (int64, bool)         { return i.feed.Position() }

// newImage writes so many events of orders: three for each, of which the first needs expressions.
func newImage(t testing.TB, events int) *image {
	t.Helper()
	i := &image{world: simlog.New(simlog.Options{}), size: events}
	i.log = i.world.Client("w")
	t.Cleanup(func() { _ = i.log.Close() })
	at := broker.Partition{Topic: topic}
	spec := broker.TopicSpec{Name: topic, Partitions: 1, MaxRecordBytes: 1 << 20}
	if err := i.log.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	put := func(key string, m proto.Message, env record.Envelope) {
		r := broker.Record{}
		if m != nil {
			wire, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			r.Key, r.Value = []byte(key), wire
			env.Kind, env.TypeURL = record.Event, "type.googleapis.com/"+string(m.ProtoReflect().Descriptor().FullName())
		}
		env.Epoch, env.Nonce = 1, 7
		r.Headers = []broker.Header{{Key: record.HeaderKey, Value: env.Append(nil)}}
		i.world.Inject(at, r)
	}
	put("", nil, record.Envelope{Kind: record.Claim, Claim: &record.ClaimInfo{}})
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range events {
		order, step := n/3, n%3
		var m proto.Message = &ordersv1.OrderShipped{Carrier: "rail"}
		switch step {
		case 0:
			m = placed(fmt.Sprintf("customer %d", rng.IntN(1000)), rng.Int64N(10_000), rng.Int64N(10_000))
		case 1:
			m = &ordersv1.OrderNoted{Text: "call before"}
		}
		put(fmt.Sprintf("order/%08x-%d", uint32(order)*2654435761, order), m, record.Envelope{
			Ordinal: uint64(n + 1), Sequence: uint64(step + 1), LogTime: 1_700_000_000_000_000_000 + int64(n)*1_000_000,
		})
	}
	i.fold(t, at)
	return i
}

// fold folds the journal into an image, and opens its feed.
func (i *image) fold(t testing.TB, at broker.Partition) {
	t.Helper()
	store := memstore.New()
	made := &materializer.Image{
		Log: i.log, Journal: at, TopicID: "topic", Store: store, Address: i.Address(), Rebuilds: make(chan struct{}, 1),
	}
	i.feed = materializer.NewFeeds(64 << 20).Feed(made)
	fold := materializer.NewFold(i.Address(), "topic", materializer.Meta{})
	reader, err := i.log.Read(at, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	follower := materializer.NewFollower(reader, store, fold)
	end, err := i.log.End(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	if err := follower.CatchUp(t.Context(), end, nil); err != nil {
		t.Fatal(err)
	}
	i.feed.Open(fold, materializer.Following).Publish()
}

// build lets an engine build the views of the example, and returns its store.
func build(t testing.TB, i *image) materializer.Store {
	t.Helper()
	store, err := pebblestore.Open(pebblestore.Options{Dir: t.TempDir(), MemTableBytes: 32 << 20, Compactions: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	engine := projections.New(projections.Options{Store: func() (materializer.Store, error) { return store, nil }})
	all := exampleProjections(t)
	engine.Define([]*projections.View{
		{Projection: all["orders"], Dataset: 1, Indexes: []uint16{1, 2}, Aggregates: []uint16{1}, Live: true},
		{Projection: all["customers"], Dataset: 2, Indexes: []uint16{1}, Live: true},
	})
	engine.Attach(i)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- engine.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	kit.AwaitWithin(t, 5*time.Minute, "the views", func() bool {
		orders, _ := engine.Ready(1)
		customers, _ := engine.Ready(2)
		return orders && customers
	})
	return store
}

// TestABuildIsTheLog compares the store of an engine with the recomputation.
func TestABuildIsTheLog(t *testing.T) {
	i := newImage(t, 3_000)
	store := build(t, i)
	partitions, err := readside.Read(t.Context(), i.log, topic)
	if err != nil {
		t.Fatal(err)
	}
	compared, err := readside.CompareStore(store, partitions)
	if err != nil {
		t.Fatal(err)
	}
	for _, difference := range compared.Different {
		t.Error(difference)
	}
	if compared.Rows != 1_000 || compared.Entries != 1_000 || compared.Groups != 1 {
		t.Errorf("compared %+v", compared)
	}
}

// BenchmarkBuild builds the views of the example, of whose events a third needs expressions, and
// reads the same journal without a fold.
func BenchmarkBuild(b *testing.B) {
	const events = 300_000
	i := newImage(b, events)
	b.Run("build", func(b *testing.B) {
		for b.Loop() {
			build(b, i)
		}
		b.ReportMetric(float64(events*b.N)/b.Elapsed().Seconds(), "events/s")
	})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if _, err := readside.Read(b.Context(), i.log, topic); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(events*b.N)/b.Elapsed().Seconds(), "events/s")
	})
}

package projections_test

import (
	"fmt"
	"testing"

	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/materializer/pebblestore"
	"github.com/millrace-io/millrace/projections"
	"github.com/millrace-io/millrace/tests/kit"
)

// BenchmarkBuild folds a journal of orders, each placed, paid and shipped, from the beginning: two
// indexes, one aggregate, an expression in a third of the records.
func BenchmarkBuild(b *testing.B) {
	const orders = 20_000
	f := &fixture{world: newWorld(b, 1, 64<<20), views: memstore.New(), sequence: map[string]uint64{}}
	for i := range orders {
		id := fmt.Sprint(i * 7919 % orders)
		f.event("order/"+id, "OrderPlaced", placed(fmt.Sprint("customer", i%1000), int64(1+i%9)))
		f.put("payment/"+id, []byte{8, byte(1 + i%100)}, stateOf("Payment"))
		f.event("order/"+id, "OrderShipped", nil)
	}
	f.put("", nil, record.Envelope{Kind: record.Barrier})
	f.catchUp()
	view := f.ordersView("park-key", 1, 2, 3)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		store, err := pebblestore.Open(pebblestore.Options{Dir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		f.engine = projections.New(projections.Options{Store: func() (materializer.Store, error) { return store, nil }})
		f.engine.Define([]*projections.View{view})
		f.run()
		kit.Await(b, "the build", func() bool {
			ready, _ := f.engine.Ready(ordersDataset)
			return ready && f.statusOf(ordersDataset).Position == f.end()
		})
		f.stop()
		if err := store.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*3*orders)/b.Elapsed().Seconds(), "records/s")
}

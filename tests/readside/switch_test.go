package readside_test

import (
	"context"
	"errors"
	"testing"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/projections/query"
	"github.com/millrace-io/millrace/tests/readside"
)

// dropping is an executor whose first dataset is dropped when it is asked for: another version is
// promoted at that moment, if promote is there.
type dropping struct {
	*memory

	promote func()
}

func (d *dropping) Open(ctx context.Context, s *query.Scan) (query.Rows, error) {
	if s.Dataset == 1 {
		if d.promote != nil {
			d.promote()
		}
		return nil, &query.NotHereError{Partition: s.Partition, State: "ABSENT", Progress: "it was dropped"}
	}
	return d.memory.Open(ctx, s)
}

// TestAPromotionFailsNoQuery promotes a version while a query of the one before is on its way to
// the rows, which are dropped. Without a promotion the caller learns of it.
func TestAPromotionFailsNoQuery(t *testing.T) {
	customers := exampleProjections(t)["customers"]
	empty, err := (&readside.Rows{}).StoredCustomers()
	if err != nil {
		t.Fatal(err)
	}
	for _, promoted := range []bool{true, false} {
		d := &dropping{memory: &memory{datasets: map[uint32][]*readside.Dataset{1: {empty}, 3: {empty}}}}
		s := query.New(query.Options{App: "shop", Executor: d, Freshness: d.memory})
		define := func(dataset uint32) {
			view := &query.View{
				Projection: customers, Version: "1", Dataset: dataset, Indexes: []uint16{1}, Promoted: true,
			}
			if err := s.Define([]*query.View{view}, make([]byte, query.KeySize)); err != nil {
				t.Fatal(err)
			}
		}
		define(1)
		if promoted {
			d.promote = func() { define(3) }
		}
		_, err := s.Handle(t.Context(), &entities.Command{
			Service: "millrace.query.customers.CustomersQuery", Method: "ListByCity",
		})
		failed, _ := errors.AsType[*entities.Error](err)
		if promoted != (err == nil) || failed != nil && failed.Reason != entities.Unavailable {
			t.Errorf("promoted: %v: %v", promoted, err)
		}
	}
}

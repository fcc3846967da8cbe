package partitions

import (
	"errors"
	"testing"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/partitions/core"
	"github.com/millrace-io/millrace/partitions/routing"
)

// TestUnknownTargetsMayComeLater: while workers serve different versions, an unknown target is not
// a final error.
func TestUnknownTargetsMayComeLater(t *testing.T) {
	unknown := entities.Errorf(entities.UnknownMethod, entities.NotApplied, "service s has no method M")
	table := routing.NewTable()
	table.Set(&broker.Table{Members: []broker.Member{{Name: "a", Serves: "1"}, {Name: "b", Serves: "2"}, {Name: "c"}}})
	_, err := whileMixed{unknowing{err: unknown}, table}.Resolve(entities.Target{})
	if got := entities.AsError(err); got.Reason != entities.Unavailable || core.Hopeless(got) {
		t.Errorf("a target that is not known here: %v, want that it is to be tried again", err)
	}
}

// unknowing is a function that does not know a target.
type unknowing struct {
	Functions

	err error
}

func (f unknowing) Resolve(entities.Target) (*entities.Command, error) { return nil, f.err }

// TestBarredWorkerClaimsNothing: a worker that by its first table does not belong to the app
// leaves, and the log has no claim of it.
func TestBarredWorkerClaimsNothing(t *testing.T) {
	log := simlog.New(simlog.Options{}).Client("w")
	defer log.Close()
	if err := log.Create(t.Context(), broker.TopicSpec{Name: topic, Partitions: 1, MaxRecordBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	info, err := log.Describe(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	why := errors.New("other services")
	m := NewManager(Options{
		App: "app", Worker: "w", Topic: info, Membership: broker.Membership{Group: "app", Worker: "w", Topic: topic},
		Log: log, Store: memstore.New(),
		Admit: func(*broker.Table) error { return why },
	})
	ended, claimed := make(chan error, 1), make(chan error, 1)
	go func() { ended <- m.Run(t.Context()) }() // received below, or ended with the test
	reader, err := log.Read(broker.Partition{Topic: topic, ID: 0}, 0)
	if err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the test at the latest
		_, err := reader.Next(t.Context())
		claimed <- err
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, why) {
			t.Errorf("the worker ended with %v, want %v", err, why)
		}
	case err := <-claimed:
		t.Fatalf("the worker has written to the log (%v)", err)
	}
	if end, err := log.End(t.Context(), broker.Partition{Topic: topic, ID: 0}); end != 0 || err != nil {
		t.Errorf("the log ends at %d, %v; want that nothing is in it", end, err)
	}
}

package repair

import (
	"errors"
	"testing"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
)

var journal = broker.Partition{Topic: "app.journal", ID: 0}

// folded is an image that has folded a claim and two barriers of a log.
func folded(t *testing.T) (*simlog.World, *materializer.Image) {
	t.Helper()
	world := simlog.New(simlog.Options{})
	log := world.Client("w")
	t.Cleanup(func() { _ = log.Close() })
	if err := log.Create(t.Context(), broker.TopicSpec{
		Name: journal.Topic, Partitions: 1, MaxRecordBytes: 1 << 20,
	}); err != nil {
		t.Fatal(err)
	}
	info, err := log.Describe(t.Context(), journal.Topic)
	if err != nil {
		t.Fatal(err)
	}
	image := &materializer.Image{
		Log: log, Journal: journal, TopicID: info.ID, Layout: entities.LayoutOf("app", 1),
		Store: memstore.New(), Address: materializer.Address{Generation: 1}, Rebuilds: make(chan struct{}, 1),
	}
	for ordinal, kind := range []record.Kind{record.Claim, record.Barrier, record.Barrier} {
		env := record.Envelope{Kind: kind, Epoch: 1, Nonce: 7, Ordinal: uint64(ordinal)}
		if kind == record.Claim {
			env.Claim = &record.ClaimInfo{Worker: "w", Layout: image.Layout}
		}
		world.Inject(journal, broker.Record{Headers: []broker.Header{{Key: record.HeaderKey, Value: env.Append(nil)}}})
	}
	reader, err := image.Read(0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	fold := materializer.NewFold(image.Address, image.TopicID, materializer.Meta{})
	if err := materializer.NewFollower(reader, image.Store, fold).CatchUp(t.Context(), 3, nil); err != nil {
		t.Fatal(err)
	}
	return world, image
}

// TestRetryWantsTheLogThatWasFolded, and nothing else.
func TestRetryWantsTheLogThatWasFolded(t *testing.T) {
	world, image := folded(t)
	r := New(Options{Image: image})
	defer r.Close()
	s, err := r.Survey(t.Context(), materializer.Retry)
	if err != nil || s.End != 3 || s.Owner != (record.Owner{Epoch: 1, Nonce: 7}) {
		t.Errorf("%+v, %v; want that all is there", s, err)
	}
	world.Truncate(journal, 2)
	if _, err := r.Survey(t.Context(), materializer.Retry); !errors.Is(err, broker.ErrRegressed) {
		t.Errorf("%v, want ErrRegressed", err)
	}
}

// TestEvidenceRefusesWhatDoesNotHelp, by cause.
func TestEvidenceRefusesWhatDoesNotHelp(t *testing.T) {
	_, image := folded(t)
	r := New(Options{Image: image})
	for _, test := range []struct {
		cause   error
		refused []materializer.Choice
	}{
		{broker.ErrRegressed, nil},
		{materializer.ErrLost, []materializer.Choice{materializer.AppendImage}},
		{entities.ErrLayout, []materializer.Choice{materializer.AcceptLoss, materializer.AppendImage}},
		{materializer.ErrUnfoldable, []materializer.Choice{materializer.AcceptLoss, materializer.AppendImage}},
	} {
		e, err := r.Evidence(t.Context(), test.cause)
		if err != nil || e.Next != 3 || e.End != 3 || e.Cause != test.cause.Error() {
			t.Errorf("%v: %+v, %v", test.cause, e, err)
		}
		for _, choice := range test.refused {
			if e.Refused[choice] == "" {
				t.Errorf("%v: %s is offered", test.cause, choice)
			}
		}
		if len(e.Refused) != len(test.refused) {
			t.Errorf("%v: refused %v, want %v", test.cause, e.Refused, test.refused)
		}
	}
}

// TestInspectionOfADamagedLog: what is found is kept for the next worker on the store, unless a
// repair has come between.
func TestInspectionOfADamagedLog(t *testing.T) {
	world, image := folded(t)
	world.Remove(journal, 1, 2)
	i := NewInspector(image)
	if i.Suspected() {
		t.Error("a log is suspected without a mark")
	}
	if err := MarkSuspected(image.Store, []*Inspector{i}); err != nil || !NewInspector(image).Suspected() {
		t.Errorf("%v; want that the next worker suspects the log", err)
	}
	found, err := i.Inspect(t.Context())
	if err != nil || !errors.Is(found.Damage, materializer.ErrLost) {
		t.Fatalf("found %v, %v; want what is lost", found.Damage, err)
	}
	alarms := 0
	alarm := func(string) { alarms++ }
	i.Conclude(found, alarm)
	if last := i.Last(); !last.Over || last.Damage == nil || alarms != 1 {
		t.Errorf("%+v, %d alarms; want the damage, and one", last, alarms)
	}
	if damage := NewInspector(image).Last().Damage; damage == nil || damage.Error() != found.Damage.Error() {
		t.Errorf("the next worker has %v, want %v", damage, found.Damage)
	}
	i.Forget()
	i.Conclude(found, alarm)
	if last := i.Last(); last != (Inspection{}) || alarms != 1 {
		t.Errorf("%+v, %d alarms; want that a repair has made the finding out of date", last, alarms)
	}
}

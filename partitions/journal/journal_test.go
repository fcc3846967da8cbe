package journal

import (
	"errors"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities"
)

const topic = "app.journal"

// TestTheFirstDeclarationCounts: a journal without data gets the layout of the worker that comes
// first, once; another layout is refused with both named, and nothing is written.
func TestTheFirstDeclarationCounts(t *testing.T) {
	world := simlog.New(simlog.Options{})
	log := world.Client("w")
	defer log.Close()
	if err := log.Create(t.Context(), broker.TopicSpec{Name: topic, Partitions: 4, MaxRecordBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	info, err := log.Describe(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	first := Declaration{Log: log, Topic: info, Layout: entities.LayoutOf("app", 4), Worker: "w", Nonce: 7}
	for range 2 { // it finds its own
		if err := first.Ensure(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	other := first
	other.Layout = entities.LayoutOf("books", 4)
	err = other.Ensure(t.Context())
	if !errors.Is(err, entities.ErrLayout) || !strings.Contains(err.Error(), `"app"`) || !strings.Contains(err.Error(), `"books"`) {
		t.Errorf("another layout: %v; want both named", err)
	}
	if n := len(world.Records(broker.Partition{Topic: topic})); n != 1 {
		t.Errorf("partition 0 has %d records, want the declaration", n)
	}
}

// TestCheckSettings names every setting that is wrong, with its remedy.
func TestCheckSettings(t *testing.T) {
	info := broker.TopicInfo{Name: topic}
	if err := CheckSettings(info); err != nil {
		t.Error(err)
	}
	info.Violations = []broker.Violation{
		{Setting: "retention.ms", Found: "1", Wanted: "-1", Remedy: "set it"}, {Setting: "cleanup.policy", Found: "compact", Wanted: "delete", Remedy: "alter it"},
	}
	err := CheckSettings(info)
	if err == nil || !strings.Contains(err.Error(), "retention.ms is 1, wanted -1: set it") ||
		!strings.Contains(err.Error(), "cleanup.policy is compact, wanted delete: alter it") {
		t.Errorf("%v; want both settings", err)
	}
}

// TestCheckPartitions: more than the layout has are accepted only if the operator allowed it, fewer
// never.
func TestCheckPartitions(t *testing.T) {
	layout := entities.LayoutOf("app", 4)
	for _, test := range []struct {
		partitions int32
		more, ok   bool
	}{{4, false, true}, {4, true, true}, {8, true, true}, {8, false, false}, {2, false, false}, {2, true, false}} {
		err := CheckPartitions(layout, broker.TopicInfo{Name: topic, Partitions: test.partitions}, test.more)
		if (err == nil) != test.ok || err != nil && !errors.Is(err, entities.ErrLayout) {
			t.Errorf("%d partitions, more %v: %v", test.partitions, test.more, err)
		}
	}
}

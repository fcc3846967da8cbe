package node

import (
	"errors"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
)

// onSharedLog starts a node on a log that is not its own.
func onSharedLog(t *testing.T, world *simlog.World, given bool, change func(*Config)) error {
	t.Helper()
	c := testConfig(t)
	c.Ephemeral = true
	if change != nil {
		change(c)
	}
	n, err := Start(t.Context(), Options{Config: c, PartitionsGiven: given, Local: local(t, "counter"), Log: world.Client("w")})
	if err == nil {
		end(t, n)
	}
	return err
}

func TestMissingTopicIsCreatedOrAskedFor(t *testing.T) {
	world := simlog.New(simlog.Options{})
	err := onSharedLog(t, world, false, func(c *Config) { c.CreateTopics = false })
	missing, ok := errors.AsType[*MissingTopicError](err)
	if !ok || missing.Topic != "millrace.journal" || missing.Command == "" || !strings.Contains(err.Error(), "topic millrace.journal is missing and create-topics is false") {
		t.Errorf("error %v, want the missing topic with the command that creates it", err)
	}
	if err := onSharedLog(t, world, false, nil); err != nil {
		t.Errorf("with leave to create it: %v", err)
	}
	if err := onSharedLog(t, world, false, func(c *Config) { c.CreateTopics = false }); err != nil {
		t.Errorf("once it is there: %v", err)
	}
}

func TestTopicThatDoesNotFit(t *testing.T) {
	world := simlog.New(simlog.Options{})
	client := world.Client("operator")
	defer client.Close()
	for topic, partitions := range map[string]int32{"four.journal": 4, "three.journal": 3, "bad.journal": 2} {
		if err := client.Create(t.Context(), broker.TopicSpec{Name: topic, Partitions: partitions}); err != nil {
			t.Fatal(err)
		}
	}
	world.Violate("bad.journal", broker.Violation{Setting: "cleanup.policy", Found: "compact", Wanted: "delete", Remedy: "alter it"})
	for _, tc := range []struct {
		app   string
		given bool
		want  string
	}{
		{"four", true, "topic four.journal has 4 partitions, not 2: leave --partitions out"},
		{"four", false, ""},
		{"three", false, "topic three.journal has 3 partitions: a journal needs a power of two"},
		{"bad", false, "topic bad.journal: cleanup.policy is compact, wanted delete: alter it"},
	} {
		err := onSharedLog(t, world, tc.given, func(c *Config) { c.App = tc.app })
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s, partitions given %v: %v, want %q", tc.app, tc.given, err, tc.want)
		}
	}
}

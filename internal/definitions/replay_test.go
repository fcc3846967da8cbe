package definitions_test

import (
	"encoding/hex"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/internal/definitions"
	definitionsv1 "github.com/millrace-io/millrace/proto/gen/millrace/definitions/v1"
	"github.com/millrace-io/millrace/sdk"
)

// history drives the entity with commands and keeps what is stored.
type history struct {
	t        *rapid.T
	entity   sdk.Entity
	events   []sdk.Payload
	snapshot *sdk.Payload
	taken    int
	now      time.Time
}

func (h *history) open(from *sdk.Payload, sequence int) sdk.Entity {
	e, err := definitions.Services()[0].NewEntity(definitions.EntityID)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := e.Load(from, uint64(sequence)); err != nil {
		h.t.Fatal(err)
	}
	for i, event := range h.events[sequence:] {
		if err := e.Apply(uint64(sequence+i+1), event); err != nil {
			h.t.Fatal(err)
		}
	}
	return e
}

func (h *history) send(method string, in proto.Message) {
	payload, err := proto.Marshal(in)
	if err != nil {
		h.t.Fatal(err)
	}
	h.now = h.now.Add(time.Minute)
	inv := sdk.Invocation{Method: method, Payload: sdk.Payload{Value: payload}, Time: h.now}
	d, err := h.entity.Handle(h.t.Context(), inv)
	if err != nil {
		h.t.Fatal(err)
	}
	h.events = append(h.events, d.Events...)
	if d.Restart {
		h.entity = h.open(h.snapshot, h.taken)
	}
}

// state is what an entity describes.
func (h *history) state(e sdk.Entity) *definitionsv1.State {
	payload, err := proto.Marshal(&definitionsv1.DescribeRequest{App: definitions.EntityID})
	if err != nil {
		h.t.Fatal(err)
	}
	d, err := e.Handle(h.t.Context(), sdk.Invocation{Method: "Describe", Payload: sdk.Payload{Value: payload}})
	if err != nil {
		h.t.Fatal(err)
	}
	reply := &definitionsv1.DescribeResponse{}
	if err := proto.Unmarshal(d.Reply.Value, reply); err != nil {
		h.t.Fatal(err)
	}
	return reply.GetState()
}

// TestReplayGivesTheSameNumbers: whatever is applied, promoted, rolled back and dropped, the entity
// is the same from its events and from any snapshot; a number never names two things; at most one
// version of a definition is in force.
func TestReplayGivesTheSameNumbers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := &history{t: t, now: at}
		h.entity = h.open(nil, 0)
		names := map[string]string{}
		for range rapid.IntRange(1, 40).Draw(t, "commands") {
			step(t, h)
			s := h.state(h.entity)
			if s.GetRevision() != int64(len(h.events)) {
				t.Fatalf("revision %d after %d events", s.GetRevision(), len(h.events))
			}
			for _, rebuilt := range []*definitionsv1.State{h.state(h.open(nil, 0)), h.state(h.open(h.snapshot, h.taken))} {
				if !proto.Equal(s, rebuilt) {
					t.Fatalf("the entity is\n%v\nand, from what is stored,\n%v", s, rebuilt)
				}
			}
			mustBeUnique(t, s, names)
			if rapid.Bool().Draw(t, "snapshot") {
				snapshot, err := h.entity.Snapshot()
				if err != nil {
					t.Fatal(err)
				}
				h.snapshot, h.taken = snapshot, len(h.events)
			}
		}
	})
}

// step sends one command. Many are refused.
func step(t *rapid.T, h *history) {
	name := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name")
	v := version(rapid.Int32Range(1, 4).Draw(t, "number"), rapid.Int32Range(0, 2).Draw(t, "dev"))
	const kind = "Projection"
	switch rapid.IntRange(0, 10).Draw(t, "command") {
	case 0:
		h.send("Promote", &definitionsv1.PromoteRequest{App: definitions.EntityID, Kind: kind, Name: name, Version: v})
	case 1:
		h.send("Rollback", &definitionsv1.RollbackRequest{App: definitions.EntityID, Kind: kind, Name: name})
	case 2:
		h.send("Drop", &definitionsv1.DropRequest{App: definitions.EntityID, Kind: kind, Name: name, Version: v})
	case 3:
		h.send("Rebuild", &definitionsv1.RebuildRequest{App: definitions.EntityID, Kind: kind, Name: name})
	case 4:
		h.send("EndRebuild", &definitionsv1.EndRebuildRequest{
			App: definitions.EntityID, Dataset: rapid.Uint32Range(1, 8).Draw(t, "dataset"),
		})
	case 5:
		if rapid.Bool().Draw(t, "pause") {
			h.send("Pause", &definitionsv1.PauseRequest{App: definitions.EntityID, Kind: kind, Name: name})
			return
		}
		h.send("Resume", &definitionsv1.ResumeRequest{App: definitions.EntityID, Kind: kind, Name: name})
	case 6:
		h.send("Skip", &definitionsv1.SkipRequest{
			App: definitions.EntityID, Kind: kind, Name: name, Dataset: rapid.Uint32Range(1, 8).Draw(t, "dataset"),
			Skip: &definitionsv1.Skip{Offset: 3, Entity: "order/1"},
		})
	default:
		content := fmt.Sprint(rapid.IntRange(0, 9).Draw(t, "content"))
		d := draft(v.GetNumber(), content, rapid.SampledFrom([]string{"x", "y"}).Draw(t, "fold"))
		d.Name = name
		d.KeepPrevious = durationpb.New(time.Duration(rapid.IntRange(0, 1).Draw(t, "keep")))
		d.Indexes[0].Form = rapid.SampledFrom([]string{"f", "g"}).Draw(t, "form")
		in := applying(d)
		in.Dev, in.Lenient = rapid.Bool().Draw(t, "profile dev"), rapid.Bool().Draw(t, "lenient")
		in.PageKey = []byte{1}
		h.send("Apply", in)
	}
}

// mustBeUnique holds each number to what it named when it was seen first, names has that.
func mustBeUnique(t *rapid.T, s *definitionsv1.State, names map[string]string) {
	meaning := func(number, is string) {
		if was, seen := names[number]; seen && was != is {
			t.Fatalf("%s was %s and is %s", number, was, is)
		}
		names[number] = is
	}
	for _, def := range s.GetDefinitions() {
		inForce := 0
		for _, l := range def.GetVersions() {
			a := l.GetApplied()
			dataset := fmt.Sprintf("dataset %d", a.GetDataset())
			meaning(dataset, a.GetName()+" "+a.GetFoldHash())
			for _, n := range a.GetIndexes() {
				meaning(fmt.Sprintf("%s index %d", dataset, n.GetNumber()), n.GetForm())
			}
			if l.GetStage() == definitions.Promoted {
				inForce++
			}
		}
		if inForce > 1 {
			t.Fatalf("%d versions of %s are in force", inForce, def.GetName())
		}
	}
}

// TestGoldenBytes: what is stored is read for ever.
func TestGoldenBytes(t *testing.T) {
	stamp := timestamppb.New(at)
	event := &definitionsv1.Applied{
		Kind: "Projection", Name: "orders", Version: version(4, 2), Document: "d", File: "f.yaml", Captured: []string{"c"},
		Content: "h", FoldHash: "x", Dataset: 7, Indexes: []*definitionsv1.Number{{Name: "i", Form: "g", Number: 3}},
		Aggregates: []*definitionsv1.Number{{Name: "a", Form: "g", Number: 1}}, Manual: true,
		KeepPrevious: durationpb.New(time.Hour), Uses: []string{"u"}, At: stamp, By: "ann",
	}
	for _, stored := range []struct {
		message, empty proto.Message
		bytes          string
	}{
		{
			event, &definitionsv1.Applied{},
			"0a0a50726f6a656374696f6e12066f72646572731a04080410022201642a06662e79616d6c3201633a016842017848075208" +
				"0a016912016718035a080a0161120167180160016a0308901c7201757a0608c0cab5d806820103616e6e",
		},
		{
			&definitionsv1.Promoted{
				Kind: "Projection", Name: "orders", Version: version(4, 0), At: stamp, By: "ann", Missing: "m",
			}, &definitionsv1.Promoted{}, "0a0a50726f6a656374696f6e12066f72646572731a020804220608c0cab5d8062a03616e6e32016d",
		},
		{
			&definitionsv1.RolledBack{
				Kind: "Projection", Name: "orders", From: version(4, 0), To: version(3, 0), At: stamp, By: "ann",
			}, &definitionsv1.RolledBack{}, "0a0a50726f6a656374696f6e12066f72646572731a020804220208032a0608c0cab5d8063203616e6e",
		},
		{
			&definitionsv1.Dropped{
				Kind: "Projection", Name: "orders", Version: version(4, 0), Reason: "r", At: stamp, By: "ann",
			}, &definitionsv1.Dropped{}, "0a0a50726f6a656374696f6e12066f72646572731a0208042201722a0608c0cab5d8063203616e6e",
		},
		{
			&definitionsv1.RebuildBegan{
				Kind: "Projection", Name: "orders", Version: version(4, 0), Dataset: 7, Next: 8, At: stamp, By: "ann",
			}, &definitionsv1.RebuildBegan{},
			"0a0a50726f6a656374696f6e12066f72646572731a02080420072808320608c0cab5d8063a03616e6e",
		},
		{
			&definitionsv1.Rebuilt{
				Kind: "Projection", Name: "orders", Version: version(4, 0), Dataset: 7, Next: 8, At: stamp, By: "ann",
			}, &definitionsv1.Rebuilt{},
			"0a0a50726f6a656374696f6e12066f72646572731a02080420072808320608c0cab5d8063a03616e6e",
		},
		{
			&definitionsv1.Paused{Kind: "Projection", Name: "orders", Version: version(4, 0), Dataset: 7, At: stamp, By: "ann"},
			&definitionsv1.Paused{}, "0a0a50726f6a656374696f6e12066f72646572731a02080420072a0608c0cab5d8063203616e6e",
		},
		{
			&definitionsv1.Resumed{Kind: "Projection", Name: "orders", Version: version(4, 0), Dataset: 7, At: stamp, By: "ann"},
			&definitionsv1.Resumed{}, "0a0a50726f6a656374696f6e12066f72646572731a02080420072a0608c0cab5d8063203616e6e",
		},
		{
			&definitionsv1.Skipped{
				Kind: "Projection", Name: "orders", Version: version(4, 0), Dataset: 7, At: stamp, By: "ann",
				Skip: &definitionsv1.Skip{Partition: 2, Offset: 9, Entity: "o/1"},
			}, &definitionsv1.Skipped{},
			"0a0a50726f6a656374696f6e12066f72646572731a02080420072a09080210091a036f2f31320608c0cab5d8063a03616e6e",
		},
		{
			&definitionsv1.Dataset{
				Dataset: 7, NextIndex: 4, NextAggregate: 2, Rebuild: 8, Paused: true, Skips: []*definitionsv1.Skip{{Offset: 9}},
			}, &definitionsv1.Dataset{}, "0807100418022008280132021009",
		},
		{&definitionsv1.PageKeyChosen{Key: []byte{1, 2}}, &definitionsv1.PageKeyChosen{}, "0a020102"},
		{&definitionsv1.Blob{Content: []byte{1, 2}}, &definitionsv1.Blob{}, "0a020102"},
		{
			&definitionsv1.Captured{EntityTypes: []*definitionsv1.EntityType{{Name: "order", Service: "s", Events: true}}},
			&definitionsv1.Captured{}, "120c0a056f726465721201731801",
		},
		{
			&definitionsv1.State{
				Revision: 9, NextDataset: 8, PageKey: []byte{1},
				Definitions: []*definitionsv1.Definition{{
					Kind: "Projection", Name: "orders", Highest: version(4, 2), Versions: []*definitionsv1.Live{{
						Applied: &definitionsv1.Applied{Name: "orders"}, Stage: definitions.Kept, Since: stamp, Held: true, Promoted: 5,
					}},
				}},
				Datasets: []*definitionsv1.Dataset{{Dataset: 7, NextIndex: 4, NextAggregate: 2}},
				History: []*definitionsv1.Change{{
					Revision: 9, At: stamp, By: "ann", Kind: "Projection", Name: "orders", Version: version(4, 2), What: "applied",
				}},
			}, &definitionsv1.State{},
			"080912340a0a50726f6a656374696f6e12066f72646572731a040804100222180a0812066f726465727310031a0608c0cab5" +
				"d80620012805180822060807100418022a010132320809120608c0cab5d8061a03616e6e220a50726f6a656374696f6e2a06" +
				"6f72646572733204080410023a076170706c696564",
		},
	} {
		name := stored.message.ProtoReflect().Descriptor().Name()
		got, err := proto.MarshalOptions{Deterministic: true}.Marshal(stored.message)
		if err != nil {
			t.Fatal(err)
		}
		if hex.EncodeToString(got) != stored.bytes {
			t.Errorf("%s is stored as\n%x, want\n%s", name, got, stored.bytes)
		}
		old, err := hex.DecodeString(stored.bytes)
		if err == nil {
			err = proto.Unmarshal(old, stored.empty)
		}
		if err != nil || !proto.Equal(stored.empty, stored.message) {
			t.Errorf("%s is read as %v (%v), want %v", name, stored.empty, err, stored.message)
		}
	}
}

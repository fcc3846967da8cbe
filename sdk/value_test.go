package sdk_test

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/sdk"
	scriptv1 "github.com/millrace-io/millrace/sdk/internal/script/v1"
)

// updated is a decision that sets the value.
func updated(t *testing.T, text string) sdk.Decision {
	t.Helper()
	return sdk.Decision{StateAction: sdk.StateUpdated, State: *stored(t, text), Reply: replies(t, text)}
}

func TestAValueIsUpdatedAndDeleted(t *testing.T) {
	entity := open(t, cellService())
	equal(t, "nothing yet", decide(t, entity), sdk.Decision{Reply: replies(t, "")})
	equal(t, "set", decide(t, entity, update("A")), updated(t, "A"))
	equal(t, "read", decide(t, entity), sdk.Decision{Reply: replies(t, "A")})
	equal(t, "deleted", decide(t, entity, remove()), sdk.Decision{StateAction: sdk.StateDeleted, Reply: replies(t, "")})
	equal(t, "nothing again", decide(t, entity), sdk.Decision{Reply: replies(t, "")})
	equal(t, "set again", decide(t, entity, update("B")), updated(t, "B"))
}

func TestTheLastUpdateOrDeleteCounts(t *testing.T) {
	entity := open(t, cellService())
	equal(t, "update twice", decide(t, entity, update("A"), update("B")), updated(t, "B"))
	equal(t, "update, delete", decide(t, entity, update("C"), remove()),
		sdk.Decision{StateAction: sdk.StateDeleted, Reply: replies(t, "")})
	equal(t, "update, delete, update", decide(t, entity, update("D"), remove(), update("E")), updated(t, "E"))
}

func TestARefusedCommandLeavesTheValueAlone(t *testing.T) {
	entity := open(t, cellService())
	decide(t, entity, update("A"))
	refusal := sdk.Decision{Refusal: &sdk.Refusal{Code: codes.NotFound, Message: "no"}}
	equal(t, "after update", decide(t, entity, update("B"), effect("x"), notFound("no")), refusal)
	equal(t, "after delete", decide(t, entity, remove(), notFound("no")), refusal)
	equal(t, "after a change in place", decide(t, entity, emit("C"), notFound("no")), refusal)
	equal(t, "read", decide(t, entity), sdk.Decision{Reply: replies(t, "A")})
}

// State is a copy: changing it in place shows only in the command.
func TestAChangeInPlaceWithoutUpdateIsLost(t *testing.T) {
	entity := open(t, cellService())
	decide(t, entity, update("A"))
	equal(t, "in place", decide(t, entity, emit("B")), sdk.Decision{Reply: replies(t, "B")})
	equal(t, "read", decide(t, entity), sdk.Decision{Reply: replies(t, "A")})
}

func TestACrashLeavesNoDecision(t *testing.T) {
	mustCrash(t, open(t, cellService()), "script.v1.CellService/Run of cell/e1: panic: boom", update("A"), panics("boom"))
	mustCrash(t, open(t, cellService()), "disk on fire", update("A"), crash("disk on fire"))
	nothing := sdk.Value("cell", sdk.HandleValue(cellRun,
		func(cmd *sdk.ValueCommand[*scriptv1.Stored], _ *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
			cmd.Update(nil)
			return nil, nil
		}))
	mustCrash(t, open(t, nothing), "cmd.Update(nil): use cmd.Delete")
	garbled := sdk.Value("cell", sdk.HandleValue(cellRun,
		func(cmd *sdk.ValueCommand[*scriptv1.Stored], _ *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
			cmd.Update(&scriptv1.Stored{Text: "\xff"})
			return nil, nil
		}))
	mustCrash(t, open(t, garbled), "encode script.v1.Stored")
}

func TestAValueIsLoaded(t *testing.T) {
	entity := open(t, cellService())
	empty := entity.Size()
	image, ok := entity.Image().(*scriptv1.Stored)
	if !ok || image != nil {
		t.Errorf("image without a value: %v", entity.Image())
	}
	if err := entity.Load(nil, 0); err != nil {
		t.Fatal(err)
	}
	if err := entity.Load(stored(t, "A"), 0); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(entity.Image().(*scriptv1.Stored), &scriptv1.Stored{Text: "A"}) {
		t.Errorf("image: %v", entity.Image())
	}
	if entity.Size() <= empty {
		t.Errorf("size %d, empty %d", entity.Size(), empty)
	}
	equal(t, "read", decide(t, entity), sdk.Decision{Reply: replies(t, "A")})
}

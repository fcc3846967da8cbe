package sdk_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/eventsourced"
	"github.com/millrace-io/millrace/sdk"
	scriptv1 "github.com/millrace-io/millrace/sdk/internal/script/v1"
)

// What a proxy sends to an event-sourced entity, and what it gets.

func journalInit(snapshot *eventsourced.EventSourcedSnapshot) *eventsourced.EventSourcedStreamIn {
	return &eventsourced.EventSourcedStreamIn{Message: &eventsourced.EventSourcedStreamIn_Init{
		Init: &eventsourced.EventSourcedInit{ServiceName: "script.v1.JournalService", EntityId: entityID, Snapshot: snapshot},
	}}
}

func journalEvent(t *testing.T, sequence int64, text string) *eventsourced.EventSourcedStreamIn {
	return &eventsourced.EventSourcedStreamIn{Message: &eventsourced.EventSourcedStreamIn_Event{
		Event: &eventsourced.EventSourcedEvent{Sequence: sequence, Payload: pack(t, appended(text)[0])},
	}}
}

func journalCommand(t *testing.T, id int64, steps ...*scriptv1.Step) *eventsourced.EventSourcedStreamIn {
	return &eventsourced.EventSourcedStreamIn{Message: &eventsourced.EventSourcedStreamIn_Command{
		Command: &cloudstate.Command{EntityId: entityID, Id: id, Name: "Run", Payload: pack(t, run(steps...))},
	}}
}

func journalReply(reply *eventsourced.EventSourcedReply) *eventsourced.EventSourcedStreamOut {
	return &eventsourced.EventSourcedStreamOut{Message: &eventsourced.EventSourcedStreamOut_Reply{Reply: reply}}
}

func journalFailure(id int64, description string) *eventsourced.EventSourcedStreamOut {
	return &eventsourced.EventSourcedStreamOut{Message: &eventsourced.EventSourcedStreamOut_Failure{
		Failure: &cloudstate.Failure{CommandId: id, Description: description},
	}}
}

func TestJournalEventsAndSnapshots(t *testing.T) {
	f := startAll(t)
	f.journal(t).
		send(journalInit(nil)).
		send(journalCommand(t, 1)).
		expect(journalReply(&eventsourced.EventSourcedReply{CommandId: 1, ClientAction: replyAction(t, "")})).
		send(journalCommand(t, 2, emits("A", "B", "C", "D")...)).
		expect(journalReply(&eventsourced.EventSourcedReply{
			CommandId: 2, ClientAction: replyAction(t, "ABCD"), Events: anyEvents(t, "A", "B", "C", "D"),
		})).
		send(journalCommand(t, 3, emit("E"))).
		expect(journalReply(&eventsourced.EventSourcedReply{
			CommandId: 3, ClientAction: replyAction(t, "ABCDE"), Events: anyEvents(t, "E"), Snapshot: anyStored(t, "ABCDE"),
		})).
		send(journalCommand(t, 4, emits("F", "G", "H", "I", "J", "K")...)).
		expect(journalReply(&eventsourced.EventSourcedReply{
			CommandId: 4, ClientAction: replyAction(t, "ABCDEFGHIJK"), Events: anyEvents(t, "F", "G", "H", "I", "J", "K"),
			Snapshot: anyStored(t, "ABCDEFGHIJK"),
		})).
		passivate()
}

func TestJournalIsRebuiltFromSnapshotAndEvents(t *testing.T) {
	f := startAll(t)
	f.journal(t).
		send(journalInit(&eventsourced.EventSourcedSnapshot{SnapshotSequence: 5, Snapshot: anyStored(t, "ABCDE")})).
		send(journalEvent(t, 6, "F")).
		send(journalEvent(t, 7, "G")).
		send(journalCommand(t, 1)).
		expect(journalReply(&eventsourced.EventSourcedReply{CommandId: 1, ClientAction: replyAction(t, "ABCDEFG")})).
		send(journalCommand(t, 2, emits("H", "I", "J")...)).
		expect(journalReply(&eventsourced.EventSourcedReply{
			CommandId: 2, ClientAction: replyAction(t, "ABCDEFGHIJ"), Events: anyEvents(t, "H", "I", "J"),
			Snapshot: anyStored(t, "ABCDEFGHIJ"),
		})).
		passivate()
}

func TestJournalForwardsAndEffects(t *testing.T) {
	f := startAll(t)
	f.journal(t).
		send(journalInit(nil)).
		send(journalCommand(t, 1, forward("f"))).
		expect(journalReply(&eventsourced.EventSourcedReply{CommandId: 1, ClientAction: forwardAction(t, "f")})).
		send(journalCommand(t, 2, emit("A"), effect("1"), effect("2"), forward("f"))).
		expect(journalReply(&eventsourced.EventSourcedReply{
			CommandId: 2, ClientAction: forwardAction(t, "f"), Events: anyEvents(t, "A"),
			SideEffects: wireEffects(t, false, "1", "2"),
		})).
		send(journalCommand(t, 3, awaited("3"))).
		expect(journalReply(&eventsourced.EventSourcedReply{
			CommandId: 3, ClientAction: replyAction(t, "A"), SideEffects: wireEffects(t, true, "3"),
		})).
		passivate()
}

// A refusal carries neither events nor effects; the code is there if it says more than UNKNOWN;
// after an event it asks for a restart.
func TestJournalRefusals(t *testing.T) {
	f := startAll(t)
	f.journal(t).
		send(journalInit(nil)).
		send(journalCommand(t, 1, effect("x"), refuse("expected failure"))).
		expect(journalReply(&eventsourced.EventSourcedReply{
			CommandId: 1, ClientAction: failureAction(&cloudstate.Failure{CommandId: 1, Description: "expected failure"}),
		})).
		send(journalCommand(t, 2, notFound("not here"))).
		expect(journalReply(&eventsourced.EventSourcedReply{
			CommandId: 2, ClientAction: failureAction(&cloudstate.Failure{
				CommandId: 2, Description: "not here",
				GrpcCode: int32(codes.NotFound),
			}),
		})).
		send(journalCommand(t, 3, emit("A"))).
		expect(journalReply(&eventsourced.EventSourcedReply{
			CommandId: 3, ClientAction: replyAction(t, "A"),
			Events: anyEvents(t, "A"),
		})).
		send(journalCommand(t, 4, emit("4"), emit("5"), refuse("failure 1"))).
		expect(journalReply(&eventsourced.EventSourcedReply{
			CommandId: 4, ClientAction: failureAction(&cloudstate.Failure{
				CommandId: 4, Description: "failure 1",
				Restart: true,
			}),
		})).
		passivate()
}

// A crash is a failure of the whole stream, which the function then ends.
func TestJournalCrashes(t *testing.T) {
	f := startAll(t)
	f.journal(t).
		send(journalInit(nil)).
		send(journalCommand(t, 7, emit("A"), panics("boom"))).
		expect(journalFailure(7, "script.v1.JournalService/Run of journal/e1: panic: boom")).
		expectEnd()
	f.journal(t).
		send(journalInit(nil)).
		send(journalCommand(t, 1, refuse("no"), emit("A"))).
		expect(journalReply(&eventsourced.EventSourcedReply{
			CommandId: 1, ClientAction: failureAction(&cloudstate.Failure{CommandId: 1, Description: "no", Restart: true}),
		})).
		send(journalCommand(t, 2)).
		expect(journalFailure(2, "script.v1.JournalService/Run of journal/e1: the image is ahead of what is stored; it has to be rebuilt before the next command")).
		expectEnd()
}

func TestJournalConversationsOutOfOrder(t *testing.T) {
	f := startAll(t)
	f.journal(t).send(journalCommand(t, 1)).
		expect(journalFailure(1, "command Run came before init")).expectEnd()
	f.journal(t).send(journalEvent(t, 1, "A")).
		expect(journalFailure(0, "event 1 came before init")).expectEnd()
	f.journal(t).send(journalInit(nil)).send(journalInit(nil)).
		expect(journalFailure(0, "init: a second one on the stream")).expectEnd()
	f.journal(t).send(&eventsourced.EventSourcedStreamIn{}).
		expect(journalFailure(0, "a message of an unknown kind from the proxy")).expectEnd()
	f.journal(t).send(journalInit(nil)).send(journalEvent(t, 2, "A")).
		expect(journalFailure(0, "replay journal/e1: event 2 came after event 0")).expectEnd()

	foreign := journalInit(nil)
	foreign.GetInit().ServiceName = "script.v1.CellService"
	f.journal(t).send(foreign).
		expect(journalFailure(0, "init e1: this function has no event-sourced service script.v1.CellService; the proxy should discover it again")).
		expectEnd()
	stray := journalCommand(t, 1)
	stray.GetCommand().EntityId = "e2"
	f.journal(t).send(journalInit(nil)).send(stray).
		expect(journalFailure(1, `command Run is for entity "e2", the stream is that of "e1"`)).expectEnd()
}

// TestTheContextEndsWithTheDeadline: a handler that returns its context's error then has given the
// command up. That is no crash, and the session ends, since its memory may be ahead.
func TestTheContextEndsWithTheDeadline(t *testing.T) {
	patient := make(chan bool, 1)
	waits := sdk.EventSourced("journal", func(string) *journal { return &journal{} },
		sdk.Handle(journalRun, func(_ *journal, cmd *sdk.Command, _ *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
			<-cmd.Context().Done()
			return nil, fmt.Errorf("wait: %w", cmd.Context().Err())
		}),
		sdk.Handle(journalRead,
			func(_ *journal, cmd *sdk.Command, _ *scriptv1.ReadRequest) (*scriptv1.ReadResponse, error) {
				_, has := cmd.Context().Deadline()
				patient <- !has
				return &scriptv1.ReadResponse{}, nil
			}),
		sdk.On((*journal).appended),
	)
	read := journalCommand(t, 1)
	read.GetCommand().Name, read.GetCommand().Payload = "Read", pack(t, &scriptv1.ReadRequest{Id: entityID})
	read.GetCommand().Context = &cloudstate.CommandContext{}
	wait := journalCommand(t, 2)
	wait.GetCommand().Context = &cloudstate.CommandContext{TimeoutNanos: int64(5 * time.Millisecond)}
	gaveUp := journalFailure(2, "the handler gave the command up at the deadline of its caller")
	gaveUp.GetFailure().GrpcCode = int32(codes.DeadlineExceeded)
	f := start(t, waits)
	f.journal(t).send(journalInit(nil)).send(read).
		expect(journalReply(&eventsourced.EventSourcedReply{CommandId: 1, ClientAction: &cloudstate.ClientAction{
			Action: &cloudstate.ClientAction_Reply{Reply: &cloudstate.Reply{Payload: pack(t, &scriptv1.ReadResponse{})}},
		}})).
		send(wait).expect(gaveUp).expectEnd()
	if !<-patient {
		t.Error("the context of a command without a deadline has one")
	}
}

func TestTheContextOfACommandIsRead(t *testing.T) {
	f := startAll(t)
	read := &eventsourced.EventSourcedStreamIn{
		Message: &eventsourced.EventSourcedStreamIn_Command{Command: &cloudstate.Command{
			EntityId: entityID, Id: 1, Name: "Read", Payload: pack(t, &scriptv1.ReadRequest{Id: entityID}),
			Context: &cloudstate.CommandContext{
				CommandId: "c-1", Principal: "ada", TimeUnixNanos: 1_700_000_000_000_000_007,
				Metadata: &cloudstate.Metadata{Entries: []*cloudstate.MetadataEntry{
					{Key: "trace-bin", Value: &cloudstate.MetadataEntry_BytesValue{BytesValue: []byte{1}}},
					{Key: "user-agent", Value: &cloudstate.MetadataEntry_StringValue{StringValue: "curl"}},
				}},
			},
		}},
	}
	want := &scriptv1.ReadResponse{
		EntityId: entityID, CommandId: "c-1", Principal: "ada", Agent: "curl",
		TimeUnixNanos: 1_700_000_000_000_000_007,
	}
	f.journal(t).send(journalInit(nil)).send(read).
		expect(journalReply(&eventsourced.EventSourcedReply{CommandId: 1, ClientAction: &cloudstate.ClientAction{
			Action: &cloudstate.ClientAction_Reply{Reply: &cloudstate.Reply{Payload: pack(t, want)}},
		}})).
		passivate()
}

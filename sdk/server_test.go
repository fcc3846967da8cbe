package sdk_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/eventsourced"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/valueentity"
	"github.com/millrace-io/millrace/sdk"
	scriptv1 "github.com/millrace-io/millrace/sdk/internal/script/v1"
)

// These tests play the proxy: they send what a proxy sends and compare whole messages, as Cloudstate's conformance tests
// of user functions do.

// function is a running function and a proxy's line to it.
type function struct {
	server *sdk.Server
	conn   *grpc.ClientConn
}

// start serves services in memory until the test ends.
func start(t *testing.T, services ...*sdk.Service) function {
	t.Helper()
	server, err := sdk.NewServer(services...)
	if err != nil {
		t.Fatal(err)
	}
	listener := bufconn.Listen(1 << 20)
	rpc := grpc.NewServer(grpc.WaitForHandlers(true))
	server.Register(rpc)
	served := make(chan error, 1)
	go func() { served <- rpc.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///function", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Close()
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		rpc.GracefulStop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return function{server: server, conn: conn}
}

func startAll(t *testing.T) function {
	t.Helper()
	return start(t, journalService(), cellService(), flowService())
}

// pack puts a message into an Any as the protocol has it.
func pack(t testing.TB, m proto.Message) *anypb.Any {
	t.Helper()
	p := payload(t, m)
	return &anypb.Any{TypeUrl: p.TypeURL, Value: p.Value}
}

// same compares whole messages.
func same(t testing.TB, got, want proto.Message) {
	t.Helper()
	if !proto.Equal(got, want) {
		t.Errorf("\n got %v\nwant %v", got, want)
	}
}

// talk is a proxy's stream with an entity.
type talk[In, Out proto.Message] struct {
	t      *testing.T
	stream interface {
		Send(In) error
		Recv() (Out, error)
		CloseSend() error
	}
}

func (c talk[In, Out]) send(in In) talk[In, Out] {
	c.t.Helper()
	if err := c.stream.Send(in); err != nil {
		c.t.Fatal(err)
	}
	return c
}

func (c talk[In, Out]) expect(want Out) talk[In, Out] {
	c.t.Helper()
	got, err := c.stream.Recv()
	if err != nil {
		c.t.Fatal(err)
	}
	same(c.t, got, want)
	return c
}

// passivate half-closes and expects a clean end.
func (c talk[In, Out]) passivate() {
	c.t.Helper()
	if err := c.stream.CloseSend(); err != nil {
		c.t.Fatal(err)
	}
	c.expectEnd()
}

// expectEnd expects the function to have ended the stream in order.
func (c talk[In, Out]) expectEnd() {
	c.t.Helper()
	if got, err := c.stream.Recv(); !errors.Is(err, io.EOF) {
		c.t.Fatalf("want the end of the stream, got %v, %v", got, err)
	}
}

type (
	journalTalk = talk[*eventsourced.EventSourcedStreamIn, *eventsourced.EventSourcedStreamOut]
	cellTalk    = talk[*valueentity.ValueEntityStreamIn, *valueentity.ValueEntityStreamOut]
)

func (f function) journal(t *testing.T) journalTalk {
	t.Helper()
	stream, err := eventsourced.NewEventSourcedClient(f.conn).Handle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return journalTalk{t, stream}
}

func (f function) cell(t *testing.T) cellTalk {
	t.Helper()
	stream, err := valueentity.NewValueEntityClient(f.conn).Handle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return cellTalk{t, stream}
}

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

func replyAction(t *testing.T, text string) *cloudstate.ClientAction {
	return &cloudstate.ClientAction{Action: &cloudstate.ClientAction_Reply{Reply: &cloudstate.Reply{Payload: pack(t, response(text))}}}
}

func forwardAction(t *testing.T, text string) *cloudstate.ClientAction {
	return &cloudstate.ClientAction{Action: &cloudstate.ClientAction_Forward{Forward: wireForward(t, text)}}
}

func wireForward(t *testing.T, text string) *cloudstate.Forward {
	return &cloudstate.Forward{ServiceName: "script.v1.FlowService", CommandName: "Unary", Payload: pack(t, request(text))}
}

func failureAction(failure *cloudstate.Failure) *cloudstate.ClientAction {
	return &cloudstate.ClientAction{Action: &cloudstate.ClientAction_Failure{Failure: failure}}
}

func anyEvents(t *testing.T, texts ...string) []*anypb.Any {
	var events []*anypb.Any
	for _, event := range appended(texts...) {
		events = append(events, pack(t, event))
	}
	return events
}

func anyStored(t *testing.T, text string) *anypb.Any { return pack(t, &scriptv1.Stored{Text: text}) }

func wireEffects(t *testing.T, synchronous bool, texts ...string) []*cloudstate.SideEffect {
	var effects []*cloudstate.SideEffect
	for _, text := range texts {
		effects = append(effects, &cloudstate.SideEffect{
			ServiceName: "script.v1.FlowService", CommandName: "Unary", Payload: pack(t, request(text)), Synchronous: synchronous,
		})
	}
	return effects
}

func TestDiscovery(t *testing.T) {
	f := start(t, journalService().PassivateAfter(100*time.Millisecond), cellService(), flowService())
	discovery := cloudstate.NewEntityDiscoveryClient(f.conn)
	spec, err := discovery.Discover(t.Context(), &cloudstate.ProxyInfo{ProtocolMinorVersion: 2, ProxyName: "test"})
	if err != nil {
		t.Fatal(err)
	}
	want := []*cloudstate.Entity{
		{
			EntityType: "cloudstate.eventsourced.EventSourced", ServiceName: "script.v1.JournalService", PersistenceId: "journal",
			PassivationStrategy: &cloudstate.EntityPassivationStrategy{Strategy: &cloudstate.EntityPassivationStrategy_Timeout{
				Timeout: &cloudstate.TimeoutPassivationStrategy{Timeout: 100},
			}},
		},
		{EntityType: "cloudstate.valueentity.ValueEntity", ServiceName: "script.v1.CellService", PersistenceId: "cell"},
		{EntityType: "cloudstate.action.ActionProtocol", ServiceName: "script.v1.FlowService"},
	}
	if len(spec.GetEntities()) != len(want) {
		t.Fatalf("entities: %v", spec.GetEntities())
	}
	for i, entity := range spec.GetEntities() {
		same(t, entity, want[i])
	}
	info := spec.GetServiceInfo()
	if info.GetProtocolMajorVersion() != 0 || info.GetProtocolMinorVersion() != 2 {
		t.Errorf("protocol version: %v", info)
	}
	equal(t, "extensions", info.GetMillraceExtensions(), []cloudstate.MillraceExtension{
		cloudstate.MillraceExtension_MILLRACE_COMMAND_CONTEXT, cloudstate.MillraceExtension_MILLRACE_FAILURE_CODE,
	})

	// The descriptors are complete, and dependencies come first.
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(spec.GetProto(), &set); err != nil {
		t.Fatal(err)
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		t.Fatal(err)
	}
	for _, entity := range want {
		if _, err := files.FindDescriptorByName(protoreflect.FullName(entity.GetServiceName())); err != nil {
			t.Error(err)
		}
	}
	if _, err := discovery.ReportError(t.Context(), &cloudstate.UserFunctionError{Message: "reported by a test"}); err != nil {
		t.Error(err)
	}
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
			CommandId: 2, ClientAction: replyAction(t, "ABCDEFGHIJ"), Events: anyEvents(t, "H", "I", "J"), Snapshot: anyStored(t, "ABCDEFGHIJ"),
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
			CommandId: 2, ClientAction: forwardAction(t, "f"), Events: anyEvents(t, "A"), SideEffects: wireEffects(t, false, "1", "2"),
		})).
		send(journalCommand(t, 3, awaited("3"))).
		expect(journalReply(&eventsourced.EventSourcedReply{
			CommandId: 3, ClientAction: replyAction(t, "A"), SideEffects: wireEffects(t, true, "3"),
		})).
		passivate()
}

// A refusal carries neither events nor effects; the code is there if it says more than UNKNOWN; after an event it asks for
// a restart.
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
			CommandId: 2, ClientAction: failureAction(&cloudstate.Failure{CommandId: 2, Description: "not here", GrpcCode: int32(codes.NotFound)}),
		})).
		send(journalCommand(t, 3, emit("A"))).
		expect(journalReply(&eventsourced.EventSourcedReply{CommandId: 3, ClientAction: replyAction(t, "A"), Events: anyEvents(t, "A")})).
		send(journalCommand(t, 4, emit("4"), emit("5"), refuse("failure 1"))).
		expect(journalReply(&eventsourced.EventSourcedReply{
			CommandId: 4, ClientAction: failureAction(&cloudstate.Failure{CommandId: 4, Description: "failure 1", Restart: true}),
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

func TestTheContextOfACommandIsRead(t *testing.T) {
	f := startAll(t)
	read := &eventsourced.EventSourcedStreamIn{Message: &eventsourced.EventSourcedStreamIn_Command{Command: &cloudstate.Command{
		EntityId: entityID, Id: 1, Name: "Read", Payload: pack(t, &scriptv1.ReadRequest{Id: entityID}),
		Context: &cloudstate.CommandContext{
			CommandId: "c-1", Principal: "ada", TimeUnixNanos: 1_700_000_000_000_000_007,
			Metadata: &cloudstate.Metadata{Entries: []*cloudstate.MetadataEntry{
				{Key: "trace-bin", Value: &cloudstate.MetadataEntry_BytesValue{BytesValue: []byte{1}}},
				{Key: "user-agent", Value: &cloudstate.MetadataEntry_StringValue{StringValue: "curl"}},
			}},
		},
	}}}
	want := &scriptv1.ReadResponse{EntityId: entityID, CommandId: "c-1", Principal: "ada", Agent: "curl", TimeUnixNanos: 1_700_000_000_000_000_007}
	f.journal(t).send(journalInit(nil)).send(read).
		expect(journalReply(&eventsourced.EventSourcedReply{CommandId: 1, ClientAction: &cloudstate.ClientAction{
			Action: &cloudstate.ClientAction_Reply{Reply: &cloudstate.Reply{Payload: pack(t, want)}},
		}})).
		passivate()
}

// What a proxy sends to a value entity, and what it gets.

func cellInit(value *anypb.Any) *valueentity.ValueEntityStreamIn {
	return &valueentity.ValueEntityStreamIn{Message: &valueentity.ValueEntityStreamIn_Init{Init: &valueentity.ValueEntityInit{
		ServiceName: "script.v1.CellService", EntityId: entityID, State: &valueentity.ValueEntityInitState{Value: value},
	}}}
}

func cellCommand(t *testing.T, id int64, steps ...*scriptv1.Step) *valueentity.ValueEntityStreamIn {
	return &valueentity.ValueEntityStreamIn{Message: &valueentity.ValueEntityStreamIn_Command{
		Command: &cloudstate.Command{EntityId: entityID, Id: id, Name: "Run", Payload: pack(t, run(steps...))},
	}}
}

func cellReply(reply *valueentity.ValueEntityReply) *valueentity.ValueEntityStreamOut {
	return &valueentity.ValueEntityStreamOut{Message: &valueentity.ValueEntityStreamOut_Reply{Reply: reply}}
}

func cellFailure(id int64, description string) *valueentity.ValueEntityStreamOut {
	return &valueentity.ValueEntityStreamOut{Message: &valueentity.ValueEntityStreamOut_Failure{
		Failure: &cloudstate.Failure{CommandId: id, Description: description},
	}}
}

func cellUpdate(t *testing.T, text string) *valueentity.ValueEntityAction {
	return &valueentity.ValueEntityAction{Action: &valueentity.ValueEntityAction_Update{
		Update: &valueentity.ValueEntityUpdate{Value: anyStored(t, text)},
	}}
}

func cellDelete() *valueentity.ValueEntityAction {
	return &valueentity.ValueEntityAction{Action: &valueentity.ValueEntityAction_Delete{Delete: &valueentity.ValueEntityDelete{}}}
}

func TestCellStates(t *testing.T) {
	f := startAll(t)
	f.cell(t).
		send(cellInit(nil)).
		send(cellCommand(t, 1)).
		expect(cellReply(&valueentity.ValueEntityReply{CommandId: 1, ClientAction: replyAction(t, "")})).
		send(cellCommand(t, 2, update("A"))).
		expect(cellReply(&valueentity.ValueEntityReply{CommandId: 2, ClientAction: replyAction(t, "A"), StateAction: cellUpdate(t, "A")})).
		send(cellCommand(t, 3, remove())).
		expect(cellReply(&valueentity.ValueEntityReply{CommandId: 3, ClientAction: replyAction(t, ""), StateAction: cellDelete()})).
		send(cellCommand(t, 4, update("B"), remove(), update("C"))).
		expect(cellReply(&valueentity.ValueEntityReply{CommandId: 4, ClientAction: replyAction(t, "C"), StateAction: cellUpdate(t, "C")})).
		passivate()
	f.cell(t).
		send(cellInit(anyStored(t, "C"))).
		send(cellCommand(t, 1)).
		expect(cellReply(&valueentity.ValueEntityReply{CommandId: 1, ClientAction: replyAction(t, "C")})).
		passivate()
}

func TestCellForwardsEffectsAndRefusals(t *testing.T) {
	f := startAll(t)
	f.cell(t).
		send(cellInit(nil)).
		send(cellCommand(t, 1, update("A"), effect("1"), forward("f"))).
		expect(cellReply(&valueentity.ValueEntityReply{
			CommandId: 1, ClientAction: forwardAction(t, "f"), StateAction: cellUpdate(t, "A"), SideEffects: wireEffects(t, false, "1"),
		})).
		send(cellCommand(t, 2, update("B"), effect("x"), refuse("expected failure"))).
		expect(cellReply(&valueentity.ValueEntityReply{
			CommandId: 2, ClientAction: failureAction(&cloudstate.Failure{CommandId: 2, Description: "expected failure"}),
		})).
		send(cellCommand(t, 3, awaited("2"))).
		expect(cellReply(&valueentity.ValueEntityReply{CommandId: 3, ClientAction: replyAction(t, "A"), SideEffects: wireEffects(t, true, "2")})).
		passivate()
}

func TestCellFailures(t *testing.T) {
	f := startAll(t)
	f.cell(t).send(cellInit(nil)).send(cellCommand(t, 1, crash("disk on fire"))).
		expect(cellFailure(1, "script.v1.CellService/Run of cell/e1: disk on fire (to say no to a command, return sdk.Refuse)")).expectEnd()
	f.cell(t).send(cellCommand(t, 1)).expect(cellFailure(1, "command Run came before init")).expectEnd()
	f.cell(t).send(cellInit(nil)).send(cellInit(nil)).expect(cellFailure(0, "init: a second one on the stream")).expectEnd()
	f.cell(t).send(&valueentity.ValueEntityStreamIn{}).expect(cellFailure(0, "a message of an unknown kind from the proxy")).expectEnd()
	f.cell(t).send(cellInit(pack(t, appended("A")[0]))).
		expect(cellFailure(0, "load cell/e1: the stored value is a script.v1.Appended, but the state of the service is a script.v1.Stored: keep the type of the state")).
		expectEnd()
	foreign := cellInit(nil)
	foreign.GetInit().ServiceName = "script.v1.JournalService"
	f.cell(t).send(foreign).
		expect(cellFailure(0, "init e1: this function has no value service script.v1.JournalService; the proxy should discover it again")).expectEnd()
	stray := cellCommand(t, 1)
	stray.GetCommand().EntityId = "e2"
	f.cell(t).send(cellInit(nil)).send(stray).
		expect(cellFailure(1, `command Run is for entity "e2", the stream is that of "e1"`)).expectEnd()
}

// Close ends streams that wait for a command, and refuses new ones.
func TestCloseEndsIdleStreams(t *testing.T) {
	f := startAll(t)
	conversation := f.journal(t).send(journalInit(nil)).send(journalCommand(t, 1, emit("A"))).
		expect(journalReply(&eventsourced.EventSourcedReply{CommandId: 1, ClientAction: replyAction(t, "A"), Events: anyEvents(t, "A")}))
	f.server.Close()
	if _, err := conversation.stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("idle stream: want UNAVAILABLE, got %v", err)
	}
	if _, err := f.cell(t).stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("new stream: want UNAVAILABLE, got %v", err)
	}
	f.server.Close()
}

// Close lets the running command be answered first.
func TestCloseWaitsForTheRunningCommand(t *testing.T) {
	running, finish := make(chan struct{}), make(chan struct{})
	slow := sdk.Value("cell", sdk.HandleValue(cellRun,
		func(*sdk.ValueCommand[*scriptv1.Stored], *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
			close(running)
			<-finish
			return response("done"), nil
		}))
	f := start(t, slow)
	conversation := f.cell(t).send(cellInit(nil)).send(cellCommand(t, 1))
	<-running
	closed := make(chan struct{})
	go func() { f.server.Close(); close(closed) }()
	select {
	case <-closed:
		t.Error("Close returned while a command was running")
	default:
	}
	close(finish)
	conversation.expect(cellReply(&valueentity.ValueEntityReply{CommandId: 1, ClientAction: replyAction(t, "done")}))
	<-closed
}

// A proxy that goes away ends the stream; goleak sees that nothing is left.
func TestABrokenLineEndsTheStream(t *testing.T) {
	f := startAll(t)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := eventsourced.NewEventSourcedClient(f.conn).Handle(ctx)
	if err != nil {
		t.Fatal(err)
	}
	journalTalk{t, stream}.send(journalInit(nil)).send(journalCommand(t, 1)).
		expect(journalReply(&eventsourced.EventSourcedReply{CommandId: 1, ClientAction: replyAction(t, "")}))
	cancel()
	if _, err := stream.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("got %v", err)
	}
}

package sdk_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
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

// These tests play the proxy: they send what a proxy sends and compare whole messages, as
// Cloudstate's conformance tests of user functions do.

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

// pack puts a message into an Any, as in the protocol.
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
	if shared {
		return f.link(t, longestFrame).journal(1)
	}
	stream, err := eventsourced.NewEventSourcedClient(f.conn).Handle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return journalTalk{t, stream}
}

func (f function) cell(t *testing.T) cellTalk {
	t.Helper()
	if shared {
		return f.link(t, longestFrame).cell(1)
	}
	stream, err := valueentity.NewValueEntityClient(f.conn).Handle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return cellTalk{t, stream}
}

func replyAction(t *testing.T, text string) *cloudstate.ClientAction {
	return &cloudstate.ClientAction{Action: &cloudstate.ClientAction_Reply{Reply: &cloudstate.Reply{Payload: pack(t,
		response(text))}}}
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
			ServiceName: "script.v1.FlowService", CommandName: "Unary", Payload: pack(t, request(text)),
			Synchronous: synchronous,
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
			EntityType: "cloudstate.eventsourced.EventSourced", ServiceName: "script.v1.JournalService",
			PersistenceId: "journal",
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
		cloudstate.MillraceExtension_MILLRACE_SHARED_STREAM,
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
	if _, err := discovery.ReportError(t.Context(),
		&cloudstate.UserFunctionError{Message: "reported by a test"}); err != nil {
		t.Error(err)
	}
}

// Close ends streams that wait for a command, and refuses new ones.
func TestCloseEndsIdleStreams(t *testing.T) {
	f := startAll(t)
	conversation := f.journal(t).send(journalInit(nil)).send(journalCommand(t, 1, emit("A"))).
		expect(journalReply(&eventsourced.EventSourcedReply{
			CommandId: 1, ClientAction: replyAction(t, "A"),
			Events: anyEvents(t, "A"),
		}))
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
	var finished atomic.Bool
	slow := sdk.Value("cell", sdk.HandleValue(cellRun,
		func(*sdk.ValueCommand[*scriptv1.Stored], *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
			close(running)
			<-finish
			finished.Store(true)
			return response("done"), nil
		}))
	f := start(t, slow)
	conversation := f.cell(t).send(cellInit(nil)).send(cellCommand(t, 1))
	<-running
	closed := make(chan bool, 1)
	go func() { f.server.Close(); closed <- finished.Load() }()
	if _, err := f.cell(t).stream.Recv(); status.Code(err) != codes.Unavailable { // Close has begun
		t.Errorf("new stream: want UNAVAILABLE, got %v", err)
	}
	close(finish)
	conversation.expect(cellReply(&valueentity.ValueEntityReply{CommandId: 1, ClientAction: replyAction(t, "done")}))
	if !<-closed {
		t.Error("Close returned while a command was running")
	}
}

// A proxy that disconnects ends the stream; goleak sees that nothing is left.
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

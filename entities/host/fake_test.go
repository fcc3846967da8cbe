package host_test

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bufbuild/protocompile"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/entities/host"
	"github.com/millrace-io/millrace/internal/backoff"
	"github.com/millrace-io/millrace/internal/settings"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/action"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/eventsourced"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/valueentity"
	sessionv1 "github.com/millrace-io/millrace/proto/gen/millrace/session/v1"
)

// source is what the fake function serves.
const source = `
syntax = "proto3";
package t;
import "cloudstate/entity_key.proto";
service Carts { rpc Add(Text) returns (Text); }
service Prices { rpc Set(Text) returns (Text); }
service Rooms { rpc Join(Text) returns (stream Text); }
service Acts {
  rpc Do(Text) returns (Text);
  rpc In(stream Text) returns (Text);
  rpc Out(Text) returns (stream Text);
  rpc Both(stream Text) returns (stream Text);
}
message Text { string text = 1 [(cloudstate.entity_key) = true]; }
`

const textURL = "type.googleapis.com/t.Text"

func newSpec(t testing.TB, extensions ...cloudstate.MillraceExtension) *cloudstate.EntitySpec {
	t.Helper()
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
		Accessor: func(path string) (io.ReadCloser, error) {
			if path == "t.proto" {
				return io.NopCloser(strings.NewReader(source)), nil
			}
			return os.Open(filepath.Join("../../proto", path))
		},
	})}
	files, err := compiler.Compile(t.Context(), "t.proto")
	if err != nil {
		t.Fatal(err)
	}
	set, err := proto.Marshal(
		&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{protodesc.ToFileDescriptorProto(files[0])}})
	if err != nil {
		t.Fatal(err)
	}
	if shared {
		extensions = append(slices.Clone(extensions), cloudstate.MillraceExtension_MILLRACE_SHARED_STREAM)
	}
	return &cloudstate.EntitySpec{
		Proto: set,
		Entities: []*cloudstate.Entity{
			{EntityType: entities.EventSourced.Spec().Protocol, ServiceName: "t.Carts", PersistenceId: "cart"},
			{EntityType: entities.Value.Spec().Protocol, ServiceName: "t.Prices", PersistenceId: "price"},
			{EntityType: entities.Replicated.Spec().Protocol, ServiceName: "t.Rooms", PersistenceId: "room"},
			{EntityType: entities.Action.Spec().Protocol, ServiceName: "t.Acts"},
		},
		ServiceInfo: &cloudstate.ServiceInfo{ProtocolMinorVersion: 2, MillraceExtensions: extensions},
	}
}

// textValue is an encoded t.Text.
func textValue(s string) []byte {
	if s == "" {
		return nil
	}
	return protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), s)
}

// valueText is the inverse of textValue.
func valueText(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	_, _, n := protowire.ConsumeTag(b)
	if n < 0 {
		return "?"
	}
	s, n := protowire.ConsumeString(b[n:])
	if n < 0 {
		return "?"
	}
	return s
}

func textAny(s string) *anypb.Any { return &anypb.Any{TypeUrl: textURL, Value: textValue(s)} }

func textPayload(s string) entities.Payload {
	return entities.Payload{TypeURL: textURL, Value: textValue(s)}
}

func invocation(service, method string, key entities.Key, text string) entities.Invocation {
	return entities.Invocation{Command: &entities.Command{
		Service:   service,
		Method:    method,
		Key:       key,
		Payload:   textPayload(text),
		Metadata:  entities.Metadata{{Key: "who", Text: "anna"}, {Key: "bin", Binary: []byte{1}, IsBinary: true}},
		ID:        "id-1",
		Principal: "anna",
	}, Time: time.Unix(0, 42)}
}

// fakeFunction is a user function that the test controls: streams receives every stream that the
// proxy opens.
type fakeFunction struct {
	cloudstate.UnimplementedEntityDiscoveryServer
	spec    *cloudstate.EntitySpec
	streams chan *fakeStream
	actions fakeActions
	// mute: it takes links and does not welcome them.
	mute bool
	// also serves what no other test needs; it may be nil.
	also func(grpc.ServiceRegistrar)

	mu   sync.Mutex
	told []string
	// heard gets a value for every report.
	heard chan struct{}
}

func newFake(spec *cloudstate.EntitySpec) *fakeFunction {
	return &fakeFunction{spec: spec, streams: make(chan *fakeStream, 16), heard: make(chan struct{}, 100)}
}

func (f *fakeFunction) Discover(context.Context, *cloudstate.ProxyInfo) (*cloudstate.EntitySpec, error) {
	return f.spec, nil
}

func (f *fakeFunction) ReportError(_ context.Context, e *cloudstate.UserFunctionError) (*emptypb.Empty, error) {
	f.mu.Lock()
	f.told = append(f.told, e.GetMessage())
	f.mu.Unlock()
	f.heard <- struct{}{}
	return &emptypb.Empty{}, nil
}

func (f *fakeFunction) reports() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.told...)
}

// fakeStream is the function's end of one session.
type fakeStream struct {
	ctx  context.Context
	recv func() (proto.Message, error)
	send func(proto.Message) error
	// end makes the function end its side.
	end chan error
}

func (f *fakeFunction) offer(s *fakeStream) error {
	f.streams <- s
	select {
	case err := <-s.end:
		return err
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

type fakeEventSourced struct {
	eventsourced.UnimplementedEventSourcedServer
	*fakeFunction
}

func (f fakeEventSourced) Handle(
	stream grpc.BidiStreamingServer[eventsourced.EventSourcedStreamIn, eventsourced.EventSourcedStreamOut],
) error {
	return f.offer(&fakeStream{
		ctx:  stream.Context(),
		recv: func() (proto.Message, error) { return stream.Recv() },
		send: func(m proto.Message) error { return stream.SendMsg(m) },
		end:  make(chan error, 1),
	})
}

type fakeValue struct {
	valueentity.UnimplementedValueEntityServer
	*fakeFunction
}

func (f fakeValue) Handle(
	stream grpc.BidiStreamingServer[valueentity.ValueEntityStreamIn, valueentity.ValueEntityStreamOut],
) error {
	return f.offer(&fakeStream{
		ctx:  stream.Context(),
		recv: func() (proto.Message, error) { return stream.Recv() },
		send: func(m proto.Message) error { return stream.SendMsg(m) },
		end:  make(chan error, 1),
	})
}

// fakeActions are the actions of the fake function; the test sets those that it needs.
type fakeActions struct {
	action.UnimplementedActionProtocolServer
	unary func(context.Context, *action.ActionCommand) (*action.ActionResponse, error)
	in    func(grpc.ClientStreamingServer[action.ActionCommand, action.ActionResponse]) error
	out   func(*action.ActionCommand, grpc.ServerStreamingServer[action.ActionResponse]) error
	both  func(grpc.BidiStreamingServer[action.ActionCommand, action.ActionResponse]) error
}

func (a *fakeActions) HandleUnary(ctx context.Context, c *action.ActionCommand) (*action.ActionResponse, error) {
	return a.unary(ctx, c)
}

func (a *fakeActions) HandleStreamedIn(
	s grpc.ClientStreamingServer[action.ActionCommand, action.ActionResponse],
) error {
	return a.in(s)
}

func (a *fakeActions) HandleStreamedOut(c *action.ActionCommand,
	s grpc.ServerStreamingServer[action.ActionResponse],
) error {
	return a.out(c, s)
}

func (a *fakeActions) HandleStreamed(s grpc.BidiStreamingServer[action.ActionCommand, action.ActionResponse]) error {
	return a.both(s)
}

// serve runs a function at an address until stop is called or the test ends.
func serve(t testing.TB, f *fakeFunction, address string) (listening string, stop func()) {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	cloudstate.RegisterEntityDiscoveryServer(server, f)
	eventsourced.RegisterEventSourcedServer(server, fakeEventSourced{fakeFunction: f})
	valueentity.RegisterValueEntityServer(server, fakeValue{fakeFunction: f})
	action.RegisterActionProtocolServer(server, &f.actions)
	sessionv1.RegisterSessionServiceServer(server, fakeLinks{fakeFunction: f})
	if f.also != nil {
		f.also(server)
	}
	var serving sync.WaitGroup
	// Ends with the server's stop, which stop waits for.
	serving.Go(func() { _ = server.Serve(listener) })
	stop = sync.OnceFunc(func() {
		server.Stop()
		serving.Wait()
	})
	t.Cleanup(stop)
	return listener.Addr().String(), stop
}

// connect connects a host to a function.
func connect(t testing.TB, address string, options host.Options) (*host.Host, *host.Remote) {
	t.Helper()
	options.SharedStream = settings.Defaults[host.Settings]().SharedStream
	remote, err := host.Connect(t.Context(), address, host.RemoteOptions{
		Options: options,
		Policy:  discovery.Policy{Backoff: backoff.Policy{First: time.Millisecond, Max: 10 * time.Millisecond}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := remote.Close(); err != nil {
			t.Error(err)
		}
	})
	h := host.New(options.Settings)
	set(t, h, remote)
	return h, remote
}

// nothingStored loads an entity that never existed.
func nothingStored(context.Context) (entities.Loaded, error) { return entities.Loaded{}, nil }

// long bounds waits that end at once unless there is a bug.
const long = 20 * time.Second

// take receives from a channel, or fails the test.
func take[T any](t testing.TB, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(long):
		t.Fatalf("%s did not come", what)
		panic("unreachable")
	}
}

package interceptor_test

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/millrace-io/millrace/proto/gen/cloudstate/eventsourced"
	"github.com/millrace-io/millrace/tests/conformance/byhand"
	"github.com/millrace-io/millrace/tests/conformance/interceptor"
	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kit"
)

func TestMain(m *testing.M) { harness.Main(m) }

const handle = eventsourced.EventSourced_Handle_FullMethodName

// start starts an interceptor between a client and a function.
func start(t *testing.T) (*interceptor.Interceptor, *grpc.ClientConn) {
	t.Helper()
	f := harness.ServeFunction(t, func(s *grpc.Server) { byhand.Register(s, byhand.Options{}) })
	i, err := interceptor.New(f.Address())
	if err != nil {
		t.Fatal(err)
	}
	i.Serve(kit.Listen(t, "127.0.0.1:0"))
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return i, kit.Dial(t, i.Addr())
}

// open begins a stream with an init that has an unknown field.
func open(ctx context.Context, t *testing.T,
	conn *grpc.ClientConn,
) (eventsourced.EventSourced_HandleClient, *eventsourced.EventSourcedStreamIn) {
	t.Helper()
	init := &eventsourced.EventSourcedStreamIn{Message: &eventsourced.EventSourcedStreamIn_Init{
		Init: &eventsourced.EventSourcedInit{ServiceName: "service", EntityId: "1"},
	}}
	init.ProtoReflect().SetUnknown([]byte{0xc0, 0x3e, 0x01}) // field 1000
	stream, err := eventsourced.NewEventSourcedClient(conn).Handle(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(init); err != nil {
		t.Fatal(err)
	}
	return stream, init
}

func patience(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), kit.Patience)
	t.Cleanup(cancel)
	return ctx
}

// TestHalfCloseAndReset half-closes one stream and resets another one.
func TestHalfCloseAndReset(t *testing.T) {
	i, conn := start(t)
	for _, cut := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		stream, init := open(ctx, t, conn)
		call, err := i.Next(patience(t), handle)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := call.In.Next(patience(t)); err != nil || !proto.Equal(got, init) {
			t.Fatalf("recorded %v, %v; sent %v", got, err, init)
		}
		want := codes.OK
		if cut {
			want = codes.Canceled
			cancel()
		} else if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		for side, flow := range map[string]*interceptor.Flow{"proxy": &call.In, "function": &call.Out} {
			cause, err := flow.End(patience(t))
			if err != nil || status.Code(cause) != want {
				t.Errorf("cut %v: the %s's side ended with %v (%v), want %s", cut, side, cause, err, want)
			}
		}
		cancel()
	}
}

// TestUnknownMethodIsRecorded: an unexpected call is recorded even if its messages are unknown.
func TestUnknownMethodIsRecorded(t *testing.T) {
	i, conn := start(t)
	err := conn.Invoke(t.Context(), "/grpc.health.v9.Health/Check", &emptypb.Empty{}, &emptypb.Empty{})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("the call ended with %v", err)
	}
	if call := i.Any(patience(t)); call == nil || call.Method != "/grpc.health.v9.Health/Check" {
		t.Errorf("recorded %+v", call)
	}
	now, cancel := context.WithCancel(t.Context())
	cancel()
	if call := i.Any(now); call != nil { // all calls have ended
		t.Errorf("and another one: %+v", call)
	}
}

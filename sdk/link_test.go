package sdk_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/proto/gen/cloudstate/eventsourced"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/valueentity"
	sessionv1 "github.com/millrace-io/millrace/proto/gen/millrace/session/v1"
	"github.com/millrace-io/millrace/sdk"
	scriptv1 "github.com/millrace-io/millrace/sdk/internal/script/v1"
)

// shared: the proxies of these tests have their sessions on links. All tests run once without and
// once with them.
var shared bool

// proxyLink is a proxy's end of a link.
type proxyLink struct {
	t      *testing.T
	stream sessionv1.SessionService_LinkClient
	// waiting are frames that were read and not taken; broken is why there are no more.
	waiting []*sessionv1.Response
	broken  error
}

func (f function) link(t *testing.T, longest uint32) *proxyLink {
	t.Helper()
	stream, err := sessionv1.NewSessionServiceClient(f.conn).Link(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l := &proxyLink{t: t, stream: stream}
	if err := stream.Send(&sessionv1.LinkRequest{Hello: &sessionv1.Hello{MaxFrameBytes: longest}}); err != nil &&
		!errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	welcome, err := stream.Recv()
	l.broken = err
	if err == nil && welcome.GetWelcome().GetMaxFrameBytes() == 0 {
		t.Errorf("a link began with %v", welcome)
	}
	return l
}

func (l *proxyLink) send(frames ...*sessionv1.Request) error {
	return l.stream.Send(&sessionv1.LinkRequest{Frames: frames})
}

func (l *proxyLink) recv() (*sessionv1.Response, error) {
	for len(l.waiting) == 0 {
		if l.broken != nil {
			return nil, l.broken
		}
		var message *sessionv1.LinkResponse
		message, l.broken = l.stream.Recv()
		l.waiting = message.GetFrames()
	}
	frame := l.waiting[0]
	l.waiting = l.waiting[1:]
	return frame, nil
}

// proxySession is one session on a link, with the methods of a stream of its own.
type proxySession[In, Out any] struct {
	*proxyLink

	id     uint64
	wrap   func(In) *sessionv1.Request
	unwrap func(*sessionv1.Response) Out
}

// Send sends a message.
func (s proxySession[In, Out]) Send(in In) error { return s.frame(s.wrap(in)) }

// CloseSend half-closes.
func (s proxySession[In, Out]) CloseSend() error {
	return s.frame(&sessionv1.Request{Message: &sessionv1.Request_Close{Close: true}})
}

func (s proxySession[In, Out]) frame(frame *sessionv1.Request) error {
	frame.Session = s.id
	return s.send(frame)
}

// Recv returns the next message, or how the session ended.
func (s proxySession[In, Out]) Recv() (out Out, err error) {
	frame, err := s.recv()
	switch {
	case err != nil:
		return out, err
	case frame.GetSession() != s.id:
		return out, fmt.Errorf("a frame of session %d came to %d", frame.GetSession(), s.id)
	case frame.GetEnd().GetCode() != 0:
		return out, status.Error(codes.Code(frame.GetEnd().GetCode()), frame.GetEnd().GetMessage())
	case frame.GetEnd() != nil:
		return out, io.EOF
	default:
		return s.unwrap(frame), nil
	}
}

const longestFrame = 1 << 20

func (l *proxyLink) journal(id uint64) journalTalk {
	return journalTalk{l.t, proxySession[*eventsourced.EventSourcedStreamIn, *eventsourced.EventSourcedStreamOut]{
		proxyLink: l, id: id, unwrap: (*sessionv1.Response).GetEventSourced,
		wrap: func(in *eventsourced.EventSourcedStreamIn) *sessionv1.Request {
			return &sessionv1.Request{Message: &sessionv1.Request_EventSourced{EventSourced: in}}
		},
	}}
}

func (l *proxyLink) cell(id uint64) cellTalk {
	return cellTalk{l.t, proxySession[*valueentity.ValueEntityStreamIn, *valueentity.ValueEntityStreamOut]{
		proxyLink: l, id: id, unwrap: (*sessionv1.Response).GetValue,
		wrap: func(in *valueentity.ValueEntityStreamIn) *sessionv1.Request {
			return &sessionv1.Request{Message: &sessionv1.Request_Value{Value: in}}
		},
	}}
}

// want expects a frame.
func (l *proxyLink) want(what string, ok func(*sessionv1.Response) bool) {
	l.t.Helper()
	if frame, err := l.recv(); err != nil || !ok(frame) {
		l.t.Fatalf("want %s, got %v, %v", what, frame, err)
	}
}

func ended(id uint64, code codes.Code) func(*sessionv1.Response) bool {
	return func(r *sessionv1.Response) bool {
		return r.GetSession() == id && r.GetEnd() != nil && r.GetEnd().GetCode() == uint32(code)
	}
}

// Sessions of both kinds share a link, and the end of one does not affect the others.
func TestSessionsShareALink(t *testing.T) {
	l := startAll(t).link(t, longestFrame)
	l.journal(1).send(journalInit(nil)).send(journalCommand(t, 1, emit("A"))).
		expect(journalReply(&eventsourced.EventSourcedReply{
			CommandId: 1, ClientAction: replyAction(t, "A"),
			Events: anyEvents(t, "A"),
		}))
	l.cell(2).send(cellInit(anyStored(t, "C"))).send(cellCommand(t, 1)).
		expect(cellReply(&valueentity.ValueEntityReply{CommandId: 1, ClientAction: replyAction(t, "C")}))
	l.journal(1).passivate()
	l.cell(2).send(cellCommand(t, 2)).
		expect(cellReply(&valueentity.ValueEntityReply{CommandId: 2, ClientAction: replyAction(t, "C")}))

	// Frames for a session after its end are dropped: the proxy did not know of the end yet.
	l.journal(1).send(journalCommand(t, 2))
	l.cell(2).send(cellCommand(t, 3)).
		expect(cellReply(&valueentity.ValueEntityReply{CommandId: 3, ClientAction: replyAction(t, "C")}))
}

// row sends commands in one message.
func (l *proxyLink) row(id uint64, first, last int64) {
	l.t.Helper()
	var frames []*sessionv1.Request
	for n := first; n <= last; n++ {
		frames = append(frames,
			&sessionv1.Request{Session: id, Message: &sessionv1.Request_Value{Value: cellCommand(l.t, n)}})
	}
	if err := l.send(frames...); err != nil {
		l.t.Fatal(err)
	}
}

// Commands that are sent in one message are answered one after the other, and the answers need not
// wait for one that takes long.
func TestCommandsInARow(t *testing.T) {
	const slowly, last = 4, 20
	running, finish := make(chan struct{}), make(chan struct{})
	n := 0
	l := start(t, sdk.Value("cell", sdk.HandleValue(cellRun,
		func(*sdk.ValueCommand[*scriptv1.Stored], *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
			if n++; n == slowly {
				close(running)
				<-finish
			}
			return response(fmt.Sprint(n)), nil
		}))).link(t, longestFrame)
	cell := l.cell(1).send(cellInit(nil))
	l.row(1, 1, last)
	<-running
	for id := int64(1); id <= last; id++ {
		if id == slowly {
			close(finish)
		}
		cell.expect(cellReply(&valueentity.ValueEntityReply{CommandId: id, ClientAction: replyAction(t, fmt.Sprint(id))}))
	}
	cell.passivate()
}

// A checkpoint is answered after what came before it.
func TestCheckpointsAreAnsweredInOrder(t *testing.T) {
	l := startAll(t).link(t, longestFrame)
	l.cell(1).send(cellInit(nil)).send(cellCommand(t, 1))
	if err := l.send(&sessionv1.Request{
		Session: 1,
		Message: &sessionv1.Request_Checkpoint{Checkpoint: true},
	}); err != nil {
		t.Fatal(err)
	}
	l.cell(1).expect(cellReply(&valueentity.ValueEntityReply{CommandId: 1, ClientAction: replyAction(t, "")}))
	l.want("that it was taken", func(r *sessionv1.Response) bool { return r.GetSession() == 1 && r.GetTaken() })
}

// A cancelled session ends at once, with an end frame.
func TestCancelledSessionsEnd(t *testing.T) {
	l := startAll(t).link(t, longestFrame)
	l.cell(1).send(cellInit(nil))
	if err := l.send(&sessionv1.Request{Session: 1, Message: &sessionv1.Request_Cancel{Cancel: true}}); err != nil {
		t.Fatal(err)
	}
	l.want("the end of session 1", ended(1, codes.Unavailable))
	l.cell(2).send(cellInit(nil)).passivate()
}

// An answer that the proxy does not take costs its session, not the others.
func TestAnswersThatAreTooLong(t *testing.T) {
	const longest = 1000
	l := startAll(t).link(t, longest)
	l.cell(1).send(cellInit(nil))
	l.cell(2).send(cellInit(nil)).send(cellCommand(t, 1, update(strings.Repeat("x", longest))))
	l.want("why", func(r *sessionv1.Response) bool {
		return strings.Contains(r.GetValue().GetFailure().GetDescription(), "the proxy takes 1000")
	})
	l.want("the end of session 2", ended(2, codes.OK))
	l.cell(1).send(cellCommand(t, 1)).
		expect(cellReply(&valueentity.ValueEntityReply{CommandId: 1, ClientAction: replyAction(t, "")}))
}

// An answer that cannot be encoded costs its session, not the others.
func TestAnswersThatAreNoText(t *testing.T) {
	l := start(t, sdk.Value("cell", sdk.HandleValue(cellRun,
		func(*sdk.ValueCommand[*scriptv1.Stored], *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
			return nil, sdk.Refuse(codes.NotFound, "\xff")
		}))).link(t, longestFrame)
	l.cell(1).send(cellInit(nil))
	l.cell(2).send(cellInit(nil)).send(cellCommand(t, 1))
	l.want("why", func(r *sessionv1.Response) bool {
		return strings.Contains(r.GetValue().GetFailure().GetDescription(), "UTF-8")
	})
	l.want("the end of session 2", ended(2, codes.OK))
	l.cell(1).passivate()
}

// What breaks the rules of a link is reported.
func TestStrangeLinks(t *testing.T) {
	f := startAll(t)
	if l := f.link(t, 0); status.Code(l.broken) != codes.InvalidArgument {
		t.Errorf("a hello without a limit: %v", l.broken)
	}
	l := f.link(t, longestFrame)
	if err := l.send(&sessionv1.Request{
		Session: 1,
		Message: &sessionv1.Request_Checkpoint{Checkpoint: true},
	}); err != nil {
		t.Fatal(err)
	}
	l.want("that it was taken", func(r *sessionv1.Response) bool { return r.GetTaken() })
	if err := l.send(&sessionv1.Request{Session: 2}); err != nil {
		t.Fatal(err)
	}
	l.want("the end of session 2", ended(2, codes.InvalidArgument))
	// A session of one kind gets a message of the other.
	l.cell(3).send(cellInit(nil))
	l.journal(3).send(journalCommand(t, 1))
	l.want("a failure", func(r *sessionv1.Response) bool { return r.GetValue().GetFailure() != nil })
	l.want("the end of session 3", ended(3, codes.OK))
}

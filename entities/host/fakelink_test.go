package host_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/host"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/eventsourced"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/valueentity"
	sessionv1 "github.com/millrace-io/millrace/proto/gen/millrace/session/v1"
)

// fakeLinks gives the test the sessions of a link as if each were a stream.
type fakeLinks struct {
	sessionv1.UnimplementedSessionServiceServer
	*fakeFunction
}

// linkLimit is the longest frame that the fake function takes.
const linkLimit = 1 << 20

func (f fakeLinks) Link(stream grpc.BidiStreamingServer[sessionv1.LinkRequest, sessionv1.LinkResponse]) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	if f.mute {
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	l := &fakeLink{stream: stream}
	if err := l.send(&sessionv1.LinkResponse{Welcome: &sessionv1.Welcome{MaxFrameBytes: linkLimit}}); err != nil {
		return err
	}
	var open sync.WaitGroup
	defer open.Wait()
	inboxes := map[uint64]chan *sessionv1.Request{}
	for {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, frame := range message.GetFrames() {
			inbox, known := inboxes[frame.GetSession()]
			if !known {
				inbox = make(chan *sessionv1.Request, 10_000)
				inboxes[frame.GetSession()] = inbox
				ctx, cancel := context.WithCancel(stream.Context())
				s := l.session(ctx, frame.GetSession(), inbox)
				s.cancel = cancel
				// Ends with the session, or with the link.
				open.Go(func() {
					defer cancel()
					end := status.Convert(f.offer(s.fakeStream))
					// On a broken link both sides know.
					_ = l.send(&sessionv1.LinkResponse{Frames: []*sessionv1.Response{{
						Session: s.id, Message: &sessionv1.Response_End{End: &sessionv1.End{
							Code:    uint32(end.Code()),
							Message: end.Message(),
						}},
					}}})
				})
				l.sessions.Store(frame.GetSession(), s)
			}
			if frame.GetCancel() {
				s, _ := l.sessions.Load(frame.GetSession())
				s.(*fakeSession).cancel()
			}
			inbox <- frame
		}
	}
}

type fakeLink struct {
	stream   grpc.ServerStream
	mu       sync.Mutex // held while a message is sent
	sessions sync.Map
}

func (l *fakeLink) send(m *sessionv1.LinkResponse) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stream.SendMsg(m)
}

type fakeSession struct {
	*fakeStream

	id     uint64
	cancel context.CancelFunc
}

func (l *fakeLink) session(ctx context.Context, id uint64, inbox <-chan *sessionv1.Request) *fakeSession {
	say := func(r *sessionv1.Response) error {
		r.Session = id
		return l.send(&sessionv1.LinkResponse{Frames: []*sessionv1.Response{r}})
	}
	return &fakeSession{id: id, fakeStream: &fakeStream{
		ctx: ctx,
		end: make(chan error, 1),
		recv: func() (proto.Message, error) {
			for {
				select {
				case frame := <-inbox:
					switch m := frame.GetMessage().(type) {
					case *sessionv1.Request_Value:
						return m.Value, nil
					case *sessionv1.Request_EventSourced:
						return m.EventSourced, nil
					case *sessionv1.Request_Close:
						return nil, io.EOF
					case *sessionv1.Request_Checkpoint:
						if err := say(&sessionv1.Response{Message: &sessionv1.Response_Taken{Taken: true}}); err != nil {
							return nil, err
						}
					case *sessionv1.Request_Cancel:
						return nil, status.Error(codes.Canceled, "the session was cancelled")
					}
				case <-ctx.Done():
					return nil, status.FromContextError(ctx.Err()).Err()
				}
			}
		},
		send: func(m proto.Message) error {
			switch m := m.(type) {
			case *valueentity.ValueEntityStreamOut:
				return say(&sessionv1.Response{Message: &sessionv1.Response_Value{Value: m}})
			case *eventsourced.EventSourcedStreamOut:
				return say(&sessionv1.Response{Message: &sessionv1.Response_EventSourced{EventSourced: m}})
			default:
				return errors.New("a message of another protocol")
			}
		},
	}}
}

// A caller that leaves while the shared stream is opened is told that it left, not that the
// function is away.
func TestCallerLeavesWhileTheLinkOpens(t *testing.T) {
	f := newFake(newSpec(t, cloudstate.MillraceExtension_MILLRACE_SHARED_STREAM))
	f.mute = true
	address, _ := serve(t, f, "127.0.0.1:0")
	h, _ := connect(t, address, host.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := h.Open(ctx, "t.Carts", cartKey, nothingStored)
	wantError(t, err, entities.Deadline, entities.NotApplied, "")
}

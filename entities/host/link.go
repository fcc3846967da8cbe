package host

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/internal/multiplex"
	sessionv1 "github.com/millrace-io/millrace/proto/gen/millrace/session/v1"
)

// framesField is the field of frames in LinkRequest.
const framesField = 2

// errLinkWire is an error of the function's side of a link.
var errLinkWire = errors.New("the function violated the protocol of the shared stream")

// link carries the sessions of a function that shares one stream among all of them.
type link struct {
	multiplex.Link

	remote *Remote
	// longest is the longest frame that the function takes.
	longest int
	// places are the sessions that the function has not ended. The link's lock guards them, and their
	// fields of that state.
	places multiplex.Places[*place]
}

// sharedLink returns the link, and opens one if there is none.
func (r *Remote) sharedLink(ctx context.Context) (*link, error) {
	select {
	case r.linking <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-r.linking }()
	if r.link != nil && r.link.alive() {
		return r.link, nil
	}
	l, err := r.openLink(ctx)
	if err != nil {
		return nil, err
	}
	r.link = l
	return l, nil
}

func (r *Remote) openLink(ctx context.Context) (*link, error) {
	opening, stop := context.WithTimeoutCause(ctx, r.options.FunctionTimeout, errTookTooLong)
	defer stop()
	connect := func(ctx context.Context) (grpc.ClientStream, error) {
		return sessionv1.NewSessionServiceClient(r.conn).Link(ctx,
			grpc.ForceCodecV2(multiplex.Codec{}), grpc.MaxCallRecvMsgSize(r.options.MaxMessageBytes+multiplex.MessageBytes))
	}
	l, first := &link{remote: r}, &sessionv1.LinkResponse{}
	hello := &sessionv1.LinkRequest{Hello: &sessionv1.Hello{MaxFrameBytes: uint32(r.options.MaxMessageBytes)}} //nolint:gosec // positive
	if err := l.Open(r.lifetime, opening, connect, hello, first); err != nil {
		return nil, err
	}
	if l.longest = int(first.GetWelcome().GetMaxFrameBytes()); l.longest == 0 {
		err := fmt.Errorf("%w: it did not begin with a welcome", errLinkWire)
		l.Cancel(err)
		return nil, err
	}
	// Both end with the link, which ends with the Remote at the latest; its Close waits for them.
	if !r.start(l.read) || !r.start(l.Run) {
		l.Cancel(errRemoteClosed)
		return nil, errRemoteClosed
	}
	return l, nil
}

func (l *link) alive() bool {
	l.Lock()
	defer l.Unlock()
	return l.Broken() == nil
}

// join adds a place. The function learns of it with its first frame.
func (l *link) join(p *place) error {
	l.Lock()
	defer l.Unlock()
	p.live = l.Broken() == nil
	return l.Broken()
}

// send appends a frame to what is to be written, and writes it; a place that holds leaves that
// to push.
func (l *link) send(p *place, frame *sessionv1.Request) error {
	l.Lock()
	switch {
	case l.Broken() != nil:
		defer l.Unlock()
		return l.Broken()
	case !p.live:
		l.Unlock()
		return io.EOF // the session says why it ended
	}
	if p.id == 0 {
		p.id = l.places.Begin(p)
	}
	if err := l.enqueue(p, frame); err != nil || p.hold {
		l.Unlock()
		return err
	}
	l.UnlockAndWrite()
	return nil
}

// push writes what send has held.
func (l *link) push() {
	l.Lock()
	l.UnlockAndWrite()
}

// enqueue appends a frame. The lock is held.
func (l *link) enqueue(p *place, frame *sessionv1.Request) error {
	frame.Session = p.id
	size := proto.Size(frame)
	if size > l.longest {
		return status.Errorf(codes.ResourceExhausted, "a message of %d bytes: the function takes %d", size, l.longest)
	}
	if err := l.Append(framesField, frame, size); err != nil {
		return err
	}
	p.unanswered += size
	l.Unanswered += size
	return nil
}

// read passes the function's frames to their places, until the link ends.
func (l *link) read() {
	in := multiplex.Incoming{Consume: l.consume}
	err := l.Read(func() error { return l.Stream.RecvMsg(&in) })
	if errors.Is(err, io.EOF) {
		err = status.Error(codes.Unavailable, "the function ended the stream that its sessions share")
	}
	l.Break(err)
	for _, p := range l.places.Open { // of a broken link only this goroutine uses it
		p.over(err)
	}
	l.places.Open = nil
}

// consume reads one message of the function's.
func (l *link) consume(b []byte) error {
	var message sessionv1.LinkResponse
	if err := proto.Unmarshal(b, &message); err != nil {
		return fmt.Errorf("%w: %w", errLinkWire, err)
	}
	for _, frame := range message.GetFrames() {
		if err := l.receive(frame, len(b) > l.remote.options.MaxMessageBytes); err != nil {
			return err
		}
	}
	return nil
}

// receive gives a frame to its session. long: the message was longer than a frame may be.
func (l *link) receive(frame *sessionv1.Response, long bool) error {
	end := frame.GetEnd()
	l.Lock()
	p := l.places.Open[frame.GetSession()]
	if p == nil {
		l.Unlock()
		return fmt.Errorf("%w: a frame of session %d, which is not open", errLinkWire, frame.GetSession())
	}
	l.Unanswered -= p.unanswered
	p.unanswered = 0
	if end != nil {
		delete(l.places.Open, p.id)
	}
	live := p.live
	l.Unlock()
	switch {
	case !live:
	case end != nil:
		p.over(endOf(end))
	case long && proto.Size(frame) > l.remote.options.MaxMessageBytes:
		p.cut(status.Errorf(codes.ResourceExhausted, "the function sent a message of %d bytes, the limit is %d",
			proto.Size(frame), l.remote.options.MaxMessageBytes))
	default:
		p.receive(frame)
	}
	return nil
}

// endOf is the error by which a stream of its own would have ended.
func endOf(end *sessionv1.End) error {
	if code := codes.Code(end.GetCode()); code != codes.OK {
		return status.Error(code, end.GetMessage())
	}
	return io.EOF
}

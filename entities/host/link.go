package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/internal/multiplex"
	sessionv1 "github.com/millrace-io/millrace/proto/gen/millrace/session/v1"
)

// framesField is the field of frames in LinkRequest.
const framesField = 2

// errLinkWire is an error of the function's side of a link.
var errLinkWire = errors.New("the function broke the rules of the shared stream")

// link carries the sessions of a function that shares one stream among all of them.
type link struct {
	remote *Remote
	stream grpc.ClientStream
	cancel context.CancelCauseFunc
	// longest is the longest frame that the function takes.
	longest int

	mu     sync.Mutex // guards what follows, and the places' own
	writer multiplex.Writer
	// places are the sessions that the function has not ended.
	places map[uint64]*place
	last   uint64
	// unanswered is the size of the frames of all places to which the function has not said anything.
	unanswered int
	// broken is why the link ended.
	broken error
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
	lifetime, cancel := context.WithCancelCause(r.lifetime)
	opening, stop := context.WithTimeoutCause(ctx, r.options.FunctionTimeout, errTookTooLong)
	defer stop()
	late := context.AfterFunc(opening, func() { cancel(context.Cause(opening)) })
	stream, err := sessionv1.NewSessionServiceClient(r.conn).Link(lifetime,
		grpc.ForceCodecV2(multiplex.Codec{}), grpc.MaxCallRecvMsgSize(r.options.MaxMessageBytes+multiplex.MessageBytes))
	if err != nil {
		cancel(err)
		return nil, err
	}
	l := &link{remote: r, stream: stream, cancel: cancel, places: map[uint64]*place{}}
	l.writer = multiplex.NewWriter(&l.mu, l.transmit, nil)
	if err := l.greet(); err != nil {
		cancel(err)
		return nil, err
	}
	if !late() { // and perhaps not cancelled yet
		err := context.Cause(opening)
		cancel(err)
		return nil, err
	}
	// Both end with the link, which ends with the Remote at the latest; its Close waits for them.
	if !r.start(l.read) || !r.start(func() { l.writer.Run(stream.Context()) }) {
		cancel(errRemoteClosed)
		return nil, errRemoteClosed
	}
	return l, nil
}

func (l *link) greet() error {
	hello := &sessionv1.LinkRequest{Hello: &sessionv1.Hello{MaxFrameBytes: uint32(l.remote.options.MaxMessageBytes)}} //nolint:gosec // positive
	if err := l.stream.SendMsg(hello); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	var first sessionv1.LinkResponse
	if err := l.stream.RecvMsg(&first); err != nil {
		return err
	}
	l.longest = int(first.GetWelcome().GetMaxFrameBytes())
	if l.longest == 0 {
		return fmt.Errorf("%w: it did not begin with a welcome", errLinkWire)
	}
	return nil
}

func (l *link) alive() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken == nil
}

// join adds a place. The function hears of it with its first frame.
func (l *link) join(p *place) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.live = l.broken == nil
	return l.broken
}

// send puts a frame into the lane and sees to it that it is written; a place that holds leaves that to push.
func (l *link) send(p *place, frame *sessionv1.Request) error {
	l.mu.Lock()
	switch {
	case l.broken != nil:
		l.mu.Unlock()
		return l.broken
	case !p.live:
		l.mu.Unlock()
		return io.EOF // whoever ended it says why
	}
	if p.id == 0 { // the function counts on it that a session with a higher number is a newer one
		l.last++
		p.id = l.last
		l.places[p.id] = p
	}
	err := l.enqueue(p, frame)
	write := err == nil && !p.hold && l.writer.Turn(l.unanswered)
	l.mu.Unlock()
	if write {
		l.writer.Write()
	}
	return err
}

// push writes what send was told to hold.
func (l *link) push() {
	l.mu.Lock()
	write := l.broken == nil && !l.writer.Empty() && l.writer.Turn(l.unanswered)
	l.mu.Unlock()
	if write {
		l.writer.Write()
	}
}

// enqueue appends a frame. The lock is held.
func (l *link) enqueue(p *place, frame *sessionv1.Request) (err error) {
	frame.Session = p.id
	size := proto.Size(frame)
	if size > l.longest {
		return status.Errorf(codes.ResourceExhausted, "a message of %d bytes: the function takes %d", size, l.longest)
	}
	message, _ := l.writer.Tail()
	b := protowire.AppendTag(*message, framesField, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size)) //nolint:gosec // positive
	if b, err = (proto.MarshalOptions{UseCachedSize: true}).MarshalAppend(b, frame); err != nil {
		return err
	}
	*message = b
	p.unanswered += size
	l.unanswered += size
	return nil
}

// transmit gives the transport a message. When that fails, the reader learns why.
func (l *link) transmit(message *[]byte) error {
	err := l.stream.SendMsg(message)
	if err != nil {
		l.cancel(err)
	}
	return err
}

// read gives the places what the function says, until the link ends.
func (l *link) read() {
	var err error
	in := multiplex.Incoming{Consume: l.consume}
	for err == nil {
		err = l.stream.RecvMsg(&in)
	}
	if cause := context.Cause(l.stream.Context()); cause != nil && !errors.Is(cause, context.Canceled) && !errors.Is(cause, io.EOF) {
		err = cause
	}
	if errors.Is(err, io.EOF) {
		err = status.Error(codes.Unavailable, "the function ended the stream that its sessions share")
	}
	l.cancel(err)
	l.mu.Lock()
	l.broken = err
	left := l.places
	l.places = nil
	l.mu.Unlock()
	for _, p := range left {
		p.over(err)
	}
}

// consume reads one message of the function's.
func (l *link) consume(b []byte) error {
	var message sessionv1.LinkResponse
	if err := proto.Unmarshal(b, &message); err != nil {
		return fmt.Errorf("%w: %w", errLinkWire, err)
	}
	for _, frame := range message.GetFrames() {
		if err := l.heard(frame, len(b) > l.remote.options.MaxMessageBytes); err != nil {
			return err
		}
	}
	return nil
}

// heard gives a frame to its session. long: the message was longer than a frame may be.
func (l *link) heard(frame *sessionv1.Response, long bool) error {
	end := frame.GetEnd()
	l.mu.Lock()
	p := l.places[frame.GetSession()]
	if p == nil {
		l.mu.Unlock()
		return fmt.Errorf("%w: a frame of session %d, which is not open", errLinkWire, frame.GetSession())
	}
	l.unanswered -= p.unanswered
	p.unanswered = 0
	if end != nil {
		delete(l.places, p.id)
	}
	live := p.live
	l.mu.Unlock()
	switch {
	case !live:
	case end != nil:
		p.over(endOf(end))
	case long && proto.Size(frame) > l.remote.options.MaxMessageBytes:
		p.cut(status.Errorf(codes.ResourceExhausted, "the function sent a message of %d bytes, the limit is %d", proto.Size(frame), l.remote.options.MaxMessageBytes))
	default:
		p.heard(frame)
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

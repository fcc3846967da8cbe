package multiplex

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// InlineBytes is the size of unanswered frames up to which a caller writes its own frame. grpc-go
// buffers 64 KiB of a stream before SendMsg blocks, and answered frames are no longer buffered:
// below half of that no caller blocks in a write, which its deadline could not end. Above it, Run
// writes.
const InlineBytes = 32 << 10

// Stream is a gRPC stream of either side.
type Stream interface {
	Context() context.Context
	SendMsg(message any) error
	RecvMsg(message any) error
}

// Link is one side of a stream that carries many conversations: the greeting that opens it, the
// frames that wait to be sent, the turn to send them, and the end. The side that begins
// conversations calls Open and needs a goroutine in Run; the other one calls Accept and Welcome.
// Either has one goroutine that calls Read, and Break when it returns.
//
// Its lock guards the lane, and state of the owner.
type Link struct {
	// Stream is set by Open and Accept.
	Stream Stream
	// Sent, if not nil, counts the bytes of the messages that are sent.
	Sent *atomic.Uint64
	// Over, if not nil, reports whether the link will send nothing more. It is called under the
	// lock. Then Run ends this side.
	Over func() bool

	ctx    context.Context //nolint:containedctx // the link's own lifetime
	cancel context.CancelCauseFunc
	// closeSend and wake are nil on the side that accepts. wake passes the turn to Run, and is
	// closed when the link is over.
	closeSend func() error
	wake      chan struct{}

	sync.Mutex // guards what follows
	Lane
	// Unanswered is the size of the frames that the other side has not answered.
	Unanswered int
	// writing: a goroutine has the turn to write. It keeps it if a message cannot be sent.
	writing bool
	broken  error
}

// Open opens the link: it connects, sends hello and fills in welcome. It fails when opening ends
// before that is done. The stream ends with lifetime, or by Cancel.
func (l *Link) Open(
	lifetime, opening context.Context, connect func(context.Context) (grpc.ClientStream, error), hello, welcome any,
) error {
	l.ctx, l.cancel = context.WithCancelCause(lifetime)
	inTime := context.AfterFunc(opening, func() { l.cancel(context.Cause(opening)) })
	stream, err := connect(l.ctx)
	if err == nil {
		l.Stream, l.closeSend, l.wake = stream, stream.CloseSend, make(chan struct{}, 1)
		err = greet(stream, hello, welcome)
	}
	if inTime() && err == nil {
		return nil
	}
	if opening.Err() != nil {
		l.cancel(context.Cause(opening)) // the function above may not have done so yet
	}
	if cause := context.Cause(l.ctx); cause != nil {
		err = cause
	}
	l.cancel(err)
	return err
}

func greet(s Stream, hello, welcome any) error {
	if err := s.SendMsg(hello); err != nil && !errors.Is(err, io.EOF) { // after an EOF, RecvMsg has the reason
		return err
	}
	return s.RecvMsg(welcome)
}

// Accept takes a stream that the other side has opened, and fills in its hello. No frame is sent
// before Welcome.
func (l *Link) Accept(stream Stream, hello any) error {
	l.Stream, l.writing = stream, true
	l.ctx, l.cancel = context.WithCancelCause(stream.Context())
	return stream.RecvMsg(hello)
}

// Welcome answers the hello, and sends the waiting frames.
func (l *Link) Welcome(welcome any) error {
	if err := l.Stream.SendMsg(welcome); err != nil {
		return err
	}
	l.write()
	return nil
}

// Context ends with the link.
func (l *Link) Context() context.Context { return l.ctx }

// Append appends a frame to the waiting ones, as a field of the message. size must be that of
// proto.Size. The lock is held.
func (l *Link) Append(field protowire.Number, frame proto.Message, size int) error {
	message, _ := l.Tail()
	b := protowire.AppendTag(*message, field, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size)) //nolint:gosec // positive
	b, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(b, frame)
	if err == nil {
		*message = b
	}
	return err
}

// Writing reports whether a goroutine is about to send the waiting frames. The lock is held.
func (l *Link) Writing() bool { return l.writing }

// UnlockAndWrite unlocks the link, and sends the waiting frames if no other goroutine does. The
// side that opened the link sends one message, so that no caller writes for others while its own
// answer has arrived, and none while more than InlineBytes are unanswered: Run sends the rest. The
// other side sends until nothing waits.
func (l *Link) UnlockAndWrite() {
	write := !l.writing && !l.Empty() && l.broken == nil
	if write {
		l.writing = true
		if l.wake != nil && l.Unanswered > InlineBytes {
			l.wake <- struct{}{}
			write = false
		}
	}
	l.Unlock()
	if write {
		l.write()
	}
}

// write sends messages; the caller has the turn.
func (l *Link) write() {
	for l.writeNext() {
		if l.wake != nil {
			l.handOver()
			return
		}
	}
}

// writeNext sends one message. It returns false if none waits, or the link has ended: then the turn
// is over.
func (l *Link) writeNext() bool {
	// Let goroutines that are about to append a frame do so: a message costs more than its frames.
	runtime.Gosched()
	l.Lock()
	if l.Empty() || l.broken != nil {
		l.rest()
		l.Unlock()
		return false
	}
	message := l.take()
	l.Unlock()
	if l.Sent != nil {
		l.Sent.Add(uint64(len(*message)))
	}
	if err := l.Stream.SendMsg(message); err != nil {
		l.cancel(err) // Read returns the reason
		return false
	}
	return true
}

// handOver passes the turn to Run if there is more to send.
func (l *Link) handOver() {
	l.Lock()
	defer l.Unlock()
	if l.Empty() {
		l.rest()
		return
	}
	l.wake <- struct{}{}
}

// rest ends the turn. The lock is held.
func (l *Link) rest() {
	l.writing = false
	l.EndIfOver()
}

// EndIfOver makes Run end if the link is over. The lock is held.
func (l *Link) EndIfOver() {
	if !l.writing && l.broken == nil && l.Over != nil && l.Over() {
		l.writing = true // to the end
		close(l.wake)
	}
}

// Run sends the frames that callers do not send, until the link ends. When the link is over, it
// ends this side of the stream.
func (l *Link) Run() {
	for {
		select {
		case _, more := <-l.wake:
			if !more {
				if err := l.closeSend(); err != nil {
					l.cancel(err)
				}
				return
			}
		case <-l.ctx.Done():
			return
		}
		for l.writeNext() {
			continue
		}
	}
}

// Read calls next, which reads one message, until it fails, and returns why the link ended: the
// argument of Cancel, or next's error. io.EOF means that the other side has ended the stream.
func (l *Link) Read(next func() error) error {
	var err error
	for err == nil {
		err = next()
	}
	if cause := context.Cause(l.ctx); cause != nil && !errors.Is(cause, context.Canceled) && !errors.Is(cause, io.EOF) {
		err = cause
	}
	return err
}

// Cancel ends Context, and on the side that opened the link the stream.
func (l *Link) Cancel(why error) { l.cancel(why) }

// Break ends the link like Cancel, and nothing more is sent. Waiting frames stay in the lane.
func (l *Link) Break(why error) {
	l.cancel(why)
	l.Lock()
	defer l.Unlock()
	l.broken = why
}

// Broken returns the argument of Break; nil before. The lock is held.
func (l *Link) Broken() error { return l.broken }

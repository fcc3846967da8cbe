package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"google.golang.org/grpc"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/fields"
	"github.com/millrace-io/millrace/internal/multiplex"
	peerv1 "github.com/millrace-io/millrace/proto/gen/millrace/peer/v1"
)

// served is the other side of a link: commands in, answers out.
type served struct {
	multiplex.Link

	server *Server
	// known belongs to the reader.
	known names
	// running are the commands under way; the reader waits for them when the link ends.
	running sync.WaitGroup

	// The link's lock guards what follows: for each command under way, what ends its context, and
	// the size of their frames.
	calls multiplex.Places[running]
	bytes int
}

type running struct {
	cancel context.CancelFunc
	size   int
}

// Link serves one link. It is called by grpc-go.
func (s *Server) Link(stream grpc.BidiStreamingServer[peerv1.LinkRequest, peerv1.LinkResponse]) error {
	l, first := &served{server: s, known: names{}}, &peerv1.LinkRequest{}
	l.Sent = &s.stats.bytesSent
	if err := l.Accept(stream, first); err != nil {
		return err
	}
	if first.GetHello() == nil || len(first.GetCalls()) > 0 || len(first.GetCancels()) > 0 {
		return statusOf(entities.Errorf(entities.InvalidCommand, entities.NotApplied,
			"%w: a link does not begin with a hello: it has one hello, before everything else", errWire))
	}
	if refusal := s.check(first.GetHello()); refusal != nil {
		return statusOf(refusal)
	}
	if refusal := s.enter(l); refusal != nil {
		return statusOf(refusal)
	}
	defer s.exit(l)
	// grpc-go ends the stream when this function returns: not before the last answer is written.
	defer l.running.Wait()
	o := &s.options
	if err := l.Welcome(&peerv1.LinkResponse{Welcome: &peerv1.Welcome{
		Protocol: Protocol, Layout: layoutOf(o.Identity.Layout), Worker: o.Identity.Worker,
		Incarnation: o.Identity.Incarnation,
		MaxInFlight: uint32(o.MaxInFlight), MaxInFlightBytes: uint64(o.MaxInFlightBytes), //nolint:gosec // positive
		MaxFrameBytes: uint32(o.MaxFrameBytes), //nolint:gosec // positive
	}}); err != nil {
		return err
	}
	in := multiplex.Incoming{Consume: l.consume}
	err := l.Read(func() error { return stream.RecvMsg(&in) })
	if errors.Is(err, io.EOF) {
		return nil // the caller has no more commands; those that it sent are answered
	}
	l.Break(err) // ends the contexts of all commands
	return err
}

// consume reads one message of the caller's side.
func (l *served) consume(b []byte) error {
	l.server.stats.bytesReceived.Add(uint64(len(b)))
	f := fields.Of(b, errWire)
	for f.Next() {
		switch f.Number {
		case fieldHello:
			return fmt.Errorf("%w: a link has one hello, before everything else", errWire)
		case fieldCalls:
			if err := l.called(f.B); err != nil {
				return err
			}
		case fieldCancels:
			id, err := idOf(f.B)
			if err != nil {
				return err
			}
			l.abort(id)
		}
	}
	return f.Err
}

// called begins a command. Its context ends with its own timeout, which the caller has measured
// when it sent the command: the clocks of two machines are not compared.
func (l *served) called(b []byte) error {
	c, _ := tasks.Get().(*task)
	if err := c.received.parse(b, l.known); err != nil {
		return err
	}
	l.server.stats.commands.Add(1)
	c.link = l
	if c.timeout > 0 {
		c.ctx, c.cancel = context.WithTimeout(l.Context(), c.timeout)
	} else {
		c.ctx, c.cancel = context.WithCancel(l.Context())
	}
	if !l.admit(c.id, running{cancel: c.cancel, size: len(b)}) {
		c.cancel()
		return fmt.Errorf("%w: call %d came twice, or above the limits that this side told", errWire, c.id)
	}
	l.running.Add(1)
	l.server.stats.inFlight.Add(1)
	l.server.runners.Run(c)
	return nil
}

// admit notes a command that is about to run. The caller's side counts its commands for longer than
// this one does, and knows the limits: one above them is an error of the protocol.
func (l *served) admit(id uint64, r running) bool {
	o := &l.server.options
	l.Lock()
	defer l.Unlock()
	if len(l.calls.Open) >= o.MaxInFlight || (l.bytes > 0 && l.bytes+r.size > o.MaxInFlightBytes) || !l.calls.Join(id, r) {
		return false
	}
	l.bytes += r.size
	return true
}

// abort ends the context of a command. It is still answered (L3). One that has been answered in
// between, whose cancellation was on its way, is not there any more.
func (l *served) abort(id uint64) {
	l.Lock()
	r := l.calls.Open[id]
	l.Unlock()
	if r.cancel != nil {
		r.cancel()
	}
}

// answer sends a command's answer.
func (l *served) answer(id uint64, reply *entities.Reply, failure *entities.Error) {
	l.server.stats.failed(failure)
	l.Lock()
	l.bytes -= l.calls.Open[id].size
	delete(l.calls.Open, id)
	l.server.stats.inFlight.Add(-1)
	if l.Broken() == nil {
		l.append(id, reply, failure)
	}
	l.UnlockAndWrite()
}

// append puts an answer into the lane. A reply that is too large is replaced by an error; an error
// keeps its reason, and its text is cut. L3: there is an answer in any case. The lock is held.
func (l *served) append(id uint64, reply *entities.Reply, failure *entities.Error) {
	message, _ := l.Tail()
	start := len(*message)
	*message = appendAnswer(*message, fieldAnswers, id, reply, failure)
	size, limit := len(*message)-start, l.server.options.MaxFrameBytes
	if size <= limit {
		return
	}
	e := entities.Errorf(entities.TooLarge, entities.Unknown, "the command ran, and its answer of %d bytes cannot be sent: the limit between workers is %d", size, limit)
	if failure != nil {
		*e = *failure
		e.Message = strings.ToValidUTF8(e.Message[:min(len(e.Message), limit/2)], "\uFFFD") // the rest of an error is small
	}
	*message = appendAnswer((*message)[:start], fieldAnswers, id, nil, e)
}

// sendLeave sends the leave message: this process is stopping. It ends the link when its commands
// are answered.
func (l *served) sendLeave() {
	l.Lock()
	if l.Broken() == nil {
		message, _ := l.Tail()
		*message = fields.AppendBool(*message, fieldLeave, true)
	}
	l.UnlockAndWrite()
}

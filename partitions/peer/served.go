package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/multiplex"
	peerv1 "github.com/millrace-io/millrace/proto/gen/millrace/peer/v1"
)

// served is the other side of a link: commands in, answers out.
type served struct {
	server *Server
	stream grpc.ServerStream
	ctx    context.Context //nolint:containedctx // the link's own lifetime
	// cancelAll ends the contexts of all commands.
	cancelAll context.CancelFunc
	hello     *peerv1.Hello
	// in and known belong to the reader.
	in    multiplex.Incoming
	known names
	// running are the commands under way; the reader waits for them when the link ends.
	running sync.WaitGroup

	mu   sync.Mutex // guards what follows
	lane multiplex.Lane
	// calls has, for each command under way, what ends its context.
	calls map[uint64]running
	// bytes is the size of the frames of calls.
	bytes int
	// broken: nobody reads answers any more.
	broken bool
}

type running struct {
	cancel context.CancelFunc
	size   int
}

// Link serves one link. It is called by grpc-go.
func (s *Server) Link(stream grpc.BidiStreamingServer[peerv1.LinkRequest, peerv1.LinkResponse]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	l := &served{server: s, stream: stream, ctx: ctx, cancelAll: cancel, known: names{}, calls: map[uint64]running{}}
	defer cancel()
	l.in.Consume = l.consume
	l.lane.Writing = true // the welcome comes first
	if err := stream.RecvMsg(&l.in); err != nil {
		return err
	}
	if l.hello == nil {
		return statusOf(entities.Errorf(entities.InvalidCommand, entities.NotApplied, "%w: a link does not begin with a hello", errWire))
	}
	if refusal := s.check(l.hello); refusal != nil {
		return statusOf(refusal)
	}
	if refusal := s.enter(l); refusal != nil {
		return statusOf(refusal)
	}
	defer s.exit(l)
	defer l.running.Wait()
	if err := l.welcome(); err != nil {
		return err
	}
	l.write()
	for {
		err := stream.RecvMsg(&l.in)
		if errors.Is(err, io.EOF) {
			return nil // the caller's good-bye; what it sent before is answered
		}
		if err != nil {
			l.hangUp()
			return err
		}
	}
}

func (l *served) welcome() error {
	o := &l.server.options
	return l.stream.SendMsg(&peerv1.LinkResponse{Welcome: &peerv1.Welcome{
		Protocol: Protocol, Layout: layoutOf(o.Identity.Layout), Worker: o.Identity.Worker, Incarnation: o.Identity.Incarnation,
		MaxInFlight: uint32(o.MaxInFlight), MaxInFlightBytes: uint64(o.MaxInFlightBytes), MaxFrameBytes: uint32(o.MaxFrameBytes), //nolint:gosec // positive
	}})
}

// consume reads one message of the caller's side.
func (l *served) consume(b []byte) error {
	l.server.stats.bytesReceived.Add(uint64(len(b)))
	f := fields{rest: b}
	for f.next() {
		if (f.number == fieldHello) != (l.hello == nil) {
			return fmt.Errorf("%w: a link has one hello, before everything else", errWire)
		}
		switch f.number {
		case fieldHello:
			l.hello = &peerv1.Hello{}
			if err := proto.Unmarshal(f.s, l.hello); err != nil {
				return fmt.Errorf("%w: %w", errWire, err)
			}
		case fieldCalls:
			if err := l.called(f.s); err != nil {
				return err
			}
		case fieldCancels:
			id, err := idOf(f.s)
			if err != nil {
				return err
			}
			l.cancel(id)
		}
	}
	return f.err
}

// called begins a command.
func (l *served) called(b []byte) error {
	c, _ := tasks.Get().(*task)
	if err := c.received.parse(b, l.known); err != nil {
		return err
	}
	l.server.stats.commands.Add(1)
	c.link = l
	r := running{size: len(b)}
	if c.timeout > 0 {
		c.ctx, r.cancel = context.WithTimeout(l.ctx, c.timeout)
	} else {
		c.ctx, r.cancel = context.WithCancel(l.ctx)
	}
	if !l.admit(c.id, r) {
		r.cancel()
		return fmt.Errorf("%w: call %d came twice, or above the limits that this side told", errWire, c.id)
	}
	l.running.Add(1)
	l.server.stats.inFlight.Add(1)
	l.server.runners.Run(c)
	return nil
}

// admit notes a command that is about to run. The caller's side counts its commands for longer than this one does, and knows
// the limits: one above them is an error of the protocol.
func (l *served) admit(id uint64, r running) bool {
	o := &l.server.options
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, twice := l.calls[id]; twice || len(l.calls) >= o.MaxInFlight || (l.bytes > 0 && l.bytes+r.size > o.MaxInFlightBytes) {
		return false
	}
	l.calls[id] = r
	l.bytes += r.size
	return true
}

// cancel ends the context of a command. It is answered all the same.
func (l *served) cancel(id uint64) {
	l.mu.Lock()
	r := l.calls[id]
	l.mu.Unlock()
	if r.cancel != nil {
		r.cancel()
	}
}

// answer sends a command's answer. Whoever finds nobody writing writes what is there.
func (l *served) answer(id uint64, reply *entities.Reply, failure *entities.Error) {
	l.server.stats.failed(failure)
	l.mu.Lock()
	r := l.calls[id]
	delete(l.calls, id)
	l.bytes -= r.size
	l.server.stats.inFlight.Add(-1)
	l.append(id, reply, failure)
	write := !l.lane.Writing && !l.broken
	l.lane.Writing = l.lane.Writing || write
	l.mu.Unlock()
	r.cancel()
	if write {
		l.write()
	}
}

// append puts an answer into the lane. A reply that is too large is replaced by an error; an error stays what it is, and its text is
// cut. The lock is held.
func (l *served) append(id uint64, reply *entities.Reply, failure *entities.Error) {
	if l.broken {
		return
	}
	message, _ := l.lane.Tail()
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

// write sends what waits until nothing does.
func (l *served) write() {
	for {
		// Whoever is about to answer gets the chance: a message costs more than what is in it.
		runtime.Gosched()
		l.mu.Lock()
		message := l.lane.Take()
		l.lane.Writing = message != nil
		l.mu.Unlock()
		if message == nil {
			return
		}
		l.server.stats.bytesSent.Add(uint64(len(*message)))
		if err := l.stream.SendMsg(message); err != nil {
			l.hangUp() // the reader sees the end of the stream too
			return
		}
	}
}

// hangUp ends what runs, and drops answers from now on.
func (l *served) hangUp() {
	l.cancelAll()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = true
	l.lane.Drop()
}

// goodbye tells the other side that this process is stopping. It ends the link when its commands are answered.
func (l *served) goodbye() {
	l.mu.Lock()
	if l.broken {
		l.mu.Unlock()
		return
	}
	message, _ := l.lane.Tail()
	*message = appendBool(*message, fieldGoodbye, true)
	write := !l.lane.Writing
	l.lane.Writing = true
	l.mu.Unlock()
	if write {
		l.write()
	}
}

package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/multiplex"
	"github.com/millrace-io/millrace/internal/mutation"
	peerv1 "github.com/millrace-io/millrace/proto/gen/millrace/peer/v1"
)

// frameOverhead is what gRPC adds to a message, counted for each frame.
const frameOverhead = 16

// link is this side of an open link: commands out, answers in.
type link struct {
	address string
	stats   *counters
	conn    *grpc.ClientConn
	stream  grpc.ClientStream
	cancel  context.CancelCauseFunc
	// welcome is what the other side said of itself, with limits that are the lower ones of both.
	welcome *peerv1.Welcome
	// in and known belong to the reader.
	in    multiplex.Incoming
	known names

	mu     sync.Mutex // guards what follows
	writer multiplex.Writer
	calls  map[uint64]*call
	// last is the id of the newest call.
	last uint64
	// unanswered is the size of the frames of calls.
	unanswered int
	// asked is how many single calls are under way on the connection, beside the stream.
	asked int
	// retired: no new commands. goodbye: because the other side said so.
	retired, goodbye bool
	// broken is why the link ended.
	broken error
}

// call is a command on its way. It is reused once nobody else knows of it.
type call struct {
	done    chan struct{}
	reply   *entities.Reply
	failure *entities.Error
	// number and start are where its frame begins.
	number uint64
	start  int
	size   int
	// owned: it is a command of an entity, which another worker may own by now.
	owned bool
	// abandoned: nobody waits for the answer.
	abandoned bool
}

//nolint:gochecknoglobals // memory without a meaning
var calls = sync.Pool{New: func() any { return &call{done: make(chan struct{}, 1)} }}

func (c *call) free() {
	*c = call{done: c.done}
	calls.Put(c)
}

// greet opens a link on a fresh stream.
func (l *link) greet(hello *peerv1.Hello, o *ClientOptions) error {
	l.in.Consume = l.consume
	if err := l.stream.SendMsg(&peerv1.LinkRequest{Hello: hello}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := l.stream.RecvMsg(&l.in); err != nil {
		if refusal := failureOf(err); refusal != nil {
			return fmt.Errorf("%w: %s", errRefused, refusal.Message)
		}
		return err
	}
	w := l.welcome
	switch {
	case w == nil:
		return fmt.Errorf("%w: it does not begin with a welcome", errWire)
	case w.GetProtocol() != hello.GetProtocol(), !proto.Equal(w.GetLayout(), hello.GetLayout()),
		hello.GetToWorker() != "" && w.GetWorker() != hello.GetToWorker(),
		hello.GetToIncarnation() != 0 && w.GetIncarnation() != hello.GetToIncarnation():
		return fmt.Errorf("%w: %s answered", errRefused, describe(w.GetProtocol(), w.GetLayout(), w.GetWorker(), w.GetIncarnation()))
	}
	w.MaxInFlight = min(w.GetMaxInFlight(), uint32(min(o.MaxInFlight, math.MaxInt32)))       //nolint:gosec // bounded
	w.MaxInFlightBytes = min(w.GetMaxInFlightBytes(), uint64(o.MaxInFlightBytes))            //nolint:gosec // positive
	w.MaxFrameBytes = min(w.GetMaxFrameBytes(), uint32(min(o.MaxFrameBytes, math.MaxInt32))) //nolint:gosec // bounded
	if w.GetMaxInFlight() == 0 || w.GetMaxFrameBytes() == 0 || w.GetMaxInFlightBytes() == 0 {
		return fmt.Errorf("%w: a welcome with a limit of 0", errWire)
	}
	return nil
}

// dispatch sends a command and waits for its answer.
func (l *link) dispatch(ctx context.Context, cmd *entities.Command, hops int) (*entities.Reply, *entities.Error) {
	var timeout time.Duration
	deadline, set := ctx.Deadline()
	if set {
		timeout = time.Until(deadline)
	}
	if ctx.Err() != nil || (set && timeout <= 0) {
		return nil, ended(ctx, entities.NotApplied, "before the command was sent: nothing was applied")
	}
	c, _ := calls.Get().(*call)
	id, write, problem := l.enqueue(c, cmd, hops, timeout)
	if problem != nil {
		c.free()
		return nil, problem
	}
	if write {
		l.writer.Write()
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		if problem := l.leave(ctx, id, c); problem != nil {
			return nil, problem
		}
		<-c.done // the answer was quicker
	}
	reply, failure := c.reply, c.failure
	c.free()
	return reply, failure
}

// enqueue puts a command into the lane. write: it is the caller's turn to write.
func (l *link) enqueue(c *call, cmd *entities.Command, hops int, timeout time.Duration) (id uint64, write bool, problem *entities.Error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if problem := l.unusable(); problem != nil {
		return 0, false, problem
	}
	if len(l.calls) >= int(l.welcome.GetMaxInFlight()) {
		return 0, false, overloaded(l.address, fmt.Sprintf("%d commands without an answer", len(l.calls)))
	}
	message, number := l.writer.Tail()
	start := len(*message)
	*message = appendCall(*message, fieldCalls, l.last+1, cmd, hops, timeout)
	size := len(*message) - start
	if size > int(l.welcome.GetMaxFrameBytes()) {
		*message = (*message)[:start]
		return 0, false, tooLarge(l.address, size, int(l.welcome.GetMaxFrameBytes()))
	}
	if l.unanswered > 0 && uint64(l.unanswered+size) > l.welcome.GetMaxInFlightBytes() { //nolint:gosec // positive
		*message = (*message)[:start]
		return 0, false, overloaded(l.address, fmt.Sprintf("%d bytes of commands without an answer", l.unanswered))
	}
	l.last++
	c.number, c.start, c.size, c.owned = number, start, size+frameOverhead, cmd.Type != nil
	l.calls[l.last] = c
	l.unanswered += c.size
	l.stats.commands.Add(1)
	l.stats.inFlight.Add(1)
	return l.last, l.writer.Turn(l.unanswered), nil
}

// unusable says why nothing new may begin on the link; nil: it may. The lock is held.
func (l *link) unusable() *entities.Error {
	switch {
	case l.broken != nil:
		return unreachable(l.address, l.broken, 0)
	case l.retired:
		return unreachable(l.address, errUnwanted, overloadRetry)
	default:
		return nil
	}
}

// leave gives a command up; nil when its answer is there.
func (l *link) leave(ctx context.Context, id uint64, c *call) *entities.Error {
	l.mu.Lock()
	if l.calls[id] != c {
		l.mu.Unlock()
		return nil
	}
	if message := l.writer.Waiting(c.number); message != nil {
		(*message)[c.start] = tagWithdrawn
		l.remove(id, c)
		l.mu.Unlock()
		c.free()
		return ended(ctx, entities.NotApplied, "before the command was sent: nothing was applied")
	}
	c.abandoned = true
	message, _ := l.writer.Tail()
	before := len(*message)
	*message = appendCancel(*message, id)
	grown := len(*message) - before + frameOverhead
	c.size += grown
	l.unanswered += grown
	write := l.writer.Turn(l.unanswered)
	l.mu.Unlock()
	if write {
		l.writer.Write()
	}
	return ended(ctx, entities.Unknown, fmt.Sprintf("before the worker at %s answered: it is not known whether the command took effect, send it again under the same command id", l.address))
}

// remove forgets a call. The lock is held.
func (l *link) remove(id uint64, c *call) {
	delete(l.calls, id)
	l.unanswered -= c.size
	l.stats.inFlight.Add(-1)
	l.writer.Settle()
}

// begin counts a single call that is about to be made on the connection; end takes it back. The error says that it must not be made.
func (l *link) begin() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if problem := l.unusable(); problem != nil {
		return problem
	}
	l.asked++
	return nil
}

func (l *link) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked--
	l.writer.Settle()
}

// over: the link is retired, its last command is answered, and its last call has ended. The lock is held.
func (l *link) over() bool { return l.retired && len(l.calls) == 0 && l.asked == 0 && l.broken == nil }

// transmit gives the transport a message. When that fails, the reader learns why and ends the link.
func (l *link) transmit(message *[]byte) error {
	l.stats.bytesSent.Add(uint64(len(*message)))
	err := l.stream.SendMsg(message)
	if err != nil {
		l.cancel(err)
	}
	return err
}

// write is the link's writer, until the link ends. It ends this side of a retired link.
func (l *link) write() {
	if !l.writer.Run(l.stream.Context()) {
		return
	}
	if err := l.stream.CloseSend(); err != nil {
		l.cancel(err)
	}
}

// retire ends the link when what is under way is answered.
func (l *link) retire(goodbye bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retired = true
	l.goodbye = l.goodbye || goodbye
	l.writer.Settle()
}

// disown gives up the commands of entities that have no answer yet: the worker may be frozen, or cut off. What it still answers
// interests nobody.
func (l *link) disown() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, c := range l.calls {
		switch message := l.writer.Waiting(c.number); {
		case !c.owned || c.abandoned:
		case message != nil:
			(*message)[c.start] = tagWithdrawn
			l.remove(id, c)
			c.answer(nil, unreachable(l.address, errUnwanted, 0))
		default:
			l.calls[id] = &call{number: c.number, start: c.start, size: c.size, abandoned: true} // c is its caller's again
			c.answer(nil, lost(l.address, errUnwanted))
		}
	}
}

// read takes answers until the link ends, and says why it did; nil after a good-bye of either side.
func (l *link) read() error {
	var err error
	for err == nil {
		err = l.stream.RecvMsg(&l.in)
	}
	if cause := context.Cause(l.stream.Context()); cause != nil && !errors.Is(cause, context.Canceled) && !errors.Is(cause, io.EOF) {
		err = cause
	}
	l.mu.Lock()
	l.broken = err
	orderly := l.retired && errors.Is(err, io.EOF)
	for id, c := range l.calls {
		failure := lost(l.address, err)
		if l.writer.Waiting(c.number) != nil || mutation.On(mutation.Sent) {
			failure = unreachable(l.address, err, 0)
		}
		l.remove(id, c)
		c.answer(nil, failure)
	}
	l.mu.Unlock()
	if orderly {
		return nil
	}
	return err
}

// consume reads one message of the other side's.
func (l *link) consume(b []byte) error {
	l.stats.bytesReceived.Add(uint64(len(b)))
	f := fields{rest: b}
	for f.next() {
		switch f.number {
		case fieldWelcome:
			if l.welcome != nil {
				return fmt.Errorf("%w: a second welcome", errWire)
			}
			l.welcome = &peerv1.Welcome{}
			if err := proto.Unmarshal(f.s, l.welcome); err != nil {
				return fmt.Errorf("%w: %w", errWire, err)
			}
		case fieldAnswers:
			if err := l.answered(f.s); err != nil {
				return err
			}
		case fieldGoodbye:
			l.retire(true)
		}
	}
	return f.err
}

// answered gives an answer to whoever waits for it.
func (l *link) answered(b []byte) error {
	id, err := idOf(b)
	if err != nil {
		return err
	}
	reply := &entities.Reply{}
	failure, err := parseAnswer(b, l.known, reply)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c, known := l.calls[id]
	if !known {
		return fmt.Errorf("%w: an answer to call %d, which was not made", errWire, id)
	}
	l.remove(id, c)
	c.answer(reply, failure)
	return nil
}

// answer wakes the caller, unless it has left.
func (c *call) answer(reply *entities.Reply, failure *entities.Error) {
	if c.abandoned {
		return
	}
	if c.reply = reply; failure != nil {
		c.reply, c.failure = nil, failure
	}
	c.done <- struct{}{}
}

// describe names a process for an error.
func describe(protocol uint32, l *peerv1.Layout, worker string, incarnation uint64) string {
	return fmt.Sprintf("worker %q, incarnation %x, of app %q, generation %d, %d partitions, %d slots, hash %q, which speaks version %d",
		worker, incarnation, l.GetApp(), l.GetGeneration(), l.GetPartitions(), l.GetSlots(), l.GetHash(), protocol)
}

func layoutOf(l entities.Layout) *peerv1.Layout {
	return &peerv1.Layout{App: l.App, Generation: uint32(l.Generation), Partitions: uint32(l.Partitions), Slots: uint32(l.Slots), Hash: l.Hash} //nolint:gosec // positive
}

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
	"github.com/millrace-io/millrace/internal/fields"
	"github.com/millrace-io/millrace/internal/multiplex"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/internal/plural"
	peerv1 "github.com/millrace-io/millrace/proto/gen/millrace/peer/v1"
)

// frameOverhead is what gRPC adds to a message, counted for each frame.
const frameOverhead = 16

// link is this side of an open link: commands out, answers in.
type link struct {
	multiplex.Link

	address string
	stats   *counters
	conn    *grpc.ClientConn
	// welcome is the other side's identity and limits; each limit is the lower one of both sides.
	welcome *peerv1.Welcome
	// known belongs to the reader.
	known names

	// The link's lock guards what follows. It is held while a frame is encoded into the message that
	// waits, never while a message is written.
	calls multiplex.Places[*call]
	// asked is how many single calls are under way on the connection, beside the stream.
	asked int
	// retired: no new commands. left: the other side sent its leave message.
	retired, left bool
}

// call is a command on its way. It is reused once no other goroutine refers to it.
type call struct {
	// done has room for the one signal that the answer is there. The call may be reused only after its
	// caller has taken it, or has left before it was sent.
	done    chan struct{}
	reply   *entities.Reply
	failure *entities.Error
	// number and start are where its frame begins: the message, counted from the link's first, and the
	// byte in it. size is what the call counts towards the limit in bytes.
	number uint64
	start  int
	size   int
	// owned: it is a command of an entity, which another worker may own by now.
	owned bool
	// abandoned: the caller no longer waits for the answer.
	abandoned bool
}

//nolint:gochecknoglobals // memory without a meaning
var calls = sync.Pool{New: func() any { return &call{done: make(chan struct{}, 1)} }}

func (c *call) free() {
	*c = call{done: c.done}
	calls.Put(c)
}

// admit checks that the other side is the expected process, and sets the limits of the link.
func (l *link) admit(w *peerv1.Welcome, hello *peerv1.Hello, o *ClientOptions) error {
	switch {
	case w == nil:
		return fmt.Errorf("%w: it does not begin with a welcome", errWire)
	// A server of this version has refused all of these; one of another version might not.
	case w.GetProtocol() != hello.GetProtocol(), !proto.Equal(w.GetLayout(), hello.GetLayout()),
		hello.GetToWorker() != "" && w.GetWorker() != hello.GetToWorker(),
		hello.GetToIncarnation() != 0 && w.GetIncarnation() != hello.GetToIncarnation():
		return fmt.Errorf("%w: %s answered",
			errRefused, describe(w.GetProtocol(), w.GetLayout(), w.GetWorker(), w.GetIncarnation()))
	}
	w.MaxInFlight = min(w.GetMaxInFlight(), uint32(min(o.MaxInFlight, math.MaxInt32)))       //nolint:gosec // bounded
	w.MaxInFlightBytes = min(w.GetMaxInFlightBytes(), uint64(o.MaxInFlightBytes))            //nolint:gosec // positive
	w.MaxFrameBytes = min(w.GetMaxFrameBytes(), uint32(min(o.MaxFrameBytes, math.MaxInt32))) //nolint:gosec // bounded
	if w.GetMaxInFlight() == 0 || w.GetMaxFrameBytes() == 0 || w.GetMaxInFlightBytes() == 0 {
		return fmt.Errorf("%w: a welcome with a limit of 0", errWire)
	}
	l.welcome = w
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
	l.Lock()
	id, problem := l.enqueue(c, cmd, hops, timeout)
	if problem != nil {
		l.Unlock()
		c.free()
		return nil, problem
	}
	l.UnlockAndWrite()
	select {
	case <-c.done:
	case <-ctx.Done():
		if problem := l.leave(ctx, id, c); problem != nil {
			return nil, problem
		}
		<-c.done // the answer came in between
	}
	reply, failure := c.reply, c.failure
	c.free()
	return reply, failure
}

// enqueue puts a command into the lane. The lock is held.
func (l *link) enqueue(
	c *call, cmd *entities.Command, hops int, timeout time.Duration,
) (id uint64, problem *entities.Error) {
	if problem := l.unusable(); problem != nil {
		return 0, problem
	}
	if len(l.calls.Open) >= int(l.welcome.GetMaxInFlight()) {
		return 0, overloaded(l.address, plural.Of(len(l.calls.Open), "command")+" without an answer")
	}
	message, number := l.Tail()
	start := len(*message)
	*message = appendCall(*message, fieldCalls, l.calls.Last+1, cmd, hops, timeout)
	size := len(*message) - start
	if size > int(l.welcome.GetMaxFrameBytes()) {
		*message = (*message)[:start]
		return 0, tooLarge(l.address, size, int(l.welcome.GetMaxFrameBytes()))
	}
	// One command may always go, however large, or a limit below its size would hold it up for ever.
	if l.Unanswered > 0 && uint64(l.Unanswered+size) > l.welcome.GetMaxInFlightBytes() { //nolint:gosec // positive
		*message = (*message)[:start]
		return 0, overloaded(l.address, fmt.Sprintf("%d bytes of commands without an answer", l.Unanswered))
	}
	c.number, c.start, c.size, c.owned = number, start, size+frameOverhead, cmd.Type != nil
	l.Unanswered += c.size
	l.stats.commands.Add(1)
	l.stats.inFlight.Add(1)
	return l.calls.Begin(c), nil
}

// unusable returns why nothing new may begin on the link; nil if it may. The lock is held.
func (l *link) unusable() *entities.Error {
	switch {
	case l.Broken() != nil:
		return unreachable(l.address, l.Broken(), 0)
	case l.retired:
		return unreachable(l.address, errUnwanted, overloadRetry)
	default:
		return nil
	}
}

// leave gives a command up. It returns nil if the answer has arrived. L1: while the frame waits in
// a message that no goroutine writes yet, its tag is overwritten, and the other side skips it.
// Later only a cancellation can follow it, which ends the command's context there; the place stays
// taken until its answer comes (L3).
func (l *link) leave(ctx context.Context, id uint64, c *call) *entities.Error {
	l.Lock()
	if l.calls.Open[id] != c {
		l.Unlock()
		return nil
	}
	if message := l.Waiting(c.number); message != nil {
		(*message)[c.start] = tagWithdrawn
		l.remove(id, c)
		l.Unlock()
		c.free()
		return ended(ctx, entities.NotApplied, "before the command was sent: nothing was applied")
	}
	c.abandoned = true
	message, _ := l.Tail()
	before := len(*message)
	*message = appendCancel(*message, id)
	grown := len(*message) - before + frameOverhead
	c.size += grown
	l.Unanswered += grown
	l.UnlockAndWrite()
	return ended(ctx, entities.Unknown, fmt.Sprintf("before the worker at %s answered: it is not known whether the command took effect, send it again under the same command id", l.address))
}

// remove forgets a call. The lock is held.
func (l *link) remove(id uint64, c *call) {
	delete(l.calls.Open, id)
	l.Unanswered -= c.size
	l.stats.inFlight.Add(-1)
	l.EndIfOver()
}

// begin counts a single call that is about to be made on the connection; end takes it back. After
// an error the call must not be made.
func (l *link) begin() error {
	l.Lock()
	defer l.Unlock()
	if problem := l.unusable(); problem != nil {
		return problem
	}
	l.asked++
	return nil
}

func (l *link) end() {
	l.Lock()
	defer l.Unlock()
	l.asked--
	l.EndIfOver()
}

// over: the link is retired, its last command is answered, and its last call has ended. The lock is
// held.
func (l *link) over() bool { return l.retired && len(l.calls.Open) == 0 && l.asked == 0 }

// retire ends the link when what is under way is answered.
func (l *link) retire(left bool) {
	l.Lock()
	defer l.Unlock()
	l.retired = true
	l.left = l.left || left
	l.EndIfOver()
}

// disown gives up the commands of entities that have no answer yet: the worker may be frozen, or
// cut off. Its later answers are dropped. Single calls and actions go on: no other worker can be
// asked what became of them.
func (l *link) disown() {
	l.Lock()
	defer l.Unlock()
	for id, c := range l.calls.Open {
		switch message := l.Waiting(c.number); {
		case !c.owned || c.abandoned:
		case message != nil: // L1: it has not left
			(*message)[c.start] = tagWithdrawn
			l.remove(id, c)
			c.answer(nil, unreachable(l.address, errUnwanted, 0))
		default:
			l.calls.Open[id] = &call{number: c.number, start: c.start, size: c.size, abandoned: true} // c is its caller's again
			c.answer(nil, lost(l.address, errUnwanted))
		}
	}
}

// read takes answers until the link ends, and returns why it ended; nil if it ended in order.
func (l *link) read() error {
	in := multiplex.Incoming{Consume: l.consume}
	err := l.Read(func() error { return l.Stream.RecvMsg(&in) })
	l.Break(err)
	l.Lock()
	defer l.Unlock()
	for id, c := range l.calls.Open { // L1
		failure := lost(l.address, err)
		if l.Waiting(c.number) != nil || mutation.On(mutation.Sent) {
			failure = unreachable(l.address, err, 0)
		}
		l.remove(id, c)
		c.answer(nil, failure)
	}
	if l.retired && errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// consume reads one message of the other side.
func (l *link) consume(b []byte) error {
	l.stats.bytesReceived.Add(uint64(len(b)))
	f := fields.Of(b, errWire)
	for f.Next() {
		switch f.Number {
		case fieldWelcome:
			return fmt.Errorf("%w: a second welcome", errWire)
		case fieldAnswers:
			if err := l.answered(f.B); err != nil {
				return err
			}
		case fieldLeave:
			l.retire(true)
		}
	}
	return f.Err
}

// answered passes an answer to the call that waits for it. An answer without a call (L2) ends the
// link: the two sides no longer agree about what is under way.
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
	l.Lock()
	defer l.Unlock()
	c, known := l.calls.Open[id]
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
	return fmt.Sprintf("worker %q, incarnation %x, of app %q, generation %d, %s, %d slots, hash %q, which speaks version %d",
		worker, incarnation, l.GetApp(), l.GetGeneration(), plural.Of(l.GetPartitions(), "partition"),
		l.GetSlots(), l.GetHash(), protocol)
}

func layoutOf(l entities.Layout) *peerv1.Layout {
	return &peerv1.Layout{
		App: l.App, Generation: uint32(l.Generation), Hash: l.Hash,
		Partitions: uint32(l.Partitions), Slots: uint32(l.Slots), //nolint:gosec // positive
	}
}

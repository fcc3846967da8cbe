package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

// What an open session costs here, about and without the entity's state: on a stream of its own,
// and on a link.
const (
	streamBytes = 16 << 10
	placeBytes  = 2 << 10
)

// Values of session.running that are no command ids; those count from 1.
const (
	idle    = 0
	loading = -1
)

// channel carries the messages of one session: a gRPC stream of its own, or a place on a link.
type channel interface {
	// send sends the next message.
	send(messages) error
	// room waits, before one of many messages is sent, until the function has taken in enough of
	// those before.
	room(message proto.Message) error
	CloseSend() error
}

// ownStream is the channel of a session with a stream of its own. It blocks while the function is
// behind, so that a long history needs no buffer.
type ownStream struct{ grpc.ClientStream }

func (o ownStream) send(m messages) error { return o.SendMsg(m.next()) }

func (ownStream) room(proto.Message) error { return nil }

// answer is a message of the function.
type answer struct {
	kind      answerKind
	commandID int64
	// failure is the Failure with which the function ended the session; gaveUp: because the time of
	// the caller was over.
	failure string
	gaveUp  bool
	action  *cloudstate.ClientAction
	effects []*cloudstate.SideEffect
	timers  []*cloudstate.MillraceTimer
	// reply is the whole reply, in the type of its kind.
	reply any
}

// anyReply is what the replies of all kinds have.
type anyReply interface {
	GetCommandId() int64
	GetClientAction() *cloudstate.ClientAction
	GetSideEffects() []*cloudstate.SideEffect
}

// replied makes a reply of an answer.
func (a *answer) replied(reply anyReply, timers []*cloudstate.MillraceTimer) {
	a.kind, a.commandID, a.reply = replyAnswer, reply.GetCommandId(), reply
	a.action, a.effects, a.timers = reply.GetClientAction(), reply.GetSideEffects(), timers
}

// failed makes an answer that the function ended the session.
func (a *answer) failed(f *cloudstate.Failure) {
	a.kind, a.commandID, a.failure = failureAnswer, f.GetCommandId(), f.GetDescription()
	a.gaveUp = f.GetGrpcCode() == int32(codes.DeadlineExceeded)
}

// errGaveUp is the cause of the end of a session whose function gave a command up in time.
var errGaveUp = errors.New("the function gave the command up when the time of its caller was over")

type answerKind uint8

const (
	emptyAnswer answerKind = iota
	replyAnswer
	failureAnswer
)

// session is the conversation with a remote function about one entity.
//
// Open, Handle and Close never overlap; the goroutine that receives runs beside them. mu guards
// what both use.
type session struct {
	remote  *Remote
	service *discovery.Service
	key     entities.Key
	kind    kind
	// messages are what it sends and receives, channel is what carries them.
	messages messages
	channel  channel
	// cancel resets the stream, or ends the place on the link.
	cancel context.CancelCauseFunc
	// watch fires when the function takes too long.
	watch *time.Timer

	// place is the session's on a link, nil when it has a stream of its own.
	place *place

	// command is sent again and again with new contents.
	command cloudstate.Command
	payload anypb.Any
	// sent are the commands that were sent to the function and that Handle has not answered yet,
	// oldest first.
	sent []sentCommand

	// answers has those to sent commands, in their order: pointers, since few sessions ever have
	// several. done is closed when the receiving goroutine is gone.
	answers chan *answer
	done    chan struct{}
	ended   chan struct{}
	// endOnce closes ended.
	endOnce sync.Once
	bytes   atomic.Int64
	// overhead is what the session costs beside the entity's state.
	overhead int
	// pace is what the function takes for a command, in nanoseconds, as of late.
	pace atomic.Int64

	mu sync.Mutex
	// running is the id of the oldest command that waits for its answer, or idle, or loading;
	// lastID is that of the newest. began is when the running one, or the last message of the
	// replay, was sent, or had its turn.
	running int64
	began   time.Time
	lastID  int64
	// busy is set while the session is loading or inside Handle: then the engine learns of an end
	// by an error, else by Ended.
	busy    bool
	closing bool
	// fault is why the session has ended, nil while it is open.
	fault *entities.Error
}

// Open begins the session of one entity: the stream, Init, and for event-sourced entities all
// events after the snapshot. It returns when the last of them is sent; the function does not
// confirm them.
func (r *Remote) Open(ctx context.Context, service *discovery.Service, key entities.Key,
	load entities.Loader,
) (entities.Session, error) {
	if err := r.awaitReady(ctx); err != nil {
		return nil, err
	}
	loaded, err := load(ctx)
	if err != nil {
		return nil, err
	}
	s := &session{
		remote:  r,
		service: service,
		key:     key,
		kind:    kinds[service.Kind],
		answers: make(chan *answer, maxAhead),
		done:    make(chan struct{}),
		ended:   make(chan struct{}),
		running: loading,
		busy:    true,
		began:   time.Now(),
	}
	s.messages = s.kind.messages()
	if err := s.join(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, callerGone(ctx)
		}
		return nil, r.unreachable(entities.NotApplied, err)
	}
	s.watch = time.AfterFunc(r.options.FunctionTimeout, s.tooSlow)
	if err := s.load(ctx, loaded); err != nil {
		return nil, err
	}
	r.stats.sessionsOpen.Add(1)
	r.stats.sessionsOpened.Add(1)
	return s, nil
}

// openStream gives the session a stream of its own.
func (s *session) openStream() error {
	ctx, cancel := context.WithCancelCause(s.remote.lifetime)
	stream, err := s.kind.stream(ctx, s.remote.conn)
	if err != nil {
		cancel(err)
		return err
	}
	s.channel, s.cancel, s.overhead = ownStream{stream}, cancel, streamBytes
	// Ends with the stream, which ends with the session or with the Remote; both Closes wait for
	// it.
	if !s.remote.start(func() { s.receive(stream) }) {
		cancel(errRemoteClosed)
		return errRemoteClosed
	}
	return nil
}

// joinLink gives the session a place on the link that all share.
func (s *session) joinLink(ctx context.Context, frames framed) error {
	l, err := s.remote.sharedLink(ctx)
	if err != nil {
		return err
	}
	p := &place{link: l, session: s, frames: frames, taken: make(chan struct{}, 1)}
	s.place = p
	s.channel, s.cancel, s.overhead = p, p.cut, placeBytes
	return l.join(p)
}

// join gives the session a channel: a place on the link, if the function knows of that and the kind
// has frames for it.
func (s *session) join(ctx context.Context) error {
	frames, ok := s.messages.(framed)
	if ok && s.remote.options.SharedStream && s.remote.announced(cloudstate.MillraceExtension_MILLRACE_SHARED_STREAM) {
		return s.joinLink(ctx, frames)
	}
	return s.openStream()
}

// load brings the function's memory to what is stored. If that cannot be done the session is over,
// and its goroutine gone.
func (s *session) load(ctx context.Context, loaded entities.Loaded) error {
	watching := context.AfterFunc(ctx, func() {
		s.beginClosing()
		s.cancel(context.Cause(ctx))
	})
	err := s.messages.load(s, loaded)
	callerHere := watching()
	s.watch.Stop()
	if err == nil && callerHere && s.loaded() {
		return nil
	}
	broken, byStream := errors.AsType[streamError](err)
	if err != nil && !byStream {
		s.cut()
		return err // the loader's own
	}
	fault := s.abandon(broken.error)
	if !callerHere {
		return callerGone(ctx)
	}
	return fault
}

// streamError is an error of the stream, as distinct from one of the engine's loader.
type streamError struct{ error }

// loaded makes the session wait for its first command; false when it has ended meanwhile.
func (s *session) loaded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault != nil {
		return false
	}
	s.running, s.busy = idle, false
	return true
}

// tell sends the next message of the stored state.
func (s *session) tell() error {
	if err := s.channel.send(s.messages); err != nil {
		return streamError{err}
	}
	return nil
}

// replay sends the function one of many stored changes, whose content has size bytes.
func (s *session) replay(change proto.Message, size int) error {
	if err := s.channel.room(change); err != nil {
		return streamError{err}
	}
	if err := s.tell(); err != nil {
		return err
	}
	s.bytes.Add(int64(size))
	s.remote.stats.eventsReplayed.Add(1)
	s.mu.Lock()
	s.began = time.Now() // the function has room for more
	s.mu.Unlock()
	s.watch.Reset(s.remote.options.FunctionTimeout)
	return nil
}

// receive is the goroutine that reads the function's messages, also when no command waits.
func (s *session) receive(stream grpc.ClientStream) {
	defer close(s.done)
	for {
		a := &answer{}
		if err := s.messages.receive(stream, a); err != nil {
			s.finish(s.terminated(err))
			return
		}
		if fault := s.accept(a); fault != nil {
			s.finish(fault)
			return
		}
	}
}

// accept hands an answer to the command that it belongs to, or says why it belongs to no command.
func (s *session) accept(a *answer) *entities.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing:
		return nil // too late: nothing waits for it
	case a.kind == failureAnswer && a.gaveUp && s.remote.announced(cloudstate.MillraceExtension_MILLRACE_FAILURE_CODE):
		return functionFailed(s.kind.texts().failure, errGaveUp)
	case a.kind == failureAnswer:
		return functionFailed(s.kind.texts().failure,
			fmt.Errorf("the function gave up at command %d: %s", a.commandID, a.failure))
	case a.kind == emptyAnswer:
		return functionFailed(s.kind.texts().message,
			errors.New("the function sent a message that is neither reply nor failure"))
	case s.running <= idle:
		return functionFailed(s.kind.texts().reply,
			fmt.Errorf("the function answered command %d while none was running", a.commandID))
	case a.commandID != s.running:
		return functionFailed(s.kind.texts().reply,
			fmt.Errorf("the function answered command %d while %d was running", a.commandID, s.running))
	}
	s.running++
	if s.running > s.lastID {
		s.running = idle
	}
	s.keepPace()
	s.answers <- a // has room: one command, one answer
	return nil
}

// terminated is the fault of a stream that ended or broke.
func (s *session) terminated(err error) *entities.Error {
	if errors.Is(err, io.EOF) {
		return functionFailed(s.kind.texts().termination, errors.New("the function ended the stream"))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == loading && status.Code(err) == codes.Unavailable {
		return s.remote.unreachable(entities.NotApplied, err)
	}
	return functionFailed(s.kind.texts().termination, err)
}

// tooSlow ends a session whose function did not answer in time. It runs on a timer's goroutine,
// which may be late: began reports whether it means the present command.
func (s *session) tooSlow() {
	timeout := s.remote.options.FunctionTimeout
	s.mu.Lock()
	late := s.running != idle && time.Since(s.began) >= timeout
	s.mu.Unlock()
	if late {
		s.finish(functionFailed(fmt.Sprintf(
			"the function at %s did not answer within %v", s.remote.address, timeout), nil))
	}
}

// abandon ends the session after a message could not be sent, and returns why. The receiving side
// has the reason.
func (s *session) abandon(err error) *entities.Error {
	if err != nil && !errors.Is(err, io.EOF) {
		s.finish(s.terminated(err))
	}
	<-s.done
	return s.reason()
}

// finish ends the session for a reason. The first reason stays.
func (s *session) finish(fault *entities.Error) {
	s.mu.Lock()
	first := s.fault == nil
	busy, orderly := s.busy, s.closing
	if first {
		s.fault = fault
	}
	s.mu.Unlock()
	ended := first && !orderly
	if ended && !errors.Is(fault, errGaveUp) { // before the engine can learn of it
		s.remote.options.Hooks.OnSessionFault(s.key, fault)
	}
	s.cancel(fault)
	if ended && !busy {
		s.endedByFunction()
	}
}

// endedByFunction tells the engine, which is not waiting for an answer.
func (s *session) endedByFunction() {
	s.endOnce.Do(func() {
		s.remote.stats.sessionsEnded.Add(1)
		close(s.ended)
	})
}

// reason is why the session has ended.
func (s *session) reason() *entities.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault
}

// Close half-closes the stream and waits for the function to end its side, until ctx ends; then it
// cuts the stream.
func (s *session) Close(ctx context.Context) {
	s.watch.Stop()
	if !s.beginClosing() {
		// An error means that the stream is broken, which ends the wait as well.
		_ = s.channel.CloseSend()
		select {
		case <-s.done:
		case <-ctx.Done():
		}
	}
	s.cancel(errSessionClosed)
	<-s.done
	s.remote.stats.sessionsOpen.Add(-1)
}

// beginClosing makes the end of the stream an orderly one, and reports whether it has ended
// already.
func (s *session) beginClosing() (over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	return s.fault != nil
}

// cut ends the session at once.
func (s *session) cut() {
	s.beginClosing()
	s.cancel(errSessionClosed)
	<-s.done
}

var errSessionClosed = errors.New("the session was closed")

// Ended is closed when the function ended the conversation while no command was running.
func (s *session) Ended() <-chan struct{} { return s.ended }

// Size estimates what the session holds: here, and the state in the function.
func (s *session) Size() int { return s.overhead + int(s.bytes.Load()) }

// functionFailed is the end of a session: nothing is stored, and the cause is for the log. What
// follows from the end of a session has the reference of that end.
func functionFailed(text string, cause error) *entities.Error {
	e := &entities.Error{Reason: entities.FunctionFailed, Outcome: entities.NotApplied, Message: text, Cause: cause}
	if fault, ok := errors.AsType[*entities.Error](cause); ok {
		e.Reference = fault.Reference
	}
	e.Reference = cmp.Or(e.Reference, newReference())
	return e
}

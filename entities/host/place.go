package host

import (
	"google.golang.org/protobuf/proto"

	sessionv1 "github.com/millrace-io/millrace/proto/gen/millrace/session/v1"
)

// replayBytes is how much of a replay the function may have before it has taken it in: what waits
// there has no other bound.
const replayBytes = 256 << 10

// place is a session's part of a link. It replaces a stream of its own.
type place struct {
	link    *link
	session *session
	// taken gets a value when the function has taken in what came before a checkpoint.
	taken chan struct{}
	// frame is used again and again, frames fills it in; replayed is what was sent since the last
	// checkpoint.
	frame    sessionv1.Request
	frames   framed
	replayed int
	// hold: what is sent waits for the link's push.
	hold bool

	// The link's lock guards these. id is 0 until the first frame is sent; live: it has not ended.
	id         uint64
	live       bool
	unanswered int
}

// send sends the next message of the session.
func (p *place) send(messages) error {
	p.frames.frame(&p.frame)
	return p.link.send(p, &p.frame)
}

// room waits at a checkpoint from time to time.
func (p *place) room(message proto.Message) error {
	size := proto.Size(message)
	if p.replayed += size; p.replayed <= replayBytes {
		return nil
	}
	p.replayed = size
	if err := p.link.send(p, &sessionv1.Request{Message: &sessionv1.Request_Checkpoint{Checkpoint: true}}); err != nil {
		return err
	}
	select {
	case <-p.taken:
		return nil
	case <-p.session.done:
		return p.session.reason()
	}
}

// CloseSend says that no more commands come.
func (p *place) CloseSend() error {
	return p.link.send(p, &sessionv1.Request{Message: &sessionv1.Request_Close{Close: true}})
}

// receive takes a frame of the function. It is called by the link's reader.
func (p *place) receive(frame *sessionv1.Response) {
	if _, taken := frame.GetMessage().(*sessionv1.Response_Taken); taken {
		select {
		case p.taken <- struct{}{}:
		default: // no replay waits for it
		}
		return
	}
	a := &answer{}
	p.frames.unframe(frame, a)
	if fault := p.session.accept(a); fault != nil {
		p.session.finish(fault)
	}
}

// over ends the session because its stream would have ended. It is called by the link's reader.
func (p *place) over(err error) {
	p.link.Lock()
	live := p.live
	p.live = false
	p.link.Unlock()
	if live {
		p.session.finish(p.session.terminated(err))
		close(p.session.done)
	}
}

// cut ends the place: the function is told, and its later frames are dropped.
func (p *place) cut(cause error) {
	l := p.link
	l.Lock()
	if !p.live {
		l.Unlock()
		return
	}
	p.live = false
	if l.Broken() == nil && p.id != 0 {
		_ = l.enqueue(p, &sessionv1.Request{Message: &sessionv1.Request_Cancel{Cancel: true}}) // it can be encoded
	}
	l.UnlockAndWrite()
	p.session.finish(p.session.terminated(cause))
	close(p.session.done)
}

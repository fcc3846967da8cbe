package host

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/proto/gen/cloudstate/eventsourced"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/valueentity"
	sessionv1 "github.com/millrace-io/millrace/proto/gen/millrace/session/v1"
)

// replayBytes is how much of a replay the function may have before it has taken it in: what waits there has no other bound.
const replayBytes = 256 << 10

// place is a session's on a link. It stands for a stream of its own.
type place struct {
	link    *link
	session *session
	// taken gets a value when the function has taken in what came before a checkpoint.
	taken chan struct{}
	// frame is used again and again, and so is what is in it; replayed is what was sent since the last checkpoint.
	frame        sessionv1.Request
	eventSourced sessionv1.Request_EventSourced
	value        sessionv1.Request_Value
	replayed     int
	// hold: what is sent waits for the link's push.
	hold bool

	// The link's lock guards these. id is 0 until the function is to hear of the session; live: it has not ended.
	id         uint64
	live       bool
	unanswered int
}

// SendMsg sends one message of the worker's side.
func (p *place) SendMsg(message any) error {
	switch m := message.(type) {
	case *valueentity.ValueEntityStreamIn:
		p.value.Value = m
		p.frame.Message = &p.value
	case *eventsourced.EventSourcedStreamIn:
		p.eventSourced.EventSourced = m
		p.frame.Message = &p.eventSourced
		if e := m.GetEvent(); e != nil {
			if err := p.checkpoint(proto.Size(e)); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("send %T: it is no message of a session", m)
	}
	return p.link.send(p, &p.frame)
}

// checkpoint waits, before another event is sent, until the function has taken in enough of those before.
func (p *place) checkpoint(size int) error {
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

// RecvMsg is not for places: the link's reader calls heard.
func (p *place) RecvMsg(any) error { return errors.New("a link gives its sessions what it reads") }

// CloseSend says that no more commands come.
func (p *place) CloseSend() error {
	return p.link.send(p, &sessionv1.Request{Message: &sessionv1.Request_Close{Close: true}})
}

// heard takes a frame of the function's. It is called by the link's reader.
func (p *place) heard(frame *sessionv1.Response) {
	a := &answer{}
	switch m := frame.GetMessage().(type) {
	case *sessionv1.Response_Value:
		readValue(m.Value, a)
	case *sessionv1.Response_EventSourced:
		readEventSourced(m.EventSourced, a)
	case *sessionv1.Response_Taken:
		select {
		case p.taken <- struct{}{}:
		default: // nobody asked
		}
		return
	}
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

// cut gives the place up: the function is told, and what it still says is dropped.
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

package sdk

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/internal/multiplex"
	sessionv1 "github.com/millrace-io/millrace/proto/gen/millrace/session/v1"
)

const (
	// framesField is the field of frames in LinkResponse.
	framesField = 2
	// maxFrameBytes is the longest frame that a link takes: a message has other frames besides.
	maxFrameBytes = maxMessageBytes - multiplex.MessageBytes
	// holdFor is how long an answer may wait for the next ones, so that they are sent together.
	holdFor = 200 * time.Microsecond
	// idleRunners is how many goroutines of a link wait for the next command instead of ending.
	idleRunners = 256
)

// linkServer carries sessions of all entities on one stream, for proxies that know of it.
type linkServer struct {
	sessionv1.UnimplementedSessionServiceServer
	server *Server
}

// Link serves one link, until the proxy ends it or the server closes.
func (s linkServer) Link(stream sessionv1.SessionService_LinkServer) error {
	if !s.server.enter() {
		return errClosing
	}
	l := &link{server: s.server, runners: multiplex.Runners{Most: idleRunners}}
	done := make(chan error, 1)
	go func() { // ends when the stream does; Close waits for it
		defer s.server.streams.Done()
		done <- l.serve(stream)
	}()
	var err error
	select {
	case err = <-done:
		l.Cancel(err) // the proxy does not wait for answers
	case <-s.server.closing:
		err = errClosing
	}
	l.close()
	return err
}

// link is the function's side of a stream that many sessions share.
type link struct {
	multiplex.Link

	server  *Server
	runners multiplex.Runners
	// longest is the longest frame that the proxy takes.
	longest int

	// The link's lock guards what follows, and the places' own.
	places multiplex.Places[*place]
	// closing: sessions end as soon as their current message is worked on.
	closing bool
	// handling counts the places on runners.
	handling sync.WaitGroup
}

// place is one session on a link.
type place struct {
	link   *link
	id     uint64
	ctx    context.Context //nolint:containedctx // the session's own lifetime
	cancel context.CancelFunc
	step   step

	// The link's lock guards these. running: a runner has the place.
	inbox              []*sessionv1.Request
	running, cancelled bool
	// more: another frame waits for the one that is handled. held: an answer waits for the next one;
	// late ends that.
	more, held bool
	late       *time.Timer
}

// serve handles the proxy's frames until the stream ends.
func (l *link) serve(stream grpc.ServerStream) error {
	var first sessionv1.LinkRequest
	if err := l.Accept(multiplex.PlainStream{ServerStream: stream}, &first); err != nil {
		return endOf(err)
	}
	if l.longest = int(first.GetHello().GetMaxFrameBytes()); l.longest == 0 {
		return status.Error(codes.InvalidArgument, "a link begins with a hello that has a max_frame_bytes")
	}
	if err := l.Welcome(&sessionv1.LinkResponse{Welcome: &sessionv1.Welcome{MaxFrameBytes: maxFrameBytes}}); err != nil {
		return err
	}
	err := endOf(l.Read(func() error {
		var message sessionv1.LinkRequest
		if err := stream.RecvMsg(&message); err != nil {
			return err
		}
		for _, frame := range message.GetFrames() {
			l.receive(frame)
		}
		return nil
	}))
	if err != nil {
		l.Break(err)
	}
	return err
}

// receive gives a frame to its session. It does not wait for it.
func (l *link) receive(frame *sessionv1.Request) {
	l.Lock()
	defer l.Unlock()
	if l.closing { // close waits for what runs, and nothing else may begin
		return
	}
	p := l.places.Open[frame.GetSession()]
	if p == nil {
		p = &place{link: l, id: frame.GetSession()}
		if !l.places.Join(p.id, p) {
			return // it has ended, and the proxy did not know yet
		}
		p.begin(frame)
	}
	if frame.GetCancel() {
		p.cancelled = true
		p.cancel()
	}
	p.inbox = append(p.inbox, frame)
	if !p.running {
		p.running = true
		l.handling.Add(1)
		l.runners.Run(p)
	}
}

// begin makes a session of the kind of its first frame.
func (p *place) begin(frame *sessionv1.Request) {
	p.ctx, p.cancel = context.WithCancel(p.link.Context())
	for _, k := range kinds {
		if k == nil {
			continue
		}
		if p.step = k.session(p, frame); p.step != nil {
			return
		}
	}
	p.step = func(*sessionv1.Request) (bool, error) {
		return true, status.Error(codes.InvalidArgument, "a session begins with a message of a kind of entity that this function knows")
	}
}

// Run works on what was sent in the session, in order. It is called on a runner.
func (p *place) Run() {
	defer p.link.handling.Done()
	for frame := p.next(); frame != nil; frame = p.next() {
		if over, err := p.handle(frame); over || err != nil {
			p.end(err)
			return
		}
	}
	p.flush()
}

// next takes the next frame; nil when there is none, and then the runner has released the place.
func (p *place) next() *sessionv1.Request {
	l := p.link
	l.Lock()
	defer l.Unlock()
	switch {
	case p.cancelled, l.closing:
		return &sessionv1.Request{Message: &sessionv1.Request_Cancel{Cancel: true}}
	case len(p.inbox) == 0:
		p.inbox, p.running = nil, false // an idle session need not hold them
		return nil
	}
	frame := p.inbox[0]
	p.inbox = p.inbox[1:]
	p.more = len(p.inbox) > 0
	return frame
}

func (p *place) handle(frame *sessionv1.Request) (over bool, err error) {
	switch frame.GetMessage().(type) {
	case *sessionv1.Request_Checkpoint:
		return false, p.send(&sessionv1.Response{Message: &sessionv1.Response_Taken{Taken: true}})
	case *sessionv1.Request_Close:
		return true, nil
	case *sessionv1.Request_Cancel:
		return true, errClosing
	default:
		return p.step(frame)
	}
}

// end sends how the session ended, and removes it.
func (p *place) end(err error) {
	p.cancel()
	l := p.link
	l.Lock()
	p.more = false
	delete(l.places.Open, p.id)
	l.Unlock()
	end := &sessionv1.End{}
	if err != nil {
		said := status.Convert(err)
		end.Code, end.Message = uint32(said.Code()), said.Message()
	}
	_ = p.send(&sessionv1.Response{Message: &sessionv1.Response_End{End: end}}) // if the link is broken, the proxy knows
}

var errLinkBroken = errors.New("the stream that this session shares with others has ended")

// send sends one frame, or holds it when another one follows soon.
func (p *place) send(frame *sessionv1.Response) error {
	frame.Session = p.id
	l := p.link
	size := proto.Size(frame)
	if size > l.longest {
		return status.Errorf(codes.ResourceExhausted, "the answer has %d bytes, and the proxy takes %d", size,
			l.longest)
	}
	l.Lock()
	if l.Broken() != nil {
		l.Unlock()
		return errLinkBroken
	}
	if err := l.Append(framesField, frame, size); err != nil || (!l.Writing() && p.holds()) {
		l.Unlock()
		return err
	}
	l.UnlockAndWrite()
	return nil
}

// holds reports whether an answer waits for the next one; if that takes long, it is sent alone. The
// lock is held.
func (p *place) holds() bool {
	switch {
	case !p.more:
		p.unhold()
		return false
	case p.held:
		return true
	}
	p.held = true
	p.link.handling.Add(1) // until late has run, or was stopped
	if p.late == nil {
		p.late = time.AfterFunc(holdFor, func() {
			defer p.link.handling.Done()
			p.flush()
		})
	} else {
		p.late.Reset(holdFor)
	}
	return true
}

// unhold ends the wait of an answer. The lock is held.
func (p *place) unhold() {
	if p.held && p.late.Stop() {
		p.link.handling.Done()
	}
	p.held = false
}

// flush writes what was held.
func (p *place) flush() {
	l := p.link
	l.Lock()
	p.unhold()
	l.UnlockAndWrite()
}

// close ends all sessions as soon as the message that each works on is answered, and waits for
// that.
func (l *link) close() {
	l.Lock()
	l.closing = true
	for _, p := range l.places.Open {
		if !p.running {
			p.running = true
			l.handling.Add(1)
			l.runners.Run(p)
		}
	}
	l.Unlock()
	l.handling.Wait()
	l.runners.Close()
}

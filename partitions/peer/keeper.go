package peer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/entities"
)

// peer is the connection to one worker: a link, or the attempts to get one. Its keeper, one
// goroutine, is the only one that opens and ends links; others read open, or wait for changed.
type peer struct {
	client  *Client
	address string
	ctx     context.Context //nolint:containedctx // the connection's own lifetime
	cancel  context.CancelCauseFunc
	// open is the present link, nil while there is none.
	open atomic.Pointer[link]

	mu sync.Mutex // guards what follows
	// who is what is known of the process. Incarnation 0: nothing yet.
	who     Peer
	watched bool
	// asked: a call needed the connection since the last attempt.
	asked bool
	// retired: the connection is no longer wanted.
	retired bool
	// linked: a link to this process was open. left: the last link ended with a leave message. dead:
	// the hook was called.
	linked, left, dead bool

	state State
	since time.Time
	// next is when the next attempt comes, while state is Waiting.
	next time.Time
	// last is what ended the last link or attempt.
	last   error
	lastAt time.Time
	// changed is closed, and replaced, when state changes.
	changed chan struct{}
}

// start begins a connection. The client's lock is held.
func (c *Client) start(who Peer, watched bool) *peer {
	p := &peer{
		client: c, address: who.Address, who: who, watched: watched,
		state: Connecting, since: c.options.Clock.Now(), changed: make(chan struct{}),
	}
	p.ctx, p.cancel = context.WithCancelCause(c.ctx)
	c.work.Go(p.keep) // ended by cancel; Close waits for it
	return p
}

// watch makes an existing connection a watched one, if it is to this process.
func (p *peer) watch(w Peer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.retired || p.who != w {
		return false
	}
	p.watched = true
	return true
}

// retire ends the connection when what is under way on it is answered, or after a time. Commands of
// entities are given up sooner: another worker owns their partitions now, and knows those that took
// effect.
func (p *peer) retire() {
	p.mu.Lock()
	p.retired = true
	p.mu.Unlock()
	l := p.open.Load()
	if l == nil {
		p.cancel(errUnwanted)
		return
	}
	l.retire(false) // the keeper ends with it
	disowned := time.AfterFunc(p.client.options.DisownTimeout, l.disown)
	late := time.AfterFunc(p.client.options.RetireTimeout, func() { p.cancel(errUnwanted) })
	context.AfterFunc(p.ctx, func() { disowned.Stop(); late.Stop() })
}

// ready returns the open link. It waits for an attempt that is under way, and not for a later one:
// the command's owner may have changed by then, which the router learns sooner than this
// connection.
func (p *peer) ready(ctx context.Context) (*link, *entities.Error) {
	for {
		if l := p.open.Load(); l != nil {
			return l, nil
		}
		p.mu.Lock()
		p.asked = true
		l, state, changed, cause, pause := p.open.Load(), p.state, p.changed, p.last, p.next.Sub(p.client.options.Clock.Now())
		p.mu.Unlock()
		switch {
		case l != nil: // it was just opened: changed is for its end
			return l, nil
		case state == Waiting:
			return nil, unreachable(p.address, cause, max(pause, time.Millisecond))
		}
		select {
		case <-changed:
		case <-p.ctx.Done():
			return nil, unreachable(p.address, context.Cause(p.ctx), 0)
		case <-ctx.Done():
			return nil, ended(ctx, entities.NotApplied, fmt.Sprintf("while a connection to the worker at %s was opened: nothing was applied", p.address))
		}
	}
}

// keep opens links, one after the other, until the connection is no longer wanted.
func (p *peer) keep() {
	defer p.client.forget(p)
	defer p.cancel(errUnwanted)
	options := &p.client.options
	for failures := 1; ; failures++ {
		lasted := false
		p.attempt()
		l, err := p.dial()
		if err == nil {
			opened := options.Clock.Now()
			err = p.hold(l)
			// A link that ends soon after it was opened counts as a failed attempt, or two processes
			// that refuse each other's frames would open links without a pause.
			lasted = options.Clock.Now().Sub(opened) > options.Backoff.Max
		} else if p.ctx.Err() == nil {
			p.client.stats.dialFailures.Add(1)
			p.reportDead(err)
		}
		if p.ctx.Err() != nil || p.unwanted() {
			return
		}
		options.Hooks.Lost(p.name(), p.address, err)
		if lasted {
			failures = 1
			if p.orphaned() {
				failures = 0
				continue // at once: that shows whether the process is dead
			}
		}
		if !p.pause(failures, err) {
			return
		}
	}
}

// orphaned reports whether a watched connection ended without a leave message.
func (p *peer) orphaned() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.watched && !p.left
}

// hold uses an open link until it ends, and returns why it ended.
func (p *peer) hold(l *link) error {
	stats := &p.client.stats
	var writer sync.WaitGroup
	writer.Go(l.Run) // ends with the link; waited for below
	stats.links.Add(1)
	p.opened(l)
	err := l.read()
	left := p.closed(l)
	writer.Wait()
	stats.links.Add(-1)
	switch {
	case left:
		err = errLeft
	case err != nil && p.ctx.Err() == nil:
		stats.linksLost.Add(1)
	}
	return errors.Join(err, l.conn.Close())
}

// errLeft is how a link ends after a leave message.
var errLeft = errors.New("the worker has left")

// attempt notes that a link is being opened.
func (p *peer) attempt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = false
	p.become(Connecting)
}

// opened notes an open link and wakes those that wait for it.
func (p *peer) opened(l *link) {
	p.mu.Lock()
	p.linked, p.left = true, false
	if p.who.Incarnation == 0 {
		p.who.Incarnation = l.welcome.GetIncarnation()
	}
	if p.who.Name == "" {
		p.who.Name = l.welcome.GetWorker()
	}
	p.open.Store(l)
	p.become(Connected)
	p.mu.Unlock()
	p.client.options.Hooks.Connected(p.name(), p.address)
}

// closed notes the end of a link, and reports whether a leave message came before.
func (p *peer) closed(l *link) bool {
	l.Lock()
	left := l.left
	l.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open.Store(nil)
	p.left = left
	p.become(Connecting)
	return left
}

// reportDead calls the hook if this attempt shows that the process is dead: there was a link, it
// ended without a leave message, and no process listens at the address any more.
func (p *peer) reportDead(err error) {
	p.mu.Lock()
	who := p.who
	news := p.watched && p.linked && !p.left && !p.dead && socketGone(err)
	p.dead = p.dead || news
	p.mu.Unlock()
	if news {
		p.client.options.Hooks.Dead(who.Name, who.Address, who.Incarnation)
	}
}

// pause waits before the next attempt. It returns false if there is none: a connection that Watch
// has not named lives on only while calls need it.
func (p *peer) pause(failures int, err error) bool {
	clk := p.client.options.Clock
	pause := p.client.options.Backoff.Pause(failures)
	p.mu.Lock()
	p.last, p.lastAt, p.next = err, clk.Now(), clk.Now().Add(pause)
	p.become(Waiting)
	p.mu.Unlock()
	again, stop := clk.After(pause)
	select {
	case <-again:
	case <-p.ctx.Done():
		stop()
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.watched || p.asked
}

// unwanted reports whether Watch has taken the connection off its list.
func (p *peer) unwanted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.retired
}

// become changes the state. The lock is held.
func (p *peer) become(s State) {
	p.state, p.since = s, p.client.options.Clock.Now()
	close(p.changed)
	p.changed = make(chan struct{})
}

// name returns the name of the worker, which is empty until Watch or a welcome has named it.
func (p *peer) name() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.who.Name
}

func (p *peer) status() PeerStatus {
	p.mu.Lock()
	s := PeerStatus{Peer: p.who, State: p.state, Since: p.since, LastError: p.last, LastErrorTime: p.lastAt}
	p.mu.Unlock()
	if l := p.open.Load(); l != nil {
		l.Lock()
		s.InFlight = len(l.calls.Open)
		if l.left {
			s.State = Leaving
		}
		l.Unlock()
	}
	return s
}

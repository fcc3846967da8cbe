package fire

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace-io/millrace/tests/kit"
)

// proxy forwards between workers and a broker and fails as a network does. Each connection has two
// goroutines, which end with it; close ends all of them and waits.
type proxy struct {
	listener net.Listener
	backend  string
	running  sync.WaitGroup

	mu    sync.Mutex
	links map[*link]struct{}
	// delay holds every frame up, in both directions.
	delay time.Duration
	// held, while not nil, is closed when produce requests may go on; until then they stay here, even
	// if their sender disconnects.
	held chan struct{}
	// deaf: the brokers' answers are dropped.
	deaf bool
	done chan struct{}

	// What really happened: connections cut, requests held, requests delayed, bytes of answers
	// swallowed.
	cuts, holds, delays, swallowed atomic.Int64
}

// link is one connection through the proxy.
type link struct{ client, server net.Conn }

func startProxy(t *testing.T, backend string) *proxy {
	t.Helper()
	p := &proxy{
		listener: kit.Listen(t, "127.0.0.1:0"), backend: backend, links: map[*link]struct{}{},
		done: make(chan struct{}),
	}
	p.running.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) close() {
	close(p.done)
	_ = p.listener.Close()
	p.heal()
	p.cut()
	p.running.Wait()
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.backend) //nolint:noctx // fails at once, on the loopback interface
		if err != nil {
			_ = client.Close()
			continue
		}
		l := &link{client, server}
		p.mu.Lock()
		p.links[l] = struct{}{}
		p.mu.Unlock()
		p.running.Go(func() { p.requests(l) })
		p.running.Go(func() { p.answers(l) })
	}
}

// requests carries frames to the broker. When the client disconnects, what it had sent still
// arrives.
func (p *proxy) requests(l *link) {
	defer p.drop(l)
	const apiProduce, mostBytes = 0, 64 << 20
	var head [4]byte
	for {
		if _, err := io.ReadFull(l.client, head[:]); err != nil {
			return
		}
		size := binary.BigEndian.Uint32(head[:])
		if size < 2 || size > mostBytes {
			return
		}
		frame := make([]byte, 4+size)
		copy(frame, head[:])
		if _, err := io.ReadFull(l.client, frame[4:]); err != nil {
			return
		}
		p.pass(binary.BigEndian.Uint16(frame[4:]) == apiProduce)
		if _, err := l.server.Write(frame); err != nil {
			return
		}
	}
}

// pass waits as long as a request must.
func (p *proxy) pass(produce bool) {
	p.mu.Lock()
	delay, held := p.delay, p.held
	p.mu.Unlock()
	if delay > 0 {
		p.delays.Add(1)
		p.wait(delay)
	}
	if produce && held != nil {
		p.holds.Add(1)
		select {
		case <-held:
		case <-p.done:
		}
	}
}

func (p *proxy) wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.done:
	}
}

// answers carries bytes to the client, until the broker disconnects. Once some were dropped, the
// rest would make no sense.
func (p *proxy) answers(l *link) {
	defer p.drop(l)
	buffer := make([]byte, 64<<10)
	lost := false
	for {
		n, err := l.server.Read(buffer)
		p.mu.Lock()
		delay := p.delay
		lost = lost || p.deaf && n > 0
		p.mu.Unlock()
		if lost {
			p.swallowed.Add(int64(n))
		} else if n > 0 {
			p.wait(delay)
			if _, err := l.client.Write(buffer[:n]); err != nil {
				lost = true // it has disconnected; what it had sent may still be under way
			}
		}
		if err != nil {
			return
		}
	}
}

// drop ends a connection.
func (p *proxy) drop(l *link) {
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
	_ = l.client.Close()
	_ = l.server.Close()
}

// cut breaks every connection, with a reset.
func (p *proxy) cut() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.links)
	for l := range p.links {
		for _, conn := range []net.Conn{l.client, l.server} {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			_ = conn.Close()
		}
	}
	p.cuts.Add(int64(n))
	return n
}

// slow delays everything from now on; 0 is as fast as ever.
func (p *proxy) slow(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// hold keeps produce requests from now on.
func (p *proxy) hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = make(chan struct{})
}

// silence drops answers from now on.
func (p *proxy) silence() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = true
}

// heal ends everything but what connections have lost already.
func (p *proxy) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held != nil {
		close(p.held)
	}
	p.held, p.deaf, p.delay = nil, false, 0
}

// TestProxyFailsAsAsked: what is held arrives after its sender has disconnected, what is dropped
// does not.
func TestProxyFailsAsAsked(t *testing.T) {
	backend := kit.Listen(t, "127.0.0.1:0")
	arrived := make(chan string, 8)
	var serving sync.WaitGroup
	serving.Go(func() { // ends with the listener
		for {
			conn, err := backend.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { // ends with the connection
				defer conn.Close()
				frame := make([]byte, 7)
				for {
					if _, err := io.ReadFull(conn, frame); err != nil {
						return
					}
					text := string(frame[6:])
					arrived <- text
					if text != "b" { // whose sender has disconnected: whether its answer is dropped would depend on timing
						_, _ = conn.Write([]byte("ok"))
					}
				}
			})
		}
	})
	p := startProxy(t, backend.Addr().String())
	send := func(api byte, text string) net.Conn {
		conn, err := net.Dial("tcp", p.address()) //nolint:noctx // a test's
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := conn.Write(append([]byte{0, 0, 0, 3, 0, api}, text...)); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	answer := func(conn net.Conn, within time.Duration) error {
		_ = conn.SetReadDeadline(time.Now().Add(within))
		_, err := io.ReadFull(conn, make([]byte, 2))
		return err
	}
	if err := answer(send(0, "a"), kit.Patience); err != nil || kit.Receive(t, "what was sent", arrived) != "a" {
		t.Errorf("a healthy proxy: %v", err)
	}
	p.hold()
	held := send(0, "b")
	if err := answer(send(3, "c"), kit.Patience); err != nil || kit.Receive(t, "what was sent", arrived) != "c" {
		t.Errorf("what is no produce request must pass: %v", err)
	}
	kit.Await(t, "a request is held", func() bool { return p.holds.Load() == 1 })
	_ = held.Close()
	p.heal()
	if got := kit.Receive(t, "what was sent", arrived); got != "b" {
		t.Errorf("%q arrived late, want b", got)
	}
	p.silence()
	lost := send(0, "d")
	if got := kit.Receive(t, "what was sent", arrived); got != "d" {
		t.Errorf("%q arrived, want d", got)
	}
	kit.Await(t, "an answer is swallowed", func() bool { return p.swallowed.Load() == 2 }) // bytes
	p.heal()
	if p.cut() == 0 {
		t.Error("no connection to cut")
	}
	if err := answer(lost, kit.Patience); err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("an answer that was swallowed came: %v", err)
	}
	_ = backend.Close()
	p.cut()
	serving.Wait()
}

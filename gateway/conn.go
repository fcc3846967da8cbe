package gateway

import (
	"io"
	"net"
	"sync"

	"golang.org/x/net/http2"
)

// frameHeaderBytes is the size of the header of an HTTP/2 frame.
const frameHeaderBytes = 9

// conn is a connection after the sniff: its server reads everything from the first byte on, without
// the acknowledgement of SETTINGS that the server has not sent. net/http would take that for an
// error of the client.
type conn struct {
	net.Conn
	closed  sync.Once
	onClose func()
	// begun notes, once, that the server has begun to use the connection.
	begun   *sync.Once
	onBegin func()

	// The rest belongs to the reading goroutine; a server has one.

	// head is what the sniffer has read.
	head []byte
	// filter is true until the acknowledgement was found and dropped. Until then the stream is
	// parsed frame by frame.
	filter bool
	// header collects the header of the next frame; payload is what is left of the frame whose
	// header was delivered.
	header      [frameHeaderBytes]byte
	headerBytes int
	payload     int
}

// begin notes that the server uses the connection. Any of the server's methods counts, because
// which one comes first depends on the server.
func (c *conn) begin() {
	if c.begun != nil {
		c.begun.Do(c.onBegin)
	}
}

// Close closes the connection and notes its end, once.
func (c *conn) Close() error {
	c.begin()
	err := c.Conn.Close()
	c.closed.Do(c.onClose)
	return err
}

// Write writes to the connection. A server begins with its SETTINGS.
func (c *conn) Write(p []byte) (int, error) {
	c.begin()
	return c.Conn.Write(p)
}

// Read reads what the sniffer has read, then the filtered stream, then the connection itself. After
// the acknowledgement, which is one of the first frames, it costs nothing more.
func (c *conn) Read(p []byte) (int, error) {
	c.begin()
	for {
		switch {
		case len(p) == 0:
			return 0, nil
		case len(c.head) > 0:
			n := copy(p, c.head)
			if c.head = c.head[n:]; len(c.head) == 0 {
				c.head = nil
			}
			return n, nil
		case !c.filter:
			return c.Conn.Read(p)
		case c.payload > 0:
			n, err := c.Conn.Read(p[:min(len(p), c.payload)])
			c.payload -= n
			return n, err
		}
		if err := c.readHeader(); err != nil {
			return 0, err
		}
	}
}

// readHeader reads the header of the next frame into head, unless the frame is the acknowledgement.
// A read that ends early, for example by a deadline, is continued by the next call.
func (c *conn) readHeader() error {
	for c.headerBytes < frameHeaderBytes {
		n, err := c.Conn.Read(c.header[c.headerBytes:])
		c.headerBytes += n
		if err != nil && c.headerBytes < frameHeaderBytes {
			if err == io.EOF && c.headerBytes > 0 { //nolint:errorlint // connections return it unwrapped
				c.head, c.filter = c.header[:c.headerBytes], false
				return nil // let the server see the torn frame
			}
			return err
		}
	}
	c.headerBytes = 0
	length := int(c.header[0])<<16 | int(c.header[1])<<8 | int(c.header[2])
	kind, flags := http2.FrameType(c.header[3]), http2.Flags(c.header[4])
	if kind == http2.FrameSettings && flags.Has(http2.FlagSettingsAck) && length == 0 {
		c.filter = false
		return nil
	}
	c.head, c.payload = c.header[:], length
	return nil
}

// handoff is a listener for connections that were accepted elsewhere. It knows which of them its
// server has not begun to use: a gRPC server that stops closes such a connection, and would lose
// calls that its client has already sent.
type handoff struct {
	conns chan net.Conn
	done  chan struct{}
	// finished is closed when the handoff is closed and the server has begun to use every
	// connection.
	finished chan struct{}

	mu      sync.Mutex // guards what follows
	closed  bool
	pending int
}

func newHandoff() *handoff {
	return &handoff{conns: make(chan net.Conn), done: make(chan struct{}), finished: make(chan struct{})}
}

// give passes a connection to Accept and reports whether it did: a closed handoff takes none.
func (h *handoff) give(c *conn) bool {
	h.mu.Lock()
	closed := h.closed
	if !closed { // counted before it can be accepted, so that Close waits for it
		h.pending++
	}
	h.mu.Unlock()
	if closed {
		return false
	}
	c.begun, c.onBegin = new(sync.Once), h.finish
	select {
	case h.conns <- c:
		return true
	case <-h.done:
		c.begin()
		return false
	}
}

// finish notes that the server has begun to use a connection.
func (h *handoff) finish() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pending--
	h.finishIfLast()
}

func (h *handoff) finishIfLast() {
	if h.closed && h.pending == 0 {
		close(h.finished)
	}
}

// Accept implements net.Listener.
func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. It may be called more than once.
func (h *handoff) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.closed = true
		close(h.done)
		h.finishIfLast()
	}
	return nil
}

// Addr implements net.Listener.
func (h *handoff) Addr() net.Addr { return handoffAddr{} }

// handoffAddr is the address of a listener that has none.
type handoffAddr struct{}

// Network implements net.Addr.
func (handoffAddr) Network() string { return "handoff" }

// String implements net.Addr.
func (handoffAddr) String() string { return "gateway" }

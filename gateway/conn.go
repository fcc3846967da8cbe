package gateway

import (
	"io"
	"net"
	"sync"

	"golang.org/x/net/http2"
)

// frameHeaderBytes is the size of the header of an HTTP/2 frame.
const frameHeaderBytes = 9

// conn is a connection after the sniff: the server that gets it reads what the client sent from the first byte on, without
// the acknowledgement of SETTINGS that this server did not send. net/http would take it for an error of the client's.
type conn struct {
	net.Conn
	closed  sync.Once
	onClose func()
	// begun tells the handoff, once, that the server does something with the connection.
	begun   *sync.Once
	onBegin func()

	// The rest belongs to the reader; servers read from one goroutine.

	// head is what was read already.
	head []byte
	// filter is true until the acknowledgement was found and dropped. Before, the stream is followed frame by frame.
	filter bool
	// header collects the header of the next frame; payload is what is left of the frame whose header was delivered.
	header      [frameHeaderBytes]byte
	headerBytes int
	payload     int
}

func (c *conn) begin() {
	if c.begun != nil {
		c.begun.Do(c.onBegin)
	}
}

// Close closes the connection and tells the server, once.
func (c *conn) Close() error {
	c.begin()
	err := c.Conn.Close()
	c.closed.Do(c.onClose)
	return err
}

// Write is what a server does first, with its SETTINGS.
func (c *conn) Write(p []byte) (int, error) {
	c.begin()
	return c.Conn.Write(p)
}

// Read reads what was kept, then what is filtered, then the connection as it is.
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

// readHeader reads the header of the next frame into head, unless the frame is the acknowledgement. A read that ends early,
// by a deadline for example, is taken up again where it stopped.
func (c *conn) readHeader() error {
	for c.headerBytes < frameHeaderBytes {
		n, err := c.Conn.Read(c.header[c.headerBytes:])
		c.headerBytes += n
		if err != nil && c.headerBytes < frameHeaderBytes {
			if err == io.EOF && c.headerBytes > 0 { //nolint:errorlint // connections return it bare
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

// handoff is a listener whose connections are given to it. It knows which of them its server has not begun with: a gRPC
// server that is told to stop closes such a connection, though its client may have sent calls, and those would be lost.
type handoff struct {
	conns chan net.Conn
	done  chan struct{}
	// settled is closed when the handoff is, and the server has begun with every connection that it got.
	settled chan struct{}

	mu      sync.Mutex // guards what follows
	closed  bool
	pending int
}

func newHandoff() *handoff {
	return &handoff{conns: make(chan net.Conn), done: make(chan struct{}), settled: make(chan struct{})}
}

// give hands a connection to whoever accepts, and says whether that worked: a closed handoff takes none.
func (h *handoff) give(c *conn) bool {
	h.mu.Lock()
	closed := h.closed
	if !closed {
		h.pending++
	}
	h.mu.Unlock()
	if closed {
		return false
	}
	c.begun, c.onBegin = new(sync.Once), h.settle
	select {
	case h.conns <- c:
		return true
	case <-h.done:
		c.begin()
		return false
	}
}

// settle notes that the server has begun with a connection.
func (h *handoff) settle() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pending--
	h.settleIfLast()
}

func (h *handoff) settleIfLast() {
	if h.closed && h.pending == 0 {
		close(h.settled)
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
		h.settleIfLast()
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

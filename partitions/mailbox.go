package partitions

import "sync"

// mailbox hands inputs, in order, from any goroutine to the one that drives the loop: the loop's
// own, or that of a caller that found the loop idle and saves two wake-ups by driving the turn
// itself. The number of posters bounds what waits: each caller has one command, each batch one
// acknowledgement.
type mailbox struct {
	mu     sync.Mutex
	inputs []message
	// driven: a goroutine drives the loop, and takes what is posted before it stops. ended: only the
	// loop's goroutine may drive from now on.
	driven, ended bool
	closed        bool
	// ready has room for one signal to the loop's goroutine: there is something to take, or no
	// goroutine drives the loop any more.
	ready chan struct{}
}

// newMailbox returns a mailbox whose loop is driven by the goroutine that will run it.
func newMailbox() *mailbox { return &mailbox{driven: true, ready: make(chan struct{}, 1)} }

// post adds an input and wakes the loop's goroutine, if needed. It returns false if the loop has
// ended.
func (m *mailbox) post(in message) bool {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return false
	}
	m.inputs = append(m.inputs, in)
	wake := len(m.inputs) == 1 && !m.driven
	m.mu.Unlock()
	if wake {
		m.signal()
	}
	return true
}

// postAndDrive adds an input. drive reports that no goroutine drove the loop: the caller drives it
// now, and must call take.
func (m *mailbox) postAndDrive(in message) (posted, drive bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false, false
	}
	m.inputs = append(m.inputs, in)
	if m.driven || m.ended {
		return true, false
	}
	m.driven = true
	return true, true
}

// tryDrive makes the caller drive the loop, unless it is driven already.
func (m *mailbox) tryDrive() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.driven {
		return false
	}
	m.driven = true
	return true
}

// take returns everything that waits and keeps buf for what comes next. If nothing waits, or
// another turn is not allowed, the caller no longer drives.
func (m *mailbox) take(buf []message, another bool) []message {
	m.mu.Lock()
	taken := m.inputs
	if len(taken) > 0 && another {
		m.inputs = buf[:0]
		m.mu.Unlock()
		return taken
	}
	m.driven = false
	wake := len(taken) > 0 || m.ended
	m.mu.Unlock()
	if wake {
		m.signal()
	}
	return nil
}

// end keeps callers from driving, and returns when the loop's goroutine drives, for good.
func (m *mailbox) end() {
	m.mu.Lock()
	m.ended = true
	for m.driven {
		m.mu.Unlock()
		<-m.ready
		m.mu.Lock()
	}
	m.driven = true
	m.mu.Unlock()
}

func (m *mailbox) signal() {
	select {
	case m.ready <- struct{}{}:
	default:
	}
}

// close refuses further inputs and returns those that still wait.
func (m *mailbox) close() []message {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return m.inputs
}

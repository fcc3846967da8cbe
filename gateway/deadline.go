package gateway

import (
	"net"
	"sync"
	"time"
)

// lazyDeadline is a connection that sets its deadline of reading when a read begins, and at once
// while one waits. net/http sets that deadline nine times for a request, mostly between two reads,
// and reads three times.
type lazyDeadline struct {
	net.Conn

	mu sync.Mutex // guards what follows
	// wanted is the deadline that was asked for last, set that of the connection.
	wanted, set time.Time
	reading     bool
	// writes: a deadline of writing was set.
	writes bool
}

// Read implements net.Conn. A connection has one reader at a time.
func (l *lazyDeadline) Read(p []byte) (int, error) {
	l.mu.Lock()
	l.reading = true
	err := l.apply()
	l.mu.Unlock()
	n := 0
	if err == nil {
		n, err = l.Conn.Read(p)
	}
	l.mu.Lock()
	l.reading = false
	l.mu.Unlock()
	return n, err
}

// apply sets the deadline. The caller holds mu.
func (l *lazyDeadline) apply() error {
	if l.wanted.Equal(l.set) {
		return nil
	}
	l.set = l.wanted
	return l.Conn.SetReadDeadline(l.wanted)
}

// SetReadDeadline implements net.Conn.
func (l *lazyDeadline) SetReadDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wanted = t; l.reading {
		return l.apply()
	}
	return nil
}

// SetWriteDeadline implements net.Conn. net/http takes away after each request what it never sets.
func (l *lazyDeadline) SetWriteDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.IsZero() && !l.writes {
		return nil
	}
	l.writes = true
	return l.Conn.SetWriteDeadline(t)
}

// SetDeadline implements net.Conn.
func (l *lazyDeadline) SetDeadline(t time.Time) error {
	if err := l.SetReadDeadline(t); err != nil {
		return err
	}
	return l.SetWriteDeadline(t)
}

package gateway

import (
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// countingConn counts how often the deadline of reading is set.
type countingConn struct {
	net.Conn
	sets int
}

func (c *countingConn) SetReadDeadline(t time.Time) error {
	c.sets++
	return c.Conn.SetReadDeadline(t)
}

// A deadline holds for the reads after it, and ends one that waits; between reads only the last one
// is set.
func TestLazyDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer func() { _, _ = near.Close(), far.Close() }()
		counting := &countingConn{Conn: near}
		c := &lazyDeadline{Conn: counting}
		buf := make([]byte, 1)
		timedOut := func(what string) {
			t.Helper()
			if _, err := c.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: %v", what, err)
			}
		}
		set := func(at time.Time) {
			t.Helper()
			if err := c.SetReadDeadline(at); err != nil {
				t.Fatal(err)
			}
		}
		for range 5 {
			set(time.Now().Add(time.Hour))
			set(time.Time{})
		}
		set(time.Now().Add(time.Minute))
		if counting.sets != 0 {
			t.Errorf("set %d times before a read", counting.sets)
		}
		began := time.Now()
		timedOut("a minute")
		if took := time.Since(began); took != time.Minute || counting.sets != 1 {
			t.Errorf("after %s, set %d times", took, counting.sets)
		}
		timedOut("still passed")

		set(time.Time{})
		go func() { // a read that waits; it ends below
			_ = far.SetDeadline(time.Now().Add(time.Hour))
			synctest.Wait()
			set(time.Unix(1, 0))
		}()
		timedOut("while it waits")

		set(time.Time{})
		go func() { _, _ = far.Write([]byte{7}) }() // ends with the read
		if n, err := c.Read(buf); n != 1 || err != nil || buf[0] != 7 {
			t.Errorf("without a deadline: %d %v", n, err)
		}
	})
}

package kafka

import (
	"testing"
	"testing/synctest"
)

// TestBuffer relies on synctest.Wait, which returns when all goroutines are blocked.
func TestBuffer(t *testing.T) {
	for name, c := range map[string]struct{ records, bytes int }{
		"too many records": {3, 1},
		"too many bytes":   {1, 90},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBuffer(4, 100)
				if !b.acquire(2, 20) {
					t.Fatal("an empty buffer refused")
				}
				admitted := make(chan bool, 1)
				go func() { admitted <- b.acquire(c.records, c.bytes) }() // ends with the release below
				synctest.Wait()
				if len(admitted) != 0 {
					t.Fatal("admitted beyond the bound")
				}
				b.release(2, 20)
				if !<-admitted {
					t.Fatal("refused although there was space")
				}
			})
		})
	}
}

// TestBufferAlone admits what is above the bound by itself, when nothing else is there.
func TestBufferAlone(t *testing.T) {
	b := newBuffer(4, 100)
	if !b.acquire(1, 1000) {
		t.Fatal("refused")
	}
}

func TestBufferClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBuffer(1, 100)
		b.acquire(1, 1)
		admitted := make(chan bool, 1)
		go func() { admitted <- b.acquire(1, 1) }() // ends with close
		synctest.Wait()
		b.close()
		if <-admitted {
			t.Fatal("admitted by a closed buffer")
		}
		if b.acquire(1, 1) {
			t.Fatal("admitted after close")
		}
	})
}

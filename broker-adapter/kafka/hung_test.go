package kafka

import (
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestHungBrokersAreAskedLast: who does not answer in time is left out for a while, until it answers, and unless all hang.
func TestHungBrokersAreAskedLast(t *testing.T) {
	now := time.Now()
	h := newHung()
	h.now = func() time.Time { return now }
	brokers := []string{"a:1", "b:2"}
	others := func(want ...string) {
		t.Helper()
		if got := h.others(brokers); !slices.Equal(got, want) {
			t.Errorf("new clients are told of %v, want %v", got, want)
		}
	}
	read := func(host string, port int32, err error) {
		h.OnBrokerRead(kgo.BrokerMetadata{Host: host, Port: port}, 0, 0, 0, 0, err)
	}
	timeout := fmt.Errorf("read tcp: %w", os.ErrDeadlineExceeded)
	others("a:1", "b:2")
	read("a", 1, timeout)
	others("b:2")
	read("a", 1, net.ErrClosed) // says nothing
	others("b:2")
	read("b", 2, timeout)
	others("a:1", "b:2")
	read("b", 2, nil)
	others("b:2")
	now = now.Add(hungFor)
	others("a:1", "b:2")
}

// TestNewReadersDoNotAskABrokerThatHangs: one that takes connections and never answers is asked until that is known, and then no more.
func TestNewReadersDoNotAskABrokerThatHangs(t *testing.T) {
	cluster := fake(t, 1)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var taken atomic.Int64
	var serving sync.WaitGroup
	serving.Go(func() { // ends with the listener, and its connections with it
		var open []net.Conn
		for {
			conn, err := listener.Accept()
			if err != nil {
				break
			}
			taken.Add(1)
			open = append(open, conn)
		}
		for _, conn := range open {
			_ = conn.Close()
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	l := open(t, Options{Brokers: append(cluster.ListenAddrs(), listener.Addr().String()), RequestTimeout: 400 * time.Millisecond})
	p := newTestTopic(t, l, 1)
	mustAppend(t, l, p, text("x"))
	read := func() {
		r := newReader(t, l, p, 0)
		values(t, r, 1)
		_ = r.Close()
	}
	until(t, "the silent broker to be known", func() bool {
		read()
		return len(l.fresh().Brokers) == 1
	})
	before := taken.Load()
	for range 20 {
		read()
	}
	if n := taken.Load() - before; n > 2 { // the admin client may ask once more
		t.Errorf("20 readers have asked the silent broker %d times", n)
	}
}

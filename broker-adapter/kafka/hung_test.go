package kafka

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestHungBrokersAreAskedLast: a broker that does not answer in time is left out for a while, until
// it answers, unless all hang.
func TestHungBrokersAreAskedLast(t *testing.T) {
	now := time.Now()
	h := newHung(Options{})
	h.now = func() time.Time { return now }
	brokers := []string{"a:1", "b:2"}
	others := func(want ...string) {
		t.Helper()
		if got := h.others(brokers); !slices.Equal(got, want) {
			t.Errorf("new clients ask %v, want %v", got, want)
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

// TestABrokerThatHangsIsAvoided: a request that times out closes all connections to that broker,
// and new ones fail for a while.
func TestABrokerThatHangsIsAvoided(t *testing.T) {
	now := time.Now()
	h := newHung(Options{RequestTimeout: time.Second})
	h.now = func() time.Time { return now }
	hangs, lives := newListener(t), newListener(t)
	silent := func() { h.OnBrokerRead(metaOf(t, hangs), 0, 0, 0, 0, os.ErrDeadlineExceeded) }
	dial := func(l net.Listener) net.Conn {
		t.Helper()
		c, err := h.dial(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatalf("dial: %v", err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	refused := func() {
		t.Helper()
		c, err := h.dial(t.Context(), "tcp", hangs.Addr().String())
		op, dialed := errors.AsType[*net.OpError](err)
		if !errors.Is(err, errHung) || !dialed || op.Op != "dial" { // clients give up a coordinator for a dial error
			t.Fatalf("dial to a broker that hangs: %v, %v", c, err)
		}
	}
	first := dial(hangs)
	silent()
	if _, err := first.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a connection to a broker that hangs was not cut: %v", err)
	}
	dial(hangs) // there is no other one
	other := dial(lives)
	refused()
	now = now.Add(avoidFor.First)
	dial(hangs)
	silent()
	now = now.Add(avoidFor.First)
	refused() // longer, the second time
	now = now.Add(avoidFor.First)
	dial(hangs)
	silent()
	h.OnBrokerRead(metaOf(t, hangs), 0, 0, 0, 0, nil)
	dial(hangs) // it has answered
	if _, err := other.Write([]byte{1}); err != nil {
		t.Errorf("the connection to the other broker: %v", err)
	}
}

// TestDialerChecksCertificates: with TLS, a broker needs a valid certificate.
func TestDialerChecksCertificates(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	address := server.Listener.Addr().String()
	trusted := x509.NewCertPool()
	trusted.AddCert(server.Certificate())
	c, err := newHung(Options{RequestTimeout: time.Minute, TLS: &tls.Config{RootCAs: trusted}}).dial(t.Context(),
		"tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	h := newHung(Options{RequestTimeout: time.Minute, TLS: &tls.Config{RootCAs: x509.NewCertPool()}})
	if _, err := h.dial(t.Context(), "tcp", address); err == nil || len(h.open[address]) != 0 {
		t.Errorf("an untrusted certificate: %v, %d connections stay open", err, len(h.open[address]))
	}
}

func newListener(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func metaOf(t *testing.T, l net.Listener) kgo.BrokerMetadata {
	t.Helper()
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatalf("%v is no TCP address", l.Addr())
	}
	return kgo.BrokerMetadata{Host: addr.IP.String(), Port: int32(addr.Port)}
}

// TestNewReadersDoNotAskABrokerThatHangs: a broker that accepts connections and never answers is
// asked until that is known, and then no more.
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
	l := open(t, Options{
		Brokers: append(cluster.ListenAddrs(), listener.Addr().String()), RequestTimeout: 400 * time.Millisecond,
	})
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

package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/internal/backoff"
)

const (
	// maxSilence bounds how long a broker may be silent beyond what a request grants it.
	maxSilence = 3 * time.Second
	// hungFor is how long a broker that did not answer in time is not the first whom new clients ask, unless it answers meanwhile.
	hungFor = 30 * time.Second
)

// leaveAlone is how long nobody connects to a broker that was silent, once, twice, and so on.
//
//nolint:gochecknoglobals // a constant
var leaveAlone = backoff.Policy{First: 2 * time.Second, Max: 10 * time.Second}

// errHung is why a broker is not connected to.
var errHung = errors.New("the broker did not answer in time a moment ago, and is left alone")

// hung knows which brokers take requests and do not answer them: stopped processes, hung disks, machines that have vanished. A client
// of its own accord goes on to wait for such a broker: each request on its own, one that joins a group for a minute, and it asks a
// coordinator that it knows again and again while that one's kernel takes connections. So what one request has found is made true for
// all clients of the Log: the connections to that broker are cut, and new ones are refused for a while, which is what makes a client
// look for another coordinator or leader. It is a hook and the dialer of all clients.
type hung struct {
	dialer net.Dialer
	// tls is nil for plain connections.
	tls *tls.Config
	now func() time.Time

	// any keeps the path of answers free of the lock.
	any atomic.Bool
	mu  sync.Mutex
	// silent are the brokers that hang, by address.
	silent map[string]silence
	// open are the connections to each address that was ever connected to.
	open map[string]map[*conn]struct{}
}

// silence is when a broker did not answer last, and how many times in a row.
type silence struct {
	last  time.Time
	times int
}

var _ kgo.HookBrokerRead = (*hung)(nil)

func newHung(o Options) *hung {
	return &hung{
		dialer: net.Dialer{Timeout: o.grace()}, tls: o.TLS, now: time.Now,
		silent: map[string]silence{}, open: map[string]map[*conn]struct{}{},
	}
}

// grace is how long a broker may be silent beyond what a request grants it.
func (o Options) grace() time.Duration { return min(o.RequestTimeout/2, maxSilence) }

// OnBrokerRead is called by a client for every answer, and when there was none.
func (h *hung) OnBrokerRead(meta kgo.BrokerMetadata, _ int16, _ int, _, _ time.Duration, err error) {
	silent := errors.Is(err, os.ErrDeadlineExceeded)
	if !silent && (err != nil || !h.any.Load()) {
		return
	}
	address := net.JoinHostPort(meta.Host, strconv.Itoa(int(meta.Port)))
	h.mu.Lock()
	if silent {
		h.silent[address] = silence{last: h.now(), times: h.silent[address].times + 1}
	} else {
		delete(h.silent, address)
	}
	h.any.Store(len(h.silent) > 0)
	var cut []*conn
	if silent {
		for c := range h.open[address] {
			cut = append(cut, c)
		}
	}
	h.mu.Unlock()
	for _, c := range cut {
		_ = c.Close()
	}
}

// dial connects to a broker, unless it hangs and there are others.
func (h *hung) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if h.leftAlone(address) {
		return nil, &net.OpError{Op: "dial", Net: network, Err: errHung}
	}
	raw, err := h.dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, hung: h, address: address}
	h.mu.Lock()
	if h.open[address] == nil {
		h.open[address] = map[*conn]struct{}{}
	}
	h.open[address][c] = struct{}{}
	h.mu.Unlock()
	if h.tls == nil {
		return c, nil
	}
	secure, err := h.secure(ctx, c)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return secure, nil
}

func (h *hung) secure(ctx context.Context, c *conn) (net.Conn, error) {
	config := h.tls.Clone()
	if config.ServerName == "" {
		host, _, err := net.SplitHostPort(c.address)
		if err != nil {
			return nil, fmt.Errorf("address of a broker: %w", err)
		}
		config.ServerName = host
	}
	secure := tls.Client(c, config)
	ctx, cancel := context.WithTimeout(ctx, h.dialer.Timeout)
	defer cancel()
	return secure, secure.HandshakeContext(ctx)
}

func (h *hung) leftAlone(address string) bool {
	if !h.any.Load() {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s, silent := h.silent[address]
	return silent && len(h.open) > 1 && h.now().Sub(s.last) < leaveAlone.Pause(s.times)
}

// conn is an open connection to a broker.
type conn struct {
	net.Conn

	hung    *hung
	address string
}

// Close forgets the connection, too.
func (c *conn) Close() error {
	c.hung.mu.Lock()
	delete(c.hung.open[c.address], c)
	c.hung.mu.Unlock()
	return c.Conn.Close()
}

// others returns the brokers that have not hung lately, or all when there is no such one.
func (h *hung) others(brokers []string) []string {
	if !h.any.Load() {
		return brokers
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	left := slices.DeleteFunc(slices.Clone(brokers), func(address string) bool {
		s, hangs := h.silent[address]
		return hangs && h.now().Sub(s.last) < hungFor
	})
	if len(left) == 0 {
		return brokers
	}
	return left
}

// fresh returns the options for a new client that reads or appends.
func (l *Log) fresh() Options {
	o := l.opts
	o.Brokers = l.opts.hung.others(o.Brokers)
	return o
}

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
	// hungFor is how long new clients do not begin with a broker that did not answer in time,
	// unless it answers meanwhile.
	hungFor = 30 * time.Second
)

// avoidFor is how long no client connects to a broker that was silent once, twice, and so on.
//
//nolint:gochecknoglobals // a constant
var avoidFor = backoff.Policy{First: 2 * time.Second, Max: 10 * time.Second}

// errHung is why a client does not connect to a broker.
var errHung = errors.New("the broker did not answer in time a moment ago; connections to it are paused")

// hung knows which brokers take requests and do not answer them: stopped processes, hung disks,
// machines that have vanished. By itself a client keeps waiting for such a broker: each request
// separately, a join of a group for a minute; and it retries a coordinator that it knows while that
// machine's kernel accepts connections. So a finding of one request holds for all clients of the
// Log: connections to that broker are closed, and new ones fail for a while, which makes a client
// look for another coordinator or leader. It is a hook and the dialer of all clients.
type hung struct {
	dialer net.Dialer
	// tls is nil for plain connections.
	tls *tls.Config
	now func() time.Time

	// any is false while no broker is silent; then answers need no lock.
	any atomic.Bool
	mu  sync.Mutex
	// silent are the brokers that hang, by address.
	silent map[string]silence
	// open are the connections to each address that was ever connected to.
	open map[string]map[*conn]struct{}
}

// silence is when a broker last failed to answer, and how many times in a row.
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

// OnBrokerRead is called by a client for every answer, and when none came.
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

// dial connects to a broker, unless it hangs and there are other brokers.
func (h *hung) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if h.avoided(address) {
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

func (h *hung) avoided(address string) bool {
	if !h.any.Load() {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s, silent := h.silent[address]
	return silent && len(h.open) > 1 && h.now().Sub(s.last) < avoidFor.Pause(s.times)
}

// conn is an open connection to a broker.
type conn struct {
	net.Conn

	hung    *hung
	address string
}

// Close also forgets the connection.
func (c *conn) Close() error {
	c.hung.mu.Lock()
	delete(c.hung.open[c.address], c)
	c.hung.mu.Unlock()
	return c.Conn.Close()
}

// others returns the brokers that have not hung lately, or all if there are none.
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

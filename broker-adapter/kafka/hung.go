package kafka

import (
	"errors"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// hungFor is how long a broker that did not answer in time is not the first whom new clients ask, unless it answers meanwhile.
const hungFor = 30 * time.Second

// hung knows which brokers take requests and do not answer them: stopped processes, machines that have vanished. Every new client
// begins with a question to one of the brokers that it was told of, and waits for half of RequestTimeout when that one hangs; so
// readers, of which each catch-up opens one, and producers are told of the others. It is a hook of all clients of a Log.
type hung struct {
	// any keeps the path of answers free of the lock.
	any  atomic.Bool
	mu   sync.Mutex
	last map[string]time.Time
	now  func() time.Time
}

var _ kgo.HookBrokerRead = (*hung)(nil)

func newHung() *hung { return &hung{last: map[string]time.Time{}, now: time.Now} }

// OnBrokerRead is called by a client for every answer, and when there was none.
func (h *hung) OnBrokerRead(meta kgo.BrokerMetadata, _ int16, _ int, _, _ time.Duration, err error) {
	silent := errors.Is(err, os.ErrDeadlineExceeded)
	if !silent && (err != nil || !h.any.Load()) {
		return
	}
	address := net.JoinHostPort(meta.Host, strconv.Itoa(int(meta.Port)))
	h.mu.Lock()
	defer h.mu.Unlock()
	if silent {
		h.last[address] = h.now()
	} else {
		delete(h.last, address)
	}
	h.any.Store(len(h.last) > 0)
}

// others returns the brokers that have not hung lately, or all when there is no such one.
func (h *hung) others(brokers []string) []string {
	if !h.any.Load() {
		return brokers
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	left := slices.DeleteFunc(slices.Clone(brokers), func(address string) bool {
		last, hangs := h.last[address]
		return hangs && h.now().Sub(last) < hungFor
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

package gateway

import (
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/millrace-io/millrace/internal/observe"
)

// codeCount is the number of gRPC codes, OK included.
const codeCount = int(codes.Unauthenticated) + 1

// counters are what a Server counts while it runs.
type counters struct {
	calls       [codeCount]atomic.Uint64
	latency     observe.Histogram
	connections [doorCount]atomic.Uint64
	open        atomic.Int64
	refused     atomic.Uint64
	unsniffed   atomic.Uint64
	waiting     atomic.Int64
}

func (c *counters) call(code codes.Code, took time.Duration) {
	if int(code) < codeCount {
		c.calls[code].Add(1)
	}
	c.latency.Observe(took)
}

// Stats counts what a Server has done so far.
type Stats struct {
	// Calls counts finished calls of user functions by gRPC code, codes.OK included, over all
	// protocols.
	Calls [codeCount]uint64
	// Latency is the time of finished calls, from the complete request to the answer.
	Latency observe.Snapshot
	// NativeConnections went to grpc-go, HTTPConnections to net/http.
	NativeConnections, HTTPConnections uint64
	// OpenConnections are open now.
	OpenConnections int64
	// RefusedConnections were closed because too many were open.
	RefusedConnections uint64
	// UnsniffedConnections were closed because they did not show a protocol in time, or broke it.
	UnsniffedConnections uint64
	// WaitingCalls wait for the first catalog now.
	WaitingCalls int64
}

// Stats returns the counters. They are read one by one, not at one instant.
func (s *Server) Stats() Stats {
	c := &s.stats
	stats := Stats{
		Latency:              c.latency.Snapshot(),
		NativeConnections:    c.connections[serverGRPC].Load(),
		HTTPConnections:      c.connections[serverHTTP].Load(),
		OpenConnections:      c.open.Load(),
		RefusedConnections:   c.refused.Load(),
		UnsniffedConnections: c.unsniffed.Load(),
		WaitingCalls:         c.waiting.Load(),
	}
	for code := range c.calls {
		stats.Calls[code] = c.calls[code].Load()
	}
	return stats
}

package peer

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/observe"
)

// reasons is the number of entities.Reason.
const reasons = int(entities.Internal) + 1

// counters are those of both sides of a link. They are read while they change: sums of several of
// them may not fit.
type counters struct {
	commands, bytesSent, bytesReceived atomic.Uint64
	inFlight, links                    atomic.Int64
	failures                           [reasons]atomic.Uint64
	dialFailures, linksLost            atomic.Uint64
}

func (c *counters) failed(e *entities.Error) {
	if e != nil && int(e.Reason) < reasons {
		c.failures[e.Reason].Add(1)
	}
}

// Stats is what a Client or a Server has done so far.
type Stats struct {
	// Commands were sent by a Client, or received by a Server.
	Commands uint64
	// InFlight are those without an answer, Links the open links.
	InFlight, Links int64
	// BytesSent and BytesReceived count the messages of links.
	BytesSent, BytesReceived uint64
	// Failures count the commands that did not succeed, by entities.Reason.
	Failures [reasons]uint64
	// DialFailures count attempts to open a link, LinksLost links that ended without a leave message.
	// Clients only.
	DialFailures, LinksLost uint64
}

func (c *counters) stats() Stats {
	s := Stats{
		Commands: c.commands.Load(), InFlight: c.inFlight.Load(), Links: c.links.Load(),
		BytesSent: c.bytesSent.Load(), BytesReceived: c.bytesReceived.Load(),
		DialFailures: c.dialFailures.Load(), LinksLost: c.linksLost.Load(),
	}
	for i := range c.failures {
		s.Failures[i] = c.failures[i].Load()
	}
	return s
}

// Stats returns the present counters. Values are read one by one, not at one instant.
func (c *Client) Stats() Stats { return c.stats.stats() }

// Stats returns the present counters. Values are read one by one, not at one instant.
func (s *Server) Stats() Stats { return s.stats.stats() }

// State is the state of a connection.
type State string

// The states of a connection.
const (
	Connecting State = "connecting"
	Connected  State = "connected"
	// Waiting: an attempt failed, the next one comes after a pause.
	Waiting State = "waiting"
	// Leaving: the other side has sent its leave message.
	Leaving State = "leaving"
)

// PeerStatus is one connection, for a status page.
type PeerStatus struct {
	Peer
	State State
	// Since is when it entered that state.
	Since    time.Time
	InFlight int
	// LastError is what ended the last link or attempt, nil for nothing; LastErrorTime when.
	LastError     error
	LastErrorTime time.Time
}

// Peers lists the connections by address.
func (c *Client) Peers() []PeerStatus {
	all := make([]PeerStatus, 0, len(*c.peers.Load()))
	for _, p := range *c.peers.Load() {
		all = append(all, p.status())
	}
	slices.SortFunc(all, func(a, b PeerStatus) int { return cmp.Compare(a.Address, b.Address) })
	return all
}

// Names of the metrics. Those of the two sides differ in a label.
const (
	metricCommands = "millrace_peer_commands_total"
	metricInFlight = "millrace_peer_in_flight_commands"
	metricLinks    = "millrace_peer_open_links"
	metricBytes    = "millrace_peer_bytes_total"
	metricFailures = "millrace_peer_failures_total"
	metricDials    = "millrace_peer_dial_failures_total"
	metricLost     = "millrace_peer_links_lost_total"
)

// Metrics returns the counters of both sides of a process as a source of metrics. Either may be
// nil.
func Metrics(c *Client, s *Server) observe.Source {
	return observe.Source{
		Metrics: []observe.Metric{
			{Name: metricCommands, Kind: observe.Counter, Labels: []string{"direction"}, Help: "Commands sent to, and received from, other workers."},
			{Name: metricInFlight, Kind: observe.Gauge, Labels: []string{"direction"}, Help: "Commands between workers without an answer."},
			{Name: metricLinks, Kind: observe.Gauge, Labels: []string{"direction"}, Help: "Open links between workers."},
			{Name: metricBytes, Kind: observe.Counter, Labels: []string{"direction", "flow"}, Help: "Bytes of messages on links, by the side that opened the link and the direction."},
			{Name: metricFailures, Kind: observe.Counter, Labels: []string{"direction", "reason"}, Help: "Commands between workers that did not succeed, by reason."},
			{Name: metricDials, Kind: observe.Counter, Help: "Failed attempts to open a link."},
			{Name: metricLost, Kind: observe.Counter, Help: "Links that ended without a leave message."},
		},
		Collect: func(emit observe.Emitter) {
			if c != nil {
				stats := c.Stats()
				collect(emit, &stats, "out")
				emit.Value(metricDials, float64(stats.DialFailures))
				emit.Value(metricLost, float64(stats.LinksLost))
			}
			if s != nil {
				stats := s.Stats()
				collect(emit, &stats, "in")
			}
		},
	}
}

// collect emits what both sides have. Reasons that have not occurred have no series.
func collect(emit observe.Emitter, s *Stats, direction string) {
	emit.Value(metricCommands, float64(s.Commands), direction)
	emit.Value(metricInFlight, float64(s.InFlight), direction)
	emit.Value(metricLinks, float64(s.Links), direction)
	emit.Value(metricBytes, float64(s.BytesSent), direction, "sent")
	emit.Value(metricBytes, float64(s.BytesReceived), direction, "received")
	for reason, n := range s.Failures {
		if n > 0 {
			emit.Value(metricFailures, float64(n), direction, reasonNames[reason])
		}
	}
}

// reasonNames are the values of a label.
//
//nolint:gochecknoglobals // a constant table
var reasonNames = [reasons]string{
	entities.FunctionRefused: "function_refused", entities.FunctionFailed: "function_failed", entities.InvalidCommand: "invalid_command",
	entities.UnknownMethod: "unknown_method", entities.NotSupported: "not_supported", entities.TooLarge: "too_large",
	entities.Overloaded: "overloaded", entities.Unavailable: "unavailable", entities.Moved: "moved",
	entities.LostOutcome: "lost_outcome", entities.IDReused: "id_reused", entities.Cancelled: "cancelled",
	entities.Deadline: "deadline", entities.Halted: "halted", entities.Internal: "internal",
}

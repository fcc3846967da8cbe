package gateway

import (
	"google.golang.org/grpc/codes"

	"github.com/millrace-io/millrace/internal/observe"
)

// Names of the metrics.
const (
	metricCalls       = "millrace_gateway_calls_total"
	metricLatency     = "millrace_gateway_call_seconds"
	metricConnections = "millrace_gateway_connections_total"
	metricOpen        = "millrace_gateway_open_connections"
	metricRefused     = "millrace_gateway_refused_connections_total"
	metricUnsniffed   = "millrace_gateway_unsniffed_connections_total"
	metricWaiting     = "millrace_gateway_waiting_calls"
)

// Metrics returns the counters of Stats as a source of metrics.
func (s *Server) Metrics() observe.Source {
	return observe.Source{
		Metrics: []observe.Metric{
			{Name: metricCalls, Kind: observe.Counter, Labels: []string{"code"}, Help: "Finished calls of user functions by gRPC code."},
			{Name: metricLatency, Kind: observe.Latency, Help: "Time of a call from the complete request to the answer."},
			{Name: metricConnections, Kind: observe.Counter, Labels: []string{"server"}, Help: "Connections by the server that serves them."},
			{Name: metricOpen, Kind: observe.Gauge, Help: "Open connections."},
			{Name: metricRefused, Kind: observe.Counter, Help: "Connections closed because too many were open."},
			{Name: metricUnsniffed, Kind: observe.Counter, Help: "Connections closed because of a handshake timeout or a protocol error."},
			{Name: metricWaiting, Kind: observe.Gauge, Help: "Calls waiting for the first discovery of the function."},
		},
		Collect: s.collect,
	}
}

// collect emits the counters. Codes that no call has ended with have no series.
func (s *Server) collect(emit observe.Emitter) {
	stats := s.Stats()
	for code, n := range stats.Calls {
		emit.Value(metricCalls, float64(n), codes.Code(code).String())
	}
	emit.Latency(metricLatency, stats.Latency)
	emit.Value(metricConnections, float64(stats.NativeConnections), "grpc")
	emit.Value(metricConnections, float64(stats.HTTPConnections), "http")
	emit.Value(metricOpen, float64(stats.OpenConnections))
	emit.Value(metricRefused, float64(stats.RefusedConnections))
	emit.Value(metricUnsniffed, float64(stats.UnsniffedConnections))
	emit.Value(metricWaiting, float64(stats.WaitingCalls))
}

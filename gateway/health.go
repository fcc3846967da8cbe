package gateway

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/entities/discovery"
)

// healthService is grpc.health.v1 in one generation. The status is kept in the Server; a watch ends
// with the generation, because it would keep its connection open otherwise.
type healthService struct {
	healthpb.HealthServer
	generation context.Context //nolint:containedctx // the generation's own lifetime
}

// registerHealth adds the health service to a server. All generations show the same status.
func (s *Server) registerHealth(server *grpc.Server, generation context.Context) { //nolint:revive // not the context of a call
	healthpb.RegisterHealthServer(server, &healthService{HealthServer: s.health, generation: generation})
}

// Watch sends every change of a service's health until the caller leaves or the generation ends.
func (h *healthService) Watch(in *healthpb.HealthCheckRequest, stream healthpb.Health_WatchServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(h.generation, cancel)()

	err := h.HealthServer.Watch(in, &watchStream{Health_WatchServer: stream, ctx: ctx})
	if h.generation.Err() != nil {
		return status.Error(codes.Unavailable, "this connection is being closed: watch again on a new one")
	}
	return err
}

// watchStream is a stream that also ends with its generation.
type watchStream struct {
	healthpb.Health_WatchServer
	ctx context.Context //nolint:containedctx // it is what the stream returns
}

// Context returns the context that ends first.
func (w *watchStream) Context() context.Context { return w.ctx }

// announce sets the health of a catalog's services. before is the replaced catalog, nil for none.
// The caller holds mu.
func (s *Server) announce(before, after *discovery.Catalog) {
	if before != nil {
		for _, service := range before.Services() {
			if after.Service(service.Name) == nil {
				s.health.SetServingStatus(service.Name, healthpb.HealthCheckResponse_SERVICE_UNKNOWN)
			}
		}
	}
	now := healthpb.HealthCheckResponse_SERVING
	if s.unready {
		now = healthpb.HealthCheckResponse_NOT_SERVING
	}
	for _, service := range after.Services() {
		s.health.SetServingStatus(service.Name, now)
	}
	s.health.SetServingStatus("", now)
}

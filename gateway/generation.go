package gateway

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/grpc"

	"github.com/millrace-io/millrace/entities/discovery"
)

// generation is everything that depends on one catalog. It is immutable.
type generation struct {
	// catalog, json, rpc and rest are nil in the generation that serves until the function is
	// discovered.
	catalog *discovery.Catalog
	json    *jsonCodec

	// native serves the connections of conns. inner serves the calls that rpc passes on from
	// net/http. It is a separate server because a graceful stop would abort such calls.
	native, inner *grpc.Server
	conns         *handoff
	rpc           *rpcFront
	rest          *restRouter

	life    context.Context //nolint:containedctx // the generation's own lifetime
	end     context.CancelFunc
	started sync.Once
	drain   sync.Once
	drained chan struct{}
}

// newGeneration builds the servers of a catalog. The error names what is wrong with the catalog.
func (s *Server) newGeneration(catalog *discovery.Catalog) (*generation, error) {
	life, end := context.WithCancel(context.Background())
	g := &generation{catalog: catalog, conns: newHandoff(), life: life, end: end, drained: make(chan struct{})}
	if err := s.buildHTTP(g); err != nil {
		g.discard()
		return nil, err
	}
	g.native = s.newGRPC(g, grpc.NumStreamWorkers(streamWorkers))
	return g, nil
}

// discard ends a generation that never served: its servers have goroutines from the start.
func (g *generation) discard() {
	g.end()
	for _, server := range []*grpc.Server{g.native, g.inner} {
		if server != nil {
			server.Stop()
		}
	}
}

// buildHTTP makes the part of a generation that net/http calls.
func (s *Server) buildHTTP(g *generation) error {
	if g.catalog == nil {
		return nil
	}
	for _, service := range g.catalog.Services() {
		if slices.Contains(ownServices, service.Name) {
			return fmt.Errorf("the function serves %s, which the gateway serves itself: remove it from the function",
				service.Name)
		}
	}
	types := &typeResolver{catalog: g.catalog.Types()}
	g.json = newJSONCodec(types)
	g.inner = s.newGRPC(g, grpc.StreamInterceptor(openWindow))

	g.rpc = s.newRPCFront(g)
	var err error
	if g.rest, err = newRESTRouter(g.catalog, g.json); err != nil {
		return fmt.Errorf("serve the function over HTTP/JSON: %w", err)
	}
	return nil
}

// take passes a connection to the native server and reports whether that still takes any.
func (s *Server) take(g *generation, c *conn) bool {
	g.started.Do(func() {
		// The generation's end stops it; Shutdown waits for it.
		s.background.Go(func() {
			if err := g.native.Serve(g.conns); err != nil && g.life.Err() == nil {
				s.opts.Log.Error("gRPC server ended", "error", err)
			}
		})
	})
	return g.conns.give(c)
}

// leave sends GOAWAY to the clients of a generation, once; drained is closed when the last call on
// its connections has ended.
func (s *Server) leave(g *generation) {
	g.drain.Do(func() {
		g.end()
		_ = g.conns.Close()
		// cut ends it if the calls do not; Shutdown waits for it.
		s.background.Go(func() {
			<-g.conns.settled
			g.native.GracefulStop()
			close(g.drained)
		})
	})
}

// cut aborts the remaining calls of a generation and waits until its handlers have returned.
func (g *generation) cut() {
	var stopping sync.WaitGroup
	stopping.Go(g.native.Stop)
	if g.inner != nil {
		stopping.Go(g.inner.Stop)
	}
	stopping.Wait()
	<-g.drained
}

// retire ends a replaced generation after its calls or after RetireAfter.
func (s *Server) retire(g *generation) {
	s.leave(g)
	over, cancel := s.opts.Clock.After(s.opts.RetireAfter)
	// RetireAfter or Shutdown ends it; Shutdown waits for it.
	s.background.Go(func() {
		defer cancel()
		select {
		case <-over:
		case <-s.halted:
		}
		g.cut()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.generations, g)
	})
}

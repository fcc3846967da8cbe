package gateway

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/grpc"

	"github.com/millrace-io/millrace/entities/discovery"
)

// generation is everything that depends on one catalog. It is immutable. grpc-go takes no services
// after it serves, so another catalog is another generation, with servers of its own:
//
//	G1  A connection stays with the generation that took it. New ones go to the newest.
//	G2  A generation that was replaced sends GOAWAY, serves the calls that it has, and is cut after
//	    RetireAfter. Calls that still come on its connections go by the newest catalog.
//	G3  A catalog that cannot be served replaces nothing: its servers are discarded.
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

	// life ends when the generation begins to leave: health watches, which never end by themselves,
	// end with it.
	life    context.Context //nolint:containedctx // the generation's own lifetime
	end     context.CancelFunc
	started sync.Once
	goAway  sync.Once
	idle    chan struct{}
}

// newGeneration builds the servers of a catalog. The error names what is wrong with the catalog.
func (s *Server) newGeneration(catalog *discovery.Catalog) (*generation, error) {
	life, end := context.WithCancel(context.Background())
	g := &generation{catalog: catalog, conns: newHandoff(), life: life, end: end, idle: make(chan struct{})}
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
	g.json.types = compiledIn(g.catalog)
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

// leave sends GOAWAY to the clients of a generation, once; idle is closed when the last call on
// its connections has ended.
func (s *Server) leave(g *generation) {
	g.goAway.Do(func() {
		g.end()
		_ = g.conns.Close()
		// cut ends it if the calls do not; Shutdown waits for it.
		s.background.Go(func() {
			<-g.conns.finished
			g.native.GracefulStop()
			close(g.idle)
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
	<-g.idle
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

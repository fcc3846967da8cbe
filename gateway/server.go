package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/internal/backoff"
	"github.com/millrace-io/millrace/internal/observe"
)

// ErrClosed is returned by Serve after Shutdown.
var ErrClosed = errors.New("the gateway is shut down")

// ErrHanging is returned by Shutdown if calls did not end although they were aborted.
var ErrHanging = errors.New(
	"calls did not end after they were aborted: their function hangs and ignores its context")

// hangingAfter is how long Shutdown waits for the calls that it has aborted. Calls that respect
// their context end at once.
const hangingAfter = time.Second

// Server is the gateway. See the package comment for what it does with a connection.
type Server struct {
	opts   Options
	stats  counters
	health *health.Server
	cors   *cors

	web        *http.Server
	webConns   *handoff
	webStarted sync.Once
	// requests are the running handlers of web.
	requests sync.WaitGroup

	// current is the newest generation that has a catalog; nil before discovery. discovered is
	// closed by the first.
	current    atomic.Pointer[generation]
	discovered chan struct{}
	// waiting serves native connections until then.
	waiting *generation

	// closing is closed when Shutdown begins, halted when it begins to abort calls.
	closing, halted chan struct{}
	background      sync.WaitGroup
	shutdown        sync.Once
	stopped         chan struct{}

	replace sync.Mutex // one SetCatalog at a time; taken before mu

	mu     sync.Mutex // guards what follows; held only briefly
	closed bool       // nothing new may start
	// unready: SetReady(false) was called.
	unready bool
	halt    bool // no request of web may start any more
	// generations are those that were not cut yet.
	generations map[*generation]struct{}
	listeners   map[net.Listener]struct{}
	sniffing    map[net.Conn]struct{}
}

// New returns a gateway that serves nothing yet. It starts no goroutine. It panics when
// Options.Dispatcher is nil.
func New(opts Options) *Server {
	opts.setDefaults()
	s := &Server{
		opts:        opts,
		health:      health.NewServer(),
		cors:        newCORS(opts.Settings),
		webConns:    newHandoff(),
		discovered:  make(chan struct{}),
		closing:     make(chan struct{}),
		halted:      make(chan struct{}),
		stopped:     make(chan struct{}),
		generations: map[*generation]struct{}{},
		listeners:   map[net.Listener]struct{}{},
		sniffing:    map[net.Conn]struct{}{},
	}
	s.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	s.waiting, _ = s.newGeneration(nil) // fails only for a catalog
	s.generations[s.waiting] = struct{}{}
	s.web = s.newWeb()
	return s
}

// newWeb returns the server of all protocols except native gRPC.
func (s *Server) newWeb() *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           http.HandlerFunc(s.serveHTTP),
		Protocols:         &protocols,
		ReadHeaderTimeout: s.opts.SniffTimeout,
		IdleTimeout:       s.opts.IdleTimeout,
		MaxHeaderBytes:    s.opts.MaxHeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: s.opts.MaxStreams},
		ErrorLog:          slog.NewLogLogger(s.opts.Log.Handler(), slog.LevelWarn),
	}
}

// SetCatalog makes the gateway serve a catalog: the first one, or a new one in place of the
// previous. New connections and calls use the new one; running calls end with the old. The error
// says what in the catalog cannot be served; then nothing has changed. The runtime's own services
// are not served. After Shutdown it does nothing.
func (s *Server) SetCatalog(catalog *discovery.Catalog) error {
	s.replace.Lock()
	defer s.replace.Unlock()
	g, err := s.newGeneration(catalog.Public())
	if err != nil {
		return err
	}
	before := s.current.Load()
	if !s.whileOpen(func() { s.publish(before, g) }) {
		g.discard()
	}
	return nil
}

// SetReady sets whether callers should be sent here: grpc.health.v1 answers SERVING or NOT_SERVING
// for the server and each of its services. Calls are served in either case. A new Server is ready
// as soon as it has a catalog. After Shutdown it does nothing.
func (s *Server) SetReady(ready bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unready == !ready {
		return
	}
	s.unready = !ready
	if g := s.current.Load(); g != nil {
		s.announce(nil, g.catalog)
	}
}

// publish puts a generation in place of another. The caller holds the server open.
func (s *Server) publish(before, g *generation) {
	s.generations[g] = struct{}{}
	s.current.Store(g)
	if before == nil {
		s.announce(nil, g.catalog)
		close(s.discovered)
		s.retire(s.waiting)
		return
	}
	s.announce(before.catalog, g.catalog)
	s.retire(before)
}

// whileOpen runs f unless the server is closed.
func (s *Server) whileOpen(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	f()
	return true
}

// await returns the newest generation with a catalog. Before the first catalog it waits, bounded in
// time and number of calls; CallTimeout bounds it too. Its error is about a call that never ran:
// see entities.Error.ForCommand.
func (s *Server) await(ctx context.Context) (*generation, *entities.Error) {
	if g := s.current.Load(); g != nil {
		return g, nil
	}
	if s.stats.waiting.Add(1) > int64(s.opts.MaxEarly) {
		s.stats.waiting.Add(-1)
		return nil, unavailable("function not discovered yet, and too many calls wait for it: call again later")
	}
	defer s.stats.waiting.Add(-1)
	patience := s.opts.FunctionWait
	if limit := s.opts.CallTimeout; limit > 0 {
		patience = min(patience, limit)
	}
	over, cancel := s.opts.Clock.After(patience)
	defer cancel()
	select {
	case <-s.discovered:
		return s.current.Load(), nil
	case <-over:
		return nil, unavailable("function not discovered yet: start it; if it is running, see the worker's log")
	case <-s.closing:
		return nil, unavailable("this gateway is shutting down: call another one")
	case <-ctx.Done():
		failure := asError(ctx.Err())
		failure.Outcome = entities.NotApplied // it never ran
		failure.Message += ", the function is not discovered yet: nothing was applied"
		return nil, failure
	}
}

// Serve accepts connections until Shutdown, and then returns ErrClosed; or until the listener fails
// for good, and then returns its error. It closes the listener. It may be called for several
// listeners.
func (s *Server) Serve(lis net.Listener) error {
	if !s.whileOpen(func() { s.listeners[lis] = struct{}{} }) {
		_ = lis.Close()
		return ErrClosed
	}
	defer func() {
		_ = lis.Close()
		s.mu.Lock()
		delete(s.listeners, lis)
		s.mu.Unlock()
	}()
	for failures := 0; ; {
		raw, err := lis.Accept()
		if err == nil {
			failures = 0
			s.open(raw)
			continue
		}
		if s.isClosing() {
			return ErrClosed
		}
		if temporary, ok := errors.AsType[interface {
			error
			Temporary() bool
		}](err); !ok || !temporary.Temporary() {
			return err
		}
		failures++
		s.opts.Log.Warn("accept failed, retrying", observe.Address, lis.Addr(), observe.Error, err)
		if !s.pause(acceptPause.Pause(failures)) {
			return ErrClosed
		}
	}
}

// acceptPause is how long to wait when the process has no more file descriptors.
//
//nolint:gochecknoglobals // a constant
var acceptPause = backoff.Policy{First: 5 * time.Millisecond, Max: time.Second}

// pause waits, and says whether the server is still open.
func (s *Server) pause(d time.Duration) bool {
	over, cancel := s.opts.Clock.After(d)
	defer cancel()
	select {
	case <-over:
		return true
	case <-s.closing:
		return false
	}
}

// open starts a goroutine that sniffs a connection and passes it to one of the two servers.
func (s *Server) open(raw net.Conn) {
	if s.stats.open.Add(1) > int64(s.opts.MaxConnections) {
		s.stats.open.Add(-1)
		s.stats.refused.Add(1)
		_ = raw.Close()
		return
	}
	c := &conn{Conn: raw, onClose: func() { s.stats.open.Add(-1) }}
	opened := s.whileOpen(func() {
		s.sniffing[raw] = struct{}{}
		// The sniff's own limits end it, or Shutdown, which also waits for it.
		s.background.Go(func() { s.route(c) })
	})
	if !opened {
		_ = c.Close()
	}
}

// route sniffs a connection and passes it on.
func (s *Server) route(c *conn) {
	sniffer := &sniffer{conn: c.Conn, opts: &s.opts}
	to, err := sniffer.sniff()
	s.mu.Lock()
	delete(s.sniffing, c.Conn)
	s.mu.Unlock()
	if err != nil {
		_ = c.Close()
		if !errors.Is(err, errQuiet) && !s.isClosing() {
			s.stats.unsniffed.Add(1)
			s.opts.Log.Debug("connection closed: no known protocol", observe.Address, c.RemoteAddr(), observe.Error, err)
		}
		return
	}
	c.head = sniffer.head.Bytes()
	c.filter = sniffer.http2 && !sniffer.acknowledged
	s.stats.connections[to].Add(1)
	if !s.hand(c, to) {
		_ = c.Close() // Shutdown came first
	}
}

// hand passes a connection to its server. If the generation is replaced at this moment, the next
// one takes it.
func (s *Server) hand(c *conn, to serverKind) bool {
	if to == serverHTTP {
		s.webStarted.Do(func() {
			// Shutdown stops it and waits for it.
			s.background.Go(func() {
				if err := s.web.Serve(s.webConns); !errors.Is(err, http.ErrServerClosed) && !s.isClosing() {
					s.opts.Log.Error("HTTP server ended", observe.Error, err)
				}
			})
		})
		c.Conn = &lazyDeadline{Conn: c.Conn}
		return s.webConns.give(c)
	}
	for !s.isClosing() {
		g := s.current.Load()
		if g == nil {
			g = s.waiting
		}
		if s.take(g, c) {
			return true
		}
	}
	return false
}

func (s *Server) isClosing() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

// Shutdown stops accepting, sends GOAWAY, and lets running calls finish until ctx ends; then it
// aborts them: their connections are closed and their contexts end. If calls were aborted, the
// error is the cause of ctx, joined with ErrHanging if some have not ended a second later;
// otherwise no goroutine of the Server is left when it returns. It may be called more than once;
// every call waits for the end.
func (s *Server) Shutdown(ctx context.Context) error {
	var err error
	s.shutdown.Do(func() {
		defer close(s.stopped)
		err = s.stop(ctx)
	})
	<-s.stopped
	return err
}

func (s *Server) stop(ctx context.Context) error {
	leaving := s.close()
	s.health.Shutdown()
	_ = s.webConns.Close()

	for _, g := range leaving {
		s.leave(g)
	}
	cut := s.web.Shutdown(ctx) != nil // ctx ended first
	for _, g := range leaving {
		select {
		case <-g.idle:
		case <-ctx.Done():
			cut = true
		}
	}

	if !s.cut(leaving) {
		return fmt.Errorf("%w (%w)", ErrHanging, context.Cause(ctx))
	}
	if cut {
		return context.Cause(ctx)
	}
	return nil
}

// cut aborts what is left, and reports whether everything has ended. The rest ends with its
// function or with the process.
func (s *Server) cut(leaving []*generation) bool {
	close(s.halted)
	_ = s.web.Close()
	s.mu.Lock()
	s.halt = true
	s.mu.Unlock()
	ended := make(chan struct{})
	go func() { // ends with the aborted calls
		defer close(ended)
		var cutting sync.WaitGroup
		for _, g := range leaving {
			cutting.Go(g.cut)
		}
		cutting.Wait()
		s.requests.Wait()
		s.background.Wait()
	}()
	patience := time.NewTimer(hangingAfter)
	defer patience.Stop()
	select {
	case <-ended:
		return true
	case <-patience.C:
		return false
	}
}

// close refuses new connections and calls, and returns the remaining generations.
func (s *Server) close() []*generation {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	close(s.closing)
	for lis := range s.listeners {
		_ = lis.Close()
	}
	for c := range s.sniffing {
		_ = c.Close()
	}
	return slices.Collect(maps.Keys(s.generations))
}

// beginRequest adds a request of web to requests, unless the server no longer waits for them.
func (s *Server) beginRequest() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.halt {
		s.requests.Add(1)
	}
	return !s.halt
}

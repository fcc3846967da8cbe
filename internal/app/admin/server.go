package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/millrace-io/millrace/internal/observe"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// headerTimeout bounds how long a client of the admin port may take to say what it wants.
const headerTimeout = 10 * time.Second

// Server is the admin port: the service over gRPC, and pages over HTTP.
type Server struct {
	service  *Service
	options  Options
	listener net.Listener
	http     *http.Server
	grpc     *grpc.Server
}

// Options say how an admin port is served.
type Options struct {
	// Profiles: Go's profiles are served too, at /debug/pprof/.
	Profiles bool
	// Settled is closed when there is nothing more to watch: the port serves until then.
	Settled <-chan struct{}
}

// NewServer returns the server of an open port. It closes the listener when it has served.
func NewServer(service *Service, listener net.Listener, o Options) *Server {
	// Handlers read log and store, which are closed after the admin port.
	s := &Server{service: service, options: o, listener: listener, grpc: grpc.NewServer(grpc.WaitForHandlers(true))}
	adminv1.RegisterAdminServiceServer(s.grpc, service)
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s.http = &http.Server{Protocols: &protocols, ReadHeaderTimeout: headerTimeout}
	return s
}

// Serve answers until ctx has ended and all is settled, so that the end can be watched here. It returns when no handler runs.
func (s *Server) Serve(ctx context.Context) error {
	pages, err := s.pages()
	if err != nil {
		return err
	}
	s.http.Handler = s.route(pages)
	ended := make(chan error, 1)
	go func() { ended <- s.http.Serve(s.listener) }() // ended by Close below
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	<-s.options.Settled
	s.grpc.Stop()
	_ = s.http.Close()
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// pages are what the port shows over plain HTTP.
func (s *Server) pages() (http.Handler, error) {
	metrics, err := s.metrics()
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /status", s.status)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /livez", say("ok"))
	mux.HandleFunc("GET /{$}", say("millrace admin: /status /metrics /readyz /livez, and gRPC millrace.admin.v1.AdminService"))
	if s.options.Profiles {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux, nil
}

func say(line string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, line+"\n") }
}

// route sends gRPC to the admin service and the rest to the pages.
func (s *Server) route(pages http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			s.grpc.ServeHTTP(w, r)
			return
		}
		pages.ServeHTTP(w, r)
	})
}

func (s *Server) metrics() (http.Handler, error) {
	collector, err := observe.Collector(s.service.process.Metrics()...)
	if err != nil {
		return nil, err
	}
	registry := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{collector, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{}), nil
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	body, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(s.service.Page(r.Context()))
	var page bytes.Buffer
	if err == nil {
		err = json.Indent(&page, body, "", "  ") // protojson's own white space differs from build to build
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(page.Bytes(), '\n'))
}

// readyz says by its code whether the process serves, by its first line why not, and by the others what is to be looked at.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	code, lines := http.StatusOK, []string{"ready"}
	if err := s.service.process.NotReady(); err != nil {
		code, lines[0] = http.StatusServiceUnavailable, err.Error()
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	for _, warning := range s.service.Warnings() {
		lines = append(lines, "warning: "+warning)
	}
	_, _ = io.WriteString(w, strings.Join(lines, "\n")+"\n")
}

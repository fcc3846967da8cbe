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
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/reflection"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/millrace-io/millrace/gateway"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/internal/observe"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

const (
	// headerTimeout bounds how long a client of the admin port may take to send its headers.
	headerTimeout = 10 * time.Second
	// idleTimeout closes a connection on which nothing happens.
	idleTimeout = 2 * time.Minute
)

const (
	// maxRequest and maxReply bound the messages of the service, in bytes.
	maxRequest = 4 << 20
	maxReply   = 64 << 20
	// bodyTimeout bounds how long a request may take to arrive.
	bodyTimeout = 30 * time.Second
)

// Server is the admin port: the service over gRPC, gRPC-Web, Connect and JSON, and pages over HTTP.
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
	s := &Server{service: service, options: o, listener: listener}
	s.grpc = grpc.NewServer(grpc.WaitForHandlers(true), grpc.MaxRecvMsgSize(maxRequest), grpc.MaxSendMsgSize(maxReply))
	adminv1.RegisterAdminServiceServer(s.grpc, service)
	reflection.Register(s.grpc)
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s.http = &http.Server{Protocols: &protocols, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout}
	return s
}

// Serve answers until ctx has ended and all is settled, so that the end can be watched here. It
// returns when no call of the service runs.
func (s *Server) Serve(ctx context.Context) error {
	pages, err := s.pages()
	if err != nil {
		return err
	}
	limits := gateway.FrontOptions{MaxRequest: maxRequest, BodyTimeout: bodyTimeout}
	front := gateway.NewFront(s.grpc, limits)
	s.http.Handler = route(front, pages)
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
	mux.HandleFunc("GET /{$}", say("millrace admin: /status /metrics /readyz /livez, and millrace.admin.v1.AdminService "+
		"over gRPC, gRPC-Web, Connect, and POST /millrace.admin.v1.AdminService/Status with JSON"))
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

// route sends calls of the service to its front and the rest to the pages.
func route(front *gateway.Front, pages http.Handler) http.Handler {
	foreign := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !front.IsCall(r) {
			pages.ServeHTTP(w, r)
			return
		}
		if err := mayCall(r, foreign); err != nil && !mutation.On(mutation.ForeignPage) {
			front.Refuse(w, codes.PermissionDenied, err.Error())
			return
		}
		front.ServeHTTP(w, r)
	})
}

// mayCall refuses what a page of another origin has a browser send: it would act for the person who
// opens that page near a worker. A page whose own name resolves to this address would be of the
// same origin, so a browser must use an address, or localhost. What is not a browser sends neither
// header.
func mayCall(r *http.Request, foreign *http.CrossOriginProtection) error {
	if r.Header.Get("Origin") == "" && r.Header.Get("Sec-Fetch-Site") == "" {
		return nil
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if host != "localhost" && net.ParseIP(strings.Trim(host, "[]")) == nil {
		return fmt.Errorf("a browser calls the admin service by an IP address or as localhost, not as %q: "+
			"open the page by one of these", host)
	}
	if err := foreign.Check(r); err != nil {
		return fmt.Errorf("a page of another origin may not call the admin service (%w)", err)
	}
	return nil
}

func (s *Server) metrics() (http.Handler, error) {
	collector, err := observe.Collector(s.service.process.Metrics()...)
	if err != nil {
		return nil, err
	}
	registry := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{
		collector, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
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

// readyz says by its code whether the process serves, by its first line why not, and by the others
// what an operator should check.
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

package node

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

// adminHeaderTimeout bounds how long a client of the admin port may take to say what it wants.
const adminHeaderTimeout = 10 * time.Second

// subject is what an admin port shows: a worker, or a gateway.
type subject interface {
	// Status returns the whole status page.
	Status(ctx context.Context) *adminv1.StatusResponse
	// NotReady returns why it does not serve, nil when it does.
	NotReady() error
	// Warnings returns what an operator should look at although it does not keep the process from serving, a sentence each.
	Warnings() []string
	// collected is what is measured.
	collected() []observe.Source
}

// adminServer is the second port: status and metrics over HTTP, and the admin service over gRPC.
type adminServer struct {
	subject subject
	// debug serves profiles, too.
	debug bool
	// settled is closed when there is nothing more to watch.
	settled  <-chan struct{}
	listener net.Listener
	http     *http.Server
	grpc     *grpc.Server
}

// newAdmin opens the admin port. It serves until settled.
func newAdmin(ctx context.Context, c *Config, of subject, service adminv1.AdminServiceServer, settled <-chan struct{}, options ...grpc.ServerOption) (*adminServer, error) {
	listener, err := listen(ctx, "admin", c.Admin)
	if err != nil {
		return nil, err
	}
	// Handlers read log and store, which are closed after the admin port.
	a := &adminServer{
		subject: of, debug: c.DebugEndpoints, settled: settled, listener: listener, grpc: grpc.NewServer(append(options, grpc.WaitForHandlers(true))...),
	}
	adminv1.RegisterAdminServiceServer(a.grpc, service)
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	a.http = &http.Server{Protocols: &protocols, ReadHeaderTimeout: adminHeaderTimeout}
	return a, nil
}

// serve answers until ctx has ended and all is settled: whoever watches the end can watch it here.
func (a *adminServer) serve(ctx context.Context) error {
	pages, err := a.pages()
	if err != nil {
		return err
	}
	a.http.Handler = a.route(pages)
	ended := make(chan error, 1)
	go func() { ended <- a.http.Serve(a.listener) }() // ended by Close below
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	<-a.settled
	a.grpc.Stop()
	_ = a.http.Close()
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// pages are what the port shows over plain HTTP.
func (a *adminServer) pages() (http.Handler, error) {
	metrics, err := a.metrics()
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /status", a.status)
	mux.HandleFunc("GET /readyz", a.readyz)
	mux.HandleFunc("GET /livez", say("ok"))
	mux.HandleFunc("GET /{$}", say("millrace admin: /status /metrics /readyz /livez, and gRPC millrace.admin.v1.AdminService"))
	if a.debug {
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
func (a *adminServer) route(pages http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			a.grpc.ServeHTTP(w, r)
			return
		}
		pages.ServeHTTP(w, r)
	})
}

func (a *adminServer) metrics() (http.Handler, error) {
	collector, err := observe.Collector(a.subject.collected()...)
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

func (a *adminServer) status(w http.ResponseWriter, r *http.Request) {
	body, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(a.subject.Status(r.Context()))
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
func (a *adminServer) readyz(w http.ResponseWriter, _ *http.Request) {
	code, lines := http.StatusOK, []string{"ready"}
	if err := a.subject.NotReady(); err != nil {
		code, lines[0] = http.StatusServiceUnavailable, err.Error()
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	for _, warning := range a.subject.Warnings() {
		lines = append(lines, "warning: "+warning)
	}
	_, _ = io.WriteString(w, strings.Join(lines, "\n")+"\n")
}

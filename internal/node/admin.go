package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
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

// adminServer is the second port: status and metrics over HTTP, and the admin service over gRPC.
type adminServer struct {
	node     *Node
	listener net.Listener
	http     *http.Server
	grpc     *grpc.Server
}

func (n *Node) newAdmin(ctx context.Context) (*adminServer, error) {
	listener, err := listen(ctx, "admin", n.config.Admin)
	if err != nil {
		return nil, err
	}
	a := &adminServer{node: n, listener: listener, grpc: grpc.NewServer()}
	adminv1.RegisterAdminServiceServer(a.grpc, &adminService{node: n})
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	a.http = &http.Server{Protocols: &protocols, ReadHeaderTimeout: 10 * time.Second}
	return a, nil
}

// serve answers until ctx ends.
func (a *adminServer) serve(ctx context.Context) error {
	metrics, err := a.metrics()
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /status", a.status)
	mux.HandleFunc("GET /readyz", a.readyz)
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("millrace admin: /status /metrics /readyz /livez, and gRPC millrace.admin.v1.AdminService\n"))
	})
	a.http.Handler = a.route(mux)
	ended := make(chan error, 1)
	go func() { ended <- a.http.Serve(a.listener) }() // ended by Shutdown or Close below
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	<-a.node.readiness.quiet // whoever watches the end can watch it here
	a.grpc.Stop()
	_ = a.http.Close()
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
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
	sources := append([]observe.Source{a.node.gateway.Metrics(), a.node.partitionMetrics()}, a.node.sources...)
	collector, err := observe.Collector(sources...)
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
	body, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(a.node.Status(r.Context()))
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

func (a *adminServer) readyz(w http.ResponseWriter, _ *http.Request) {
	if err := a.node.NotReady(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("ready\n"))
}

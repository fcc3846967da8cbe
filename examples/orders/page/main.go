// Command page serves a page with the open orders. It passes calls on to the worker, so that page
// and service have one origin and the worker needs no setting for it.
//
//	page                                     # http://127.0.0.1:9080/ with the worker at 127.0.0.1:9000
//	page 127.0.0.1:9081 127.0.0.1:9001       # both addresses
package main

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"time"
)

//go:embed index.html
var page []byte

func main() {
	listen, worker := "127.0.0.1:9080", "127.0.0.1:9000"
	if len(os.Args) == 3 {
		listen, worker = os.Args[1], os.Args[2]
	}
	if err := serve(os.Stdout, listen, worker); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serve listens until the process ends.
func serve(out io.Writer, listen, worker string) error {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", listen)
	if err != nil {
		return fmt.Errorf("listen at %s: %w", listen, err)
	}
	_, _ = fmt.Fprintf(out, "http://%s/ shows the open orders of the worker at %s\n", l.Addr(), worker)
	server := &http.Server{Handler: handler(worker), ReadHeaderTimeout: 10 * time.Second}
	return server.Serve(l)
}

// handler serves the page, and everything below /v1/ from the worker.
func handler(worker string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(page) // a browser that has left misses nothing
	})
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: worker})
	proxy.FlushInterval = -1 // streams are passed on at once
	mux.Handle("/v1/", proxy)
	return mux
}

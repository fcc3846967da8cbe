package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestThePageAndItsWorker asks for the page, and through it for the worker.
func TestThePageAndItsWorker(t *testing.T) {
	worker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Millrace-Token", "t")
		_, _ = io.WriteString(w, r.Method+" "+r.URL.Path+" "+r.Header.Get("Millrace-Min-Token"))
	}))
	defer worker.Close()
	site := httptest.NewServer(handler(strings.TrimPrefix(worker.URL, "http://")))
	defer site.Close()
	for path, want := range map[string]string{"/": "<title>Open orders</title>", "/v1/orders:listOpen": "GET /v1/orders:listOpen t"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, site.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Millrace-Min-Token", "t")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || !strings.Contains(string(body), want) {
			t.Errorf("%s is %q (%v), want %q in it", path, body, err, want)
		}
	}
}

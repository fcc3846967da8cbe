package readside

import (
	_ "embed"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kit"
)

//go:embed driver.html
var driver []byte

// TestThePageIsLive: in a real browser the page of the orders shows what it does itself and what
// others do; without a worker it keeps what it shows and says so, and goes on from there.
func TestThePageIsLive(t *testing.T) {
	chromium := browserProgram(t)
	w := newWorld(t)
	w.start("dev")
	w.awaitViews()
	pageAt := kit.FreeAddress(t)
	page := &kit.Process{Command: kit.Command{
		Program: harness.Build(t, orders+"/page", ""), Args: []string{pageAt, w.doors[0]},
		Log: filepath.Join(t.TempDir(), "page.log"),
	}}
	w.must(page.Start())
	t.Cleanup(func() { _ = page.Kill() })
	w.must(page.Await(t.Context(), patience, "the page", kit.Listens(pageAt)))

	done := make(chan string, 1)
	site := httptest.NewServer(w.driven(pageAt, done))
	defer site.Close()
	browser := &kit.Process{Command: kit.Command{
		Program: chromium, Log: filepath.Join(t.TempDir(), "chromium.log"),
		Args: []string{
			"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
			"--disable-component-update", "--disable-sync", "--disable-extensions", "--disable-dev-shm-usage",
			"--remote-debugging-port=0", "--user-data-dir=" + profile(t), site.URL + "/driver",
		},
	}}
	w.must(browser.Start())
	defer func() { _ = browser.Stop(5 * time.Second) }()
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case failure := <-done:
		if failure != "" {
			t.Error(failure)
		}
	case <-browser.Exited():
		t.Fatalf("the browser ended: %s", browser.Tail())
	case <-late.C:
		t.Fatalf("the page has no result after %s: %s", patience, browser.Tail())
	}
}

// driven serves the page of the orders, the page that drives it, and what that one asks for.
func (w *world) driven(page string, done chan<- string) http.Handler {
	mux := http.NewServeMux()
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: page})
	proxy.FlushInterval = -1
	proxy.ErrorLog = log.New(io.Discard, "", 0) // streams break off when the worker is killed
	mux.Handle("/", proxy)
	mux.HandleFunc("GET /driver", func(out http.ResponseWriter, _ *http.Request) {
		out.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = out.Write(driver)
	})
	mux.HandleFunc("POST /driver/kill", func(http.ResponseWriter, *http.Request) { w.workers[0].Kill(w.t) })
	mux.HandleFunc("POST /driver/restart", func(http.ResponseWriter, *http.Request) { w.workers[0].Respawn(w.t) })
	mux.HandleFunc("POST /driver/place", func(out http.ResponseWriter, r *http.Request) {
		id := r.FormValue("order")
		body := map[string]any{
			"customer_id": "ada", "lines": []any{map[string]any{"sku": "bolt", "quantity": 1, "cents": 1250}},
		}
		a := w.do(newRandom(1, 1), call{method: http.MethodPost, path: "/v1/orders/" + id, body: body, id: id})
		if a.code != http.StatusOK {
			http.Error(out, a.String(), http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("POST /driver/done", func(_ http.ResponseWriter, r *http.Request) {
		failure, _ := io.ReadAll(r.Body)
		done <- string(failure)
	})
	return mux
}

// browserProgram is the path of Chromium.
func browserProgram(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	kit.CannotRun(t, "chromium is not installed")
	return ""
}

// profile is a directory for the browser. Its processes may still write when the test has ended, so
// what cannot be removed stays.
func profile(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "millrace-browser-") //nolint:usetesting // it need not be empty at the end
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

package browser

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/gateway"
	"github.com/millrace-io/millrace/internal/settings"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/tests/kit"
)

// patience bounds all cases together, fetching bounds what npm and esbuild take.
const patience, fetching = time.Minute, 5 * time.Minute

// pagesFile is the service that the page calls.
const pagesFile = `
name: "pages.proto" package: "browser.v1" syntax: "proto3"
message_type { name: "Line" field { name: "text" json_name: "text" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL } }
service { name: "Pages"
  method { name: "Echo" input_type: ".browser.v1.Line" output_type: ".browser.v1.Line" }
  method { name: "Look" input_type: ".browser.v1.Line" output_type: ".browser.v1.Line"
    options { idempotency_level: NO_SIDE_EFFECTS } }
  method { name: "Refuse" input_type: ".browser.v1.Line" output_type: ".browser.v1.Line" }
  method { name: "Busy" input_type: ".browser.v1.Line" output_type: ".browser.v1.Line" }
  method { name: "Wait" input_type: ".browser.v1.Line" output_type: ".browser.v1.Line" }
  method { name: "Count" input_type: ".browser.v1.Line" output_type: ".browser.v1.Line" server_streaming: true }
  method { name: "Fail" input_type: ".browser.v1.Line" output_type: ".browser.v1.Line" server_streaming: true } }
`

// TestBrowser runs the cases of page/main.js.
func TestBrowser(t *testing.T) {
	chromium := program(t, "chromium", "chromium-browser", "google-chrome")
	bundle := bundled(t, program(t, "npm"))
	set := descriptors(t)

	results := make(chan []result, 1)
	config := map[string]string{"files": base64.StdEncoding.EncodeToString(set)}
	page := http.NewServeMux()
	page.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(`<!doctype html><title>millrace</title><script type="module" src="/main.js"></script>`))
	})
	page.HandleFunc("GET /main.js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
		_, _ = w.Write(bundle)
	})
	page.HandleFunc("POST /results", func(_ http.ResponseWriter, r *http.Request) {
		var got []result
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Errorf("results: %v", err)
		}
		results <- got
	})
	site := httptest.NewServer(page)
	defer site.Close()
	config["gateway"] = serve(t, set, site.URL)
	config["refused"] = serve(t, set, "https://elsewhere.example.com")
	page.HandleFunc("GET /config.json", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(config)
	})

	browser := &kit.Process{Command: kit.Command{
		Program: chromium, Log: filepath.Join(t.TempDir(), "chromium.log"),
		Args: []string{
			"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
			"--disable-component-update", "--disable-sync", "--disable-extensions", "--disable-dev-shm-usage",
			"--remote-debugging-port=0", "--user-data-dir=" + profile(t), site.URL + "/",
		},
	}}
	if err := browser.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = browser.Stop(5 * time.Second) }()
	select {
	case got := <-results:
		if len(got) == 0 {
			t.Fatal("the page ran nothing")
		}
		for _, r := range got {
			t.Run(r.Name, func(t *testing.T) {
				if r.Error != "" {
					t.Error(r.Error)
				}
			})
		}
	case <-browser.Exited():
		t.Fatalf("the browser ended: %s", browser.Tail())
	case <-time.After(patience):
		t.Fatalf("the page has no results after %s: %s", patience, browser.Tail())
	}
}

type result struct {
	Name  string `json:"name"`
	Error string `json:"error"`
}

// program returns the path of the first program that is installed.
func program(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	kit.CannotRun(t, "%s is not installed", names[0])
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

var (
	//go:embed page/main.js
	mainJS []byte
	//go:embed page/package.json
	packageJSON []byte
	//go:embed page/package-lock.json
	packageLock []byte
)

// bundled returns the page's script with its libraries, which are fetched the first time and kept
// by the hash of the lock file.
func bundled(t *testing.T, npm string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), fetching)
	defer cancel()
	cache, err := os.UserCacheDir()
	if err != nil {
		kit.CannotRun(t, "no cache directory for the user: %v", err)
	}
	sum := sha256.Sum256(packageLock)
	dir := filepath.Join(cache, "millrace", "browser-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err != nil {
		if err := fetch(ctx, npm, dir); err != nil {
			kit.CannotRun(t, "the libraries of the page cannot be fetched: %v", err)
		}
	}
	source := filepath.Join(dir, "main-"+strconv.Itoa(os.Getpid())+".js")
	if err := os.WriteFile(source, mainJS, 0o600); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Remove(source) }()
	build := exec.CommandContext(ctx, npm, "exec", "--offline", "--", "esbuild", filepath.Base(source),
		"--bundle", "--format=esm", "--target=es2022", "--log-level=warning")
	build.Dir = dir
	var out, problems bytes.Buffer
	build.Stdout, build.Stderr = &out, &problems
	if err := build.Run(); err != nil {
		t.Fatalf("bundle the page: %v: %s", err, problems.String())
	}
	return out.Bytes()
}

// fetch installs the locked libraries into a directory, whole or not at all. npm checks their
// hashes. No script of theirs is run.
func fetch(ctx context.Context, npm, dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	part, err := os.MkdirTemp(filepath.Dir(dir), "browser-part-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(part) }()
	for name, content := range map[string][]byte{"package.json": packageJSON, "package-lock.json": packageLock} {
		if err := os.WriteFile(filepath.Join(part, name), content, 0o600); err != nil {
			return err
		}
	}
	install := exec.CommandContext(ctx, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	install.Dir = part
	if out, err := install.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w: %s", err, out)
	}
	if err := os.Rename(part, dir); err != nil && !errors.Is(err, os.ErrExist) {
		if _, gone := os.Stat(filepath.Join(dir, "node_modules")); gone != nil {
			return err
		}
	}
	return nil
}

func descriptors(t *testing.T) []byte {
	t.Helper()
	file := &descriptorpb.FileDescriptorProto{}
	if err := prototext.Unmarshal([]byte(pagesFile), file); err != nil {
		t.Fatal(err)
	}
	set, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{file}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// serve starts a gateway that pages of one origin may call, and returns its URL.
func serve(t *testing.T, set []byte, origin string) string {
	t.Helper()
	o := gateway.Options{Settings: settings.Defaults[gateway.Settings](), Dispatcher: pages{}, App: "browser"}
	o.CORSOrigins, o.CORSCredentials = []string{origin}, true
	catalog, err := discovery.NewCatalog(&cloudstate.EntitySpec{
		Proto: set, ServiceInfo: &cloudstate.ServiceInfo{ProtocolMajorVersion: 0, ProtocolMinorVersion: 2},
		Entities: []*cloudstate.Entity{{EntityType: entities.Action.Spec().Protocol, ServiceName: "browser.v1.Pages", PersistenceId: "Pages"}},
	}, discovery.Options{})
	if err != nil {
		t.Fatal(err)
	}
	lis, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := gateway.New(o)
	if err := server.SetCatalog(catalog); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(lis) }() // Shutdown stops it
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
		defer cancel()
		_ = server.Shutdown(ctx)
		if err := <-served; !errors.Is(err, gateway.ErrClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	return "http://" + lis.Addr().String()
}

// pages is the function behind the gateway.
type pages struct{}

func refused() error {
	return &entities.Error{
		Reason: entities.FunctionRefused, Code: uint32(codes.FailedPrecondition), Outcome: entities.Refused, Message: "100 % zu spät",
	}
}

// Dispatch implements gateway.Dispatcher.
func (pages) Dispatch(ctx context.Context, cmd *entities.Command) (*entities.Reply, error) {
	switch cmd.Method {
	case "Refuse":
		return nil, refused()
	case "Busy":
		return nil, &entities.Error{
			Reason: entities.Overloaded, Outcome: entities.NotApplied, Message: "busy", RetryAfter: 2 * time.Second,
		}
	case "Wait":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &entities.Reply{Payload: cmd.Payload, Token: "token"}, nil
}

// DispatchStream implements gateway.Dispatcher.
func (pages) DispatchStream(_ context.Context, s *entities.Stream) error {
	send := func(payload []byte) error {
		return s.Send(&entities.Reply{
			Payload: entities.Payload{TypeURL: s.Payload.TypeURL, Value: payload}, Token: "token",
		})
	}
	if s.Method == "Fail" {
		if err := send(s.Payload.Value); err != nil {
			return err
		}
		return refused()
	}
	for _, text := range []string{"1", "2", "3"} {
		if err := send([]byte("\x0a\x01" + text)); err != nil {
			return err
		}
	}
	return nil
}

package e2e_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kit"
)

// in runs a command in a folder, which must succeed, and returns what it printed.
func in(t *testing.T, folder, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir, cmd.Env = folder, kit.Environment("GOFLAGS=-mod=readonly")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(program), strings.Join(args, " "), err, out)
	}
	return string(out)
}

// checkout is the folder of this repository.
func checkout(t *testing.T) string {
	t.Helper()
	folder, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return folder
}

// newService writes a module by `millrace new`, and returns its folder.
func newService(t *testing.T, template, name string) string {
	t.Helper()
	dir := t.TempDir()
	in(t, dir, harness.Build(t, harness.Millrace, ""), "new", template, name, "--millrace", checkout(t))
	return filepath.Join(dir, name)
}

// TestNewService: what `millrace new` writes builds, passes its tests, and makes a durable command
// as it is: in one process, and as a function beside `millrace dev`.
func TestNewService(t *testing.T) {
	start := time.Now()
	folder := newService(t, "go", "my-shop")
	in(t, folder, "go", "vet", "./...")
	if formatted := in(t, folder, "gofmt", "-l", "."); formatted != "" {
		t.Errorf("not formatted: %s", formatted)
	}
	in(t, folder, "go", "test", "./...")
	tested := time.Since(start)
	in(t, folder, "go", "build", "-o", filepath.Join("bin", "my-shop"), ".")
	program := filepath.Join(folder, "bin", "my-shop")

	alone := startNewService(t, program, folder)
	alone.receive(t, 3)
	t.Logf("module, vet and tests: %v; and a durable command: %v", tested, time.Since(start))
	if err := alone.process.Kill(); err != nil {
		t.Fatal(err)
	}
	again := startNewService(t, program, folder)
	again.receive(t, 5)
	if status := again.get(t, "http://"+again.admin+"/status"); !strings.Contains(status, `"my-shop"`) {
		t.Errorf("the app is not my-shop: %s", status)
	}

	address := kit.FreeAddress(t)
	remote := harness.Start(t, harness.Options{
		Args: []string{"--function", address}, Function: []string{program, "-remote", address},
	})
	(&service{public: remote.Public()}).receive(t, 2)
}

// TestNewServiceIsGenerated: the generated code of the template is what the pinned plug-ins make of
// its proto file, byte by byte, and they are pinned at the versions that this repository has.
func TestNewServiceIsGenerated(t *testing.T) {
	folder, tools := newService(t, "go", "shop"), filepath.Join(checkout(t), "tools", "go.mod")
	before := generated(t, folder)
	if len(before) != 2 {
		t.Fatalf("%d generated files", len(before))
	}
	plugin := `{"local": ["go", "tool", "-modfile=` + tools + `", "%s"], "out": ".", "opt": ["module=example.com/shop"]}`
	in(t, folder, "go", "tool", "-modfile="+tools, "buf", "generate", "--template", fmt.Sprintf(
		`{"version": "v2", "plugins": [`+plugin+", "+plugin+`], "inputs": [{"directory": "proto"}]}`,
		"protoc-gen-go", "protoc-gen-go-grpc"))
	if after := generated(t, folder); !maps.Equal(before, after) {
		t.Errorf("the generated code of internal/app/scaffold/templates/go is out of date: %v",
			slices.Collect(maps.Keys(after)))
	}
	in(t, folder, "go", "tool", "-modfile="+tools, "buf", "lint")
	pinned, err := os.ReadFile(tools)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"buf.gen.yaml", "Makefile"} {
		text, err := os.ReadFile(filepath.Join(folder, file))
		if err != nil {
			t.Fatal(err)
		}
		between := func(r rune) bool { return strings.ContainsRune(" ,[]\n", r) }
		for _, word := range strings.FieldsFunc(string(text), between) {
			path, version, isPinned := strings.Cut(word, "@v")
			if !isPinned {
				continue
			}
			for path != "." && !strings.Contains(string(pinned), "\t"+path+" v"+version+" ") {
				path = filepath.Dir(path) // the module is above the program
			}
			if path == "." {
				t.Errorf("%s pins %s, which is not the version in tools/go.mod", file, word)
			}
		}
	}
}

// generated returns the generated files of a module.
func generated(t *testing.T, folder string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := fs.WalkDir(os.DirFS(folder), ".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, ".pb.go") {
			return err
		}
		content, err := os.ReadFile(filepath.Join(folder, name))
		found[name] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// service is a running program of a new module.
type service struct {
	process       kit.Process
	public, admin string
}

func startNewService(t *testing.T, program, folder string) *service {
	t.Helper()
	s := &service{public: kit.FreeAddress(t), admin: kit.FreeAddress(t)}
	s.process.Command = kit.Command{
		Program: program, Dir: folder, Env: kit.Environment(), Log: filepath.Join(t.TempDir(), "log"),
		Args: []string{"--listen", s.public, "--admin", s.admin, "--peer", kit.FreeAddress(t)},
	}
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.process.Kill(); err != nil {
			t.Error(err)
		}
	})
	ready := kit.Answers("http://" + s.admin + "/readyz")
	err := s.process.Await(context.WithoutCancel(t.Context()), time.Minute, "ready", ready)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// receive puts items into the stock by HTTP, 3 at first and 2 then, and compares the stock.
func (s *service) receive(t *testing.T, stock int) {
	t.Helper()
	quantity := 3
	if stock != quantity {
		quantity = 2
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.public+"/v1/items/bolt:receive",
		strings.NewReader(fmt.Sprintf(`{"quantity": %d}`, quantity)))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	reply := answer(t, request)
	want := fmt.Sprintf(`"quantity":"%d"`, stock)
	if !strings.Contains(strings.ReplaceAll(reply, " ", ""), want) {
		t.Errorf("reply %s, want %s", reply, want)
	}
}

func (s *service) get(t *testing.T, url string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	return answer(t, request)
}

// answer sends a request, which must succeed, and returns the body of its answer.
func answer(t *testing.T, request *http.Request) string {
	t.Helper()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s, %v: %s", request.Method, request.URL, response.Status, err, body)
	}
	return string(body)
}

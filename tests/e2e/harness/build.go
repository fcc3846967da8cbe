package harness

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/tests/kit"
)

// The programs that tests run, as paths below the module.
const (
	Millrace     = "cmd/millrace"
	Counter      = "examples/counter"
	ShoppingCart = "examples/shoppingcart"
)

// builds are the programs that this test program has built.
var builds = struct { //nolint:gochecknoglobals // one cache for all tests of a program; Main empties it
	mu   sync.Mutex
	dir  string
	done map[string]error
}{done: map[string]error{}}

// Main runs the tests of a package, removes what Build made, and looks for goroutines that are
// still there.
func Main(m *testing.M) {
	kit.HearHangUps()
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if err := os.RemoveAll(builds.dir); err != nil {
			fmt.Fprintln(os.Stderr, "remove the built programs:", err)
		}
		os.Exit(code)
	}))
}

// Build compiles a program and returns its path. It is compiled once for each test program, which
// must have Main as its TestMain. tags are build tags, separated by commas; empty: none.
func Build(t testing.TB, program, tags string) string {
	t.Helper()
	builds.mu.Lock()
	defer builds.mu.Unlock()
	if builds.dir == "" {
		dir, err := os.MkdirTemp("", "millrace-test-") //nolint:usetesting // it outlives the first test that needs it
		if err != nil {
			t.Fatalf("make a directory for programs: %v", err)
		}
		builds.dir = dir
	}
	out := filepath.Join(builds.dir, path.Base(program))
	if tags != "" {
		out += "-" + tags
	}
	err, built := builds.done[out]
	if !built {
		flags := []string{"-tags", tags}
		if kit.Race.Is("1") {
			flags = append(flags, "-race")
		}
		// A build is not cut off with the first test that wants it.
		err = kit.Build(context.WithoutCancel(t.Context()), "", out, program, flags...)
		builds.done[out] = err
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// module is the path of our own module; programs are named from it.
const module = "github.com/millrace-io/millrace"

// The programs that tests run, as paths below the module.
const (
	Millrace     = "cmd/millrace"
	Counter      = "examples/counter"
	ShoppingCart = "examples/shoppingcart"
)

// raceVariable, set to 1, builds the programs with the race detector: slower, and a race fails the test.
const raceVariable = "MILLRACE_E2E_RACE"

// builds are the programs that this test program has built.
var builds = struct { //nolint:gochecknoglobals // one cache for all tests of a program; Main empties it
	mu   sync.Mutex
	dir  string
	done map[string]error
}{done: map[string]error{}}

// Main runs the tests of a package, removes what Build made, and looks for goroutines that are still there.
func Main(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if err := os.RemoveAll(builds.dir); err != nil {
			fmt.Fprintln(os.Stderr, "remove the built programs:", err)
		}
		os.Exit(code)
	}))
}

// Build compiles a program and returns its path. It is compiled once for each test program, which must have Main as its
// TestMain. tags are build tags, separated by commas; empty: none.
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
		err = compile(program, tags, out)
		builds.done[out] = err
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func compile(program, tags, out string) error {
	args := []string{"build", "-o", out, "-tags", tags}
	if os.Getenv(raceVariable) == "1" {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, module+"/"+program)...) //nolint:noctx // our own program; a build is not cut off with the first test that wants it
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", program, err, said)
	}
	return nil
}

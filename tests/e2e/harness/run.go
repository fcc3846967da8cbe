package harness

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/tests/kit"
)

// Result is how a command ended.
type Result struct {
	Code           int
	Stdout, Stderr string
}

// Run runs a command of millrace that ends by itself, in an empty directory, and returns how it
// ended.
func Run(t testing.TB, args ...string) Result {
	t.Helper()
	return run(t, Build(t, Millrace, ""), args...)
}

// Run is Run with the program of the process, which has the commands of millrace.
func (p *Process) Run(t testing.TB, args ...string) Result {
	t.Helper()
	return run(t, p.process.Program, args...)
}

func run(t testing.TB, program string, args ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var stdout, stderr strings.Builder
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = t.TempDir(), kit.Environment(), &stdout, &stderr
	err := cmd.Run()
	result := Result{Code: cmd.ProcessState.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String()}
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && (!exited || ctx.Err() != nil) {
		t.Fatalf("run %v: %v\n%s%s", args, errors.Join(err, ctx.Err()), result.Stdout, result.Stderr)
	}
	return result
}

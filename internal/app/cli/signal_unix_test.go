//go:build unix

package cli

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-io/millrace/tests/kit"
)

// programVariable makes this test binary the program millrace.
const programVariable = "CLI_TEST_PROGRAM"

// millraceProcess starts this test binary as millrace with a command line. The end of file on
// output says that it, and every process that it started, has ended: all of them have the other
// end.
func millraceProcess(t *testing.T, args ...string) (cmd *exec.Cmd, output *os.File) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	output, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(program, args...) //nolint:noctx // ends below
	cmd.Dir, cmd.Env = t.TempDir(), append(os.Environ(), programVariable+"=1", "SHELL_TEST_WORD=counts")
	cmd.Stdout, cmd.Stderr = theirs, theirs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // again, if the test has done so
		_ = output.Close()
	})
	if err := output.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return cmd, output
}

// ending reads what a process prints until it has ended, and returns why it ended. One that does
// not end in time is killed.
func ending(cmd *exec.Cmd, output io.Reader) (string, error) {
	text, err := io.ReadAll(output)
	if err != nil {
		err = errors.Join(err, cmd.Process.Kill())
	}
	return string(text), errors.Join(err, cmd.Wait())
}

// lineWith reads until a line that contains the word, and returns what follows.
func lineWith(t *testing.T, output io.Reader, word string) *bufio.Reader {
	t.Helper()
	lines := bufio.NewReader(output)
	var all strings.Builder
	for {
		line, err := lines.ReadString('\n')
		all.WriteString(line)
		if err != nil {
			t.Fatalf("waiting for %q: %v\n%s", word, err, all.String())
		}
		if strings.Contains(line, word) {
			return lines
		}
	}
}

// ports are flags for ports that are free.
var ports = []string{"--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ephemeral"}

// TestNoSignalLeavesAFunctionBehind: a shell that has started a child stands for a function that
// was started by `go run` or npm. However millrace ends, both end, and with a signal that can be
// handled it ends in order.
func TestNoSignalLeavesAFunctionBehind(t *testing.T) {
	for _, signal := range []syscall.Signal{
		syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGKILL,
	} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			args := slices.Concat([]string{"dev", "--function", kit.FreeAddress(t)}, ports,
				[]string{"--", "sh", "-c", `sleep 1000 & echo the function "$SHELL_TEST_WORD"; wait`})
			cmd, output := millraceProcess(t, args...)
			rest := lineWith(t, output, "the function counts")
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(rest)
			if err != nil {
				t.Fatalf("a process is left: %v\n%s", err, text)
			}
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); signal != syscall.SIGKILL && code != exitOK {
				t.Errorf("exit code %d (%v)\n%s", code, cmd.ProcessState, text)
			}
		})
	}
}

// TestHangUpEndsEveryServerInOrder: closing the terminal of `run`.
func TestHangUpEndsEveryServerInOrder(t *testing.T) {
	cmd, output := millraceProcess(t, append([]string{"run", "--function", kit.FreeAddress(t)}, ports...)...)
	rest := lineWith(t, output, "waiting for the user function")
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if text, err := ending(cmd, rest); err != nil || !strings.Contains(text, "shutting down (hangup)") {
		t.Errorf("%v\n%s", err, text)
	}
}

// TestNohupOutlivesTheTerminal: a process that was started with SIGHUP ignored goes on.
func TestNohupOutlivesTheTerminal(t *testing.T) {
	if _, err := exec.LookPath("nohup"); err != nil {
		t.Fatal("this test needs nohup, of POSIX: ", err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	output, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	cmd := exec.CommandContext(t.Context(), "nohup",
		append([]string{program, "run", "--function", kit.FreeAddress(t)}, ports...)...)
	cmd.Dir, cmd.Env = t.TempDir(), append(os.Environ(), programVariable+"=1")
	cmd.Stdout, cmd.Stderr = theirs, theirs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	rest := lineWith(t, output, "waiting for the user function")
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM} {
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := ending(cmd, rest); err != nil || !strings.Contains(text, "shutting down (terminated)") {
		t.Errorf("%v\n%s", err, text)
	}
}

// TestClosedPipeEndsInOrder: when the reader of its output has gone, as after Ctrl-C on
// `millrace dev | tee file`, millrace is not ended in the middle of its shutdown.
func TestClosedPipeEndsInOrder(t *testing.T) {
	cmd, output := millraceProcess(t, append([]string{"run", "--function", kit.FreeAddress(t)}, ports...)...)
	lineWith(t, output, "waiting for the user function")
	if err := output.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if runtime.GOOS == "linux" && cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() { //nolint:forcetypeassert // on every Unix
		t.Errorf("it was ended by a signal: %v", cmd.ProcessState)
	}
}

// TestABrokenConnectionEndsNoServer: the signal that comes with each is none to shut down for.
func TestABrokenConnectionEndsNoServer(t *testing.T) {
	cmd, output := millraceProcess(t, append([]string{"run", "--function", kit.FreeAddress(t)}, ports...)...)
	lineWith(t, output, "waiting for the user function")
	for _, signal := range []os.Signal{syscall.SIGPIPE, syscall.SIGTERM} {
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
	}
	lineWith(t, output, "shutting down (terminated)")
	if err := output.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

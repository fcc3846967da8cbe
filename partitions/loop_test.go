package partitions

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestPanicOfATurnEndsTheProcess lets a caller's turn panic in a separate process, below a function
// that recovers.
func TestPanicOfATurnEndsTheProcess(t *testing.T) {
	const child = "MILLRACE_TEST_PANIC"
	if os.Getenv(child) != "" {
		defer func() { _ = recover() }()
		l := &loop{mail: newMailbox()}
		l.mail.take(nil, false) // the loop is idle
		l.submit(message{input: inSubmitted{}})
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$") //nolint:noctx // this very test
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "(*loop).turn") {
		t.Errorf("the process ended with %v and said: %s", err, out)
	}
}

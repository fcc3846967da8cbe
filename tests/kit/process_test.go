package kit_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-io/millrace/internal/leaktest"
	"github.com/millrace-io/millrace/tests/kit"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// shell is a process that runs a line of shell.
func shell(t *testing.T, line string) *kit.Process {
	t.Helper()
	p := &kit.Process{Command: kit.Command{
		Program: "/bin/sh", Args: []string{"-c", line}, Log: filepath.Join(t.TempDir(), "log"),
	}}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Kill() })
	return p
}

// wrote asks whether a process has written a word.
func wrote(p *kit.Process, word string) func(context.Context) error {
	return func(context.Context) error {
		if text, err := p.Output(); err != nil || !strings.Contains(text, word) {
			return errors.New("not yet")
		}
		return nil
	}
}

// TestProcessEndsInOrder asks a process to end, and reads what it wrote and its exit code.
func TestProcessEndsInOrder(t *testing.T) {
	p := shell(t, `trap 'echo bye; exit 3' TERM; echo here; while :; do sleep 0.01; done`)
	if err := p.Await(t.Context(), kit.Patience, "there", wrote(p, "here")); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err == nil || !strings.Contains(err.Error(), "still runs") {
		t.Errorf("started while it runs: %v", err)
	}
	if err := p.Stop(kit.Patience); err != nil || p.ExitCode() != 3 || !strings.HasSuffix(p.Tail(), "bye\n") {
		t.Errorf("it ended with %v, exit code %d, and wrote %q", err, p.ExitCode(), p.Tail())
	}
}

// TestProcessThatDoesNotEndIsKilled has a process that ignores the request to stop.
func TestProcessThatDoesNotEndIsKilled(t *testing.T) {
	p := shell(t, `trap '' TERM; echo here; while :; do sleep 0.01; done`)
	if err := p.Await(t.Context(), kit.Patience, "there", wrote(p, "here")); err != nil {
		t.Fatal(err)
	}
	err := p.Stop(time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "here") || !p.Ended() || p.ExitCode() != -1 {
		t.Errorf("the stop says %v, ended: %v", err, p.Ended())
	}
	if err := p.Start(); err != nil || p.Signal(syscall.Signal(0)) != nil {
		t.Errorf("started again: %v", err)
	}
}

// TestAwaitTellsHowAProcessEnded waits for a process that ends, and for one that takes too long.
func TestAwaitTellsHowAProcessEnded(t *testing.T) {
	never := func(context.Context) error { return errors.New("not yet") }
	p := shell(t, `echo no luck; exit 2`)
	if err := p.Await(t.Context(), kit.Patience, "ready", never); err == nil || !strings.Contains(err.Error(), "ended (exit status 2) before it was ready:\nno luck") {
		t.Errorf("it ended: %v", err)
	}
	p = shell(t, `sleep 60`)
	if err := p.Await(t.Context(), time.Millisecond, "ready", never); err == nil || !strings.Contains(err.Error(), "is not ready after 1ms: not yet") {
		t.Errorf("it takes long: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Await(ctx, kit.Patience, "ready", never); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

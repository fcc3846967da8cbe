package kafkaserver

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestBackground keeps one broker over several openings, as separate runs of the command do.
func TestBackground(t *testing.T) {
	Require(t)
	dir := t.TempDir()
	if _, err := (&Background{dir: dir}).Stop(); !errors.Is(err, ErrNotRunning) {
		t.Fatalf("stop without a start: %v", err)
	}
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	started, err := (&Background{dir: dir}).Start(t.Context(), ports[0], "")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := (&Background{dir: dir}).State(); err != nil || again != started {
		t.Errorf("state is %+v (%v), started %+v", again, err, started)
	}
	if _, err := (&Background{dir: dir}).Start(t.Context(), ports[0], ""); err == nil {
		t.Error("a second broker was started beside the first")
	}
	if _, err := (&Background{dir: dir}).Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := (&Background{dir: dir}).State(); !errors.Is(err, ErrNotRunning) {
		t.Errorf("after stop: %v", err)
	}
}

// TestBackgroundDied removes what a dead broker has left behind.
func TestBackgroundDied(t *testing.T) {
	b := &Background{dir: t.TempDir()}
	stale := []byte(`{"pid":2147483646,"addr":"127.0.0.1:1","data":"x"}`)
	if err := os.WriteFile(b.file(), stale, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.State(); !errors.Is(err, ErrNotRunning) {
		t.Fatalf("state of a dead process: %v", err)
	}
	if exists(filepath.Join(b.dir, "kafka.pid")) {
		t.Error("the stale file is still there")
	}
}

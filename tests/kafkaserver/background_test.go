package kafkaserver

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"
	"time"
)

// TestBackground keeps one broker over several openings, as separate runs of the command do.
func TestBackground(t *testing.T) { testBackground(t, 1) }

// TestBackgroundCluster does so with three.
func TestBackgroundCluster(t *testing.T) { testBackground(t, 3) }

func testBackground(t *testing.T, brokers int) {
	t.Helper()
	Require(t)
	b := Background{dir: t.TempDir(), brokers: brokers}
	opened := func() *Background { again := b; return &again }
	if _, err := opened().Stop(); !errors.Is(err, ErrNotRunning) {
		t.Fatalf("stop without a start: %v", err)
	}
	started, err := opened().Start(t.Context(), 0, "")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := opened().State(); err != nil || !reflect.DeepEqual(again, started) || len(again.PIDs) != brokers {
		t.Errorf("state is %+v (%v), started %+v", again, err, started)
	}
	if _, err := opened().Start(t.Context(), 0, ""); err == nil {
		t.Error("a second broker was started")
	}
	if brokers > 1 {
		if err := send(started.PIDs[0], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for alive(started.PIDs[0]) {
			<-time.After(pollPause)
		}
		if _, err := opened().State(); err == nil || errors.Is(err, ErrNotRunning) {
			t.Errorf("one broker of %d has died, and the state is %v", brokers, err)
		}
	}
	if _, err := opened().Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := opened().State(); !errors.Is(err, ErrNotRunning) {
		t.Errorf("after stop: %v", err)
	}
}

// TestBackgroundDied: the file of a dead broker is removed.
func TestBackgroundDied(t *testing.T) {
	b := &Background{dir: t.TempDir()}
	stale := []byte(`{"pids":[2147483646],"addrs":["127.0.0.1:1"],"data":"x"}`)
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

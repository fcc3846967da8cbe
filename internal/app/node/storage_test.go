package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker-adapter/embedded"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/pebblestore"
)

var errFull = errors.New("no space left on device")

// startedWith starts a node with a loop of the test in the place of the real ones, and waits until
// it owns its partitions.
func startedWith(t *testing.T, l func(*Node) loop) *Node {
	t.Helper()
	n := newNode(Options{Config: testConfig(t), Local: local(t, "counter")})
	ctx := context.WithoutCancel(t.Context())
	if err := n.open(ctx); err != nil {
		t.Fatal(errors.Join(err, n.close()))
	}
	n.loops = []loop{l(n)}
	n.run(ctx)
	t.Cleanup(func() { end(t, n) })
	awaitReady(t, n)
	return n
}

// A log or a store that cannot be written makes the node unready, and status and metrics show it.
// The test's own loop replaces the real one before the first request.
func TestFullDiskIsShown(t *testing.T) {
	at := time.Unix(1700000000, 0)
	for name, ill := range map[string]func(*Node) loop{
		"log": func(*Node) loop {
			return logLoop(func() embedded.Stats {
				return embedded.Stats{State: embedded.StateFailed, LastError: errFull, LastErrorTime: at}
			})
		},
		"store": func(n *Node) loop {
			return n.storeLoop(func() pebblestore.Stats { return pebblestore.Stats{Failure: errFull} })
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := startedWith(t, ill)
			if err := n.NotReady(); !errors.Is(err, errFull) ||
				!strings.Contains(err.Error(), "the "+name+" cannot be written") {
				t.Errorf("not ready because: %v", err)
			}
			if code, body := page(t, n, "/readyz"); code != http.StatusServiceUnavailable ||
				!strings.Contains(body, errFull.Error()) {
				t.Errorf("/readyz: %d, %s", code, body)
			}
			if task := taskOf(t, n, name); task.GetState() != "retrying" || task.GetLastError() != errFull.Error() {
				t.Errorf("the status shows %v", task)
			}
			_, scrape := page(t, n, "/metrics")
			mustContain(t, "the scrape", scrape, "millrace_node_ready_state 0", fmt.Sprintf("millrace_node_loop_healthy{loop=%q} 0", name))
		})
	}
}

// What is over stays in the status with its time, and does not affect readiness.
func TestWhatWentWrongBeforeIsRemembered(t *testing.T) {
	at := time.Unix(1700000000, 0)
	n := startedWith(t, func(*Node) loop {
		return logLoop(func() embedded.Stats {
			return embedded.Stats{State: embedded.StateReady, LastError: errFull, LastErrorTime: at}
		})
	})
	task := taskOf(t, n, "log")
	if task.GetState() != "running" || task.GetLastError() != errFull.Error() ||
		!task.GetLastErrorTime().AsTime().Equal(at) || n.NotReady() != nil {
		t.Errorf("the status shows %v, ready: %v", task, n.NotReady())
	}
}

// TestDamageFoundInUseEndsTheNodeAndTheNextRebuilds: what is damaged can neither be read nor
// written over, so that only a new start helps, which must not trust the files although they can be
// opened.
func TestDamageFoundInUseEndsTheNodeAndTheNextRebuilds(t *testing.T) {
	config := testConfig(t)
	n, err := Start(t.Context(), Options{Config: config, Local: local(t, "counter")})
	if err != nil {
		t.Fatal(err)
	}
	awaitReady(t, n)
	n.spoil(errFull) // may pass
	n.spoil(fmt.Errorf("block 7: %w (%w)", materializer.ErrCorrupt, pebblestore.ErrEnded))
	n.spoil(fmt.Errorf("block 8: %w (%w)", materializer.ErrCorrupt, pebblestore.ErrEnded))
	if err := n.Wait(); !errors.Is(err, materializer.ErrCorrupt) || !strings.Contains(err.Error(), "restart") {
		t.Fatalf("the node ended with %v", err)
	}
	old := filepath.Join(n.storeDirectory(), "old")
	if err := os.WriteFile(old, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n = started(t, Options{Config: config, Local: local(t, "counter")})
	for _, file := range []string{old, n.spoiledMark()} {
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", file, err)
		}
	}
	if task := taskOf(t, n, "store"); !strings.Contains(task.GetLastError(), "rebuilt from the log") {
		t.Errorf("the status shows %v", task)
	}
}

// TestStoreThatHasFailedEndsTheNode: a store whose disk was full at the wrong moment takes no
// writes until it is opened again.
func TestStoreThatHasFailedEndsTheNode(t *testing.T) {
	n, err := Start(t.Context(), Options{Config: testConfig(t), Local: local(t, "counter")})
	if err != nil {
		t.Fatal(err)
	}
	awaitReady(t, n)
	n.spoil(fmt.Errorf("%w (%w)", errFull, pebblestore.ErrEnded))
	if err := n.Wait(); !errors.Is(err, errFull) || !strings.Contains(err.Error(), "restart") {
		t.Errorf("the node ended with %v", err)
	}
	if _, err := os.Stat(n.spoiledMark()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing is damaged, and the mark is there: %v", err)
	}
}

// unreadable is a store whose rows are damaged.
type unreadable struct{ materializer.Store }

func (unreadable) Get([]byte) ([]byte, error) {
	return nil, fmt.Errorf("get: %w", materializer.ErrCorrupt)
}

// TestDamageThatTheStartFinds: a start that reads a damaged row, before anything is served, leaves
// a mark for the next one, which rebuilds the store.
func TestDamageThatTheStartFinds(t *testing.T) {
	n := newNode(Options{Config: testConfig(t)})
	n.topic.Partitions, n.store = 1, unreadable{}
	if err := os.MkdirAll(n.config.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := n.storedLayout()
	if err == nil || !strings.Contains(err.Error(), "restart, and it is rebuilt from the log") {
		t.Errorf("the start ends with %v; want what to do", err)
	}
	if _, err := os.Stat(n.spoiledMark()); err != nil {
		t.Errorf("the next start does not know of the damage: %v", err)
	}
}

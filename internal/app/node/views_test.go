package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/pebblestore"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// viewsOf opens the views of a node.
func viewsOf(t *testing.T, n *Node) materializer.Store {
	t.Helper()
	store, err := n.views.Open()
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// keepRow writes a row to the views, durably.
func keepRow(t *testing.T, store materializer.Store) {
	t.Helper()
	b := store.NewBatch()
	if err := errors.Join(b.Put([]byte("row"), []byte("v")), b.Commit(), b.Close(), store.Flush()); err != nil {
		t.Fatal(err)
	}
}

// wantRow fails unless the row is in the views, or is not.
func wantRow(t *testing.T, store materializer.Store, want bool) {
	t.Helper()
	if value, err := store.Get([]byte("row")); err != nil || (value != nil) != want {
		t.Errorf("the row is %q (%v), want one: %v", value, err, want)
	}
}

// TestViewsAreOpenedOnDemand: without projections there is no store for them, in no place that a
// user sees.
func TestViewsAreOpenedOnDemand(t *testing.T) {
	n := started(t, Options{Local: local(t, "counter")})
	increment(t, n, "a")
	if _, err := os.Stat(n.viewsDirectory()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is there: %v", n.viewsDirectory(), err)
	}
	if slices.ContainsFunc(n.Status(t.Context()).GetTasks(),
		func(task *adminv1.TaskStatus) bool { return task.GetName() == loopViews }) {
		t.Error("the status shows the views")
	}
	const ofStore, ofViews = `{store="store"}`, `{store="views"}`
	_, scrape := page(t, n, "/metrics")
	mustContain(t, "the scrape", scrape, "millrace_pebblestore_commits_total"+ofStore)
	if strings.Contains(scrape, "views\"}") {
		t.Error("the scrape has views")
	}

	keepRow(t, viewsOf(t, n))
	if viewsOf(t, n) != viewsOf(t, n) {
		t.Error("the views are opened twice")
	}
	if state := taskOf(t, n, loopViews).GetState(); state != "running" {
		t.Errorf("the status says that the views are %s", state)
	}
	_, scrape = page(t, n, "/metrics")
	mustContain(t, "the scrape", scrape, "millrace_pebblestore_commits_total"+ofStore,
		"millrace_pebblestore_commits_total"+ofViews+" 1", `millrace_node_loop_healthy{loop="views"} 1`)
	end(t, n)
	if _, err := n.views.Open(); !errors.Is(err, errStopping) {
		t.Errorf("views of a node that has ended: %v", err)
	}
}

// TestViewsCanBeDeleted: the state does not depend on them, whatever happens to their files.
func TestViewsCanBeDeleted(t *testing.T) {
	for _, tc := range []struct {
		name    string
		spoil   func(views string) error
		wantRow bool
		noted   string
	}{
		{name: "a stop", spoil: func(string) error { return nil }, wantRow: true},
		{name: "deleted", spoil: os.RemoveAll},
		{name: "damaged", noted: "they were damaged and are built again from the log", spoil: func(views string) error {
			manifests, err := filepath.Glob(filepath.Join(views, "MANIFEST-*"))
			for _, m := range manifests {
				err = errors.Join(err, os.WriteFile(m, []byte("not what it was"), 0o600))
			}
			return err
		}},
		{name: "a file in their place", spoil: func(views string) error {
			return errors.Join(os.RemoveAll(views), os.WriteFile(views, nil, 0o600))
		}, noted: "not a directory"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := testConfig(t)
			n := started(t, Options{Config: c, Local: local(t, "counter")})
			increment(t, n, "a")
			keepRow(t, viewsOf(t, n))
			end(t, n)
			if err := tc.spoil(n.viewsDirectory()); err != nil {
				t.Fatal(err)
			}
			n = started(t, Options{Config: c, Local: local(t, "counter")})
			store, err := n.views.Open()
			if noted := n.troubles.of(loopViews).err; (noted == nil) != (tc.noted == "") ||
				noted != nil && !strings.Contains(noted.Error(), tc.noted) {
				t.Errorf("noted is %v, want %q", noted, tc.noted)
			}
			switch {
			case err == nil:
				wantRow(t, store, tc.wantRow)
				keepRow(t, store)
				wantRow(t, viewsOf(t, n), true)
			case tc.noted != "not a directory":
				t.Errorf("the views are not opened: %v", err)
			}
			if got := increment(t, n, "a"); got != 2 || n.NotReady() != nil {
				t.Errorf("the counter stands at %d, want 2; ready: %v", got, n.NotReady())
			}
		})
	}
}

// TestViewsThatFailInUseLeaveTheNode: commands go on, the status says why the views do not, and the
// next who wants them gets a store that can be used: the same rows after a disk error, none after
// damage.
func TestViewsThatFailInUseLeaveTheNode(t *testing.T) {
	for name, test := range map[string]struct {
		failure error
		wantRow bool
	}{
		"disk":   {fmt.Errorf("write manifest: %w (%w)", errFull, pebblestore.ErrEnded), true},
		"damage": {fmt.Errorf("block 7: %w (%w)", materializer.ErrCorrupt, pebblestore.ErrEnded), false},
	} {
		t.Run(name, func(t *testing.T) {
			n := started(t, Options{Local: local(t, "counter")})
			store := viewsOf(t, n)
			keepRow(t, store)
			fail := n.views.optionsOf(n.views.now.Load()).OnFailure
			fail(errFull) // may pass
			if viewsOf(t, n) != store {
				t.Error("the views were opened again after an error that may pass")
			}
			fail(test.failure)
			if got := taskOf(t, n, loopViews).GetLastError(); got != test.failure.Error() {
				t.Errorf("the status says %q of the views", got)
			}
			if got := increment(t, n, "a"); got != 1 || n.NotReady() != nil {
				t.Errorf("the counter stands at %d, want 1; ready: %v", got, n.NotReady())
			}
			again := viewsOf(t, n)
			if again == store {
				t.Error("the views were not opened again")
			}
			wantRow(t, again, test.wantRow)
			if _, err := store.Get([]byte("row")); !errors.Is(err, fs.ErrClosed) {
				t.Errorf("the store from before: %v", err)
			}
		})
	}
}

// TestViewsOfAnEphemeralNode are in memory.
func TestViewsOfAnEphemeralNode(t *testing.T) {
	c := testConfig(t)
	c.Ephemeral = true
	n := started(t, Options{Config: c, Local: local(t, "counter")})
	keepRow(t, viewsOf(t, n))
	wantRow(t, viewsOf(t, n), true)
	if entries, err := os.ReadDir(c.Data); err != nil || len(entries) != 0 {
		t.Errorf("the data directory has %v (%v)", entries, err)
	}
}

package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	shopv1 "github.com/millrace-io/millrace/examples/shoppingcart/shop/v1"
	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kit"
)

// namespace returns a wrapper that runs a command after a shell line, in a mount namespace of its
// own: what the line mounts is gone with the process. $0 in the line is dir. Where the system
// forbids that, the test is skipped, and fails with CI=true.
func namespace(t *testing.T, line, dir string) []string {
	t.Helper()
	wrapper := []string{"unshare", "--user", "--map-root-user", "--mount", "sh", "-c", line + ` && exec "$@"`, dir}
	if said, err := exec.CommandContext(t.Context(), wrapper[0],
		append(wrapper[1:], "true")...).CombinedOutput(); err != nil {
		kit.CannotRun(t, "no mount of our own is possible (%v): %s", err, said)
	}
	return wrapper
}

// TestDirectoryThatCannotBeWrittenIsNamed mounts the data directory read-only, which stops root
// too.
func TestDirectoryThatCannotBeWrittenIsNamed(t *testing.T) {
	dir := t.TempDir()
	p := harness.Launch(t, harness.Options{Data: dir, Wrapper: namespace(t, `mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"`, dir)})
	if code := p.AwaitExit(t); code != exitError {
		t.Errorf("the process ended with %d, want %d", code, exitError)
	}
	contains(t, p.Output(t), dir, "read-only file system", "--data")
}

// diskBytes is the size of the disk that is filled; the log starts with a few hundred KiB.
const diskBytes = 48 << 20

// TestFullDiskIsNamedAndServesAgainWhenThereIsRoom fills the disk below a worker. Commands fail by
// name; what was answered before is there after, and what was refused is not there twice.
func TestFullDiskIsNamedAndServesAgainWhenThereIsRoom(t *testing.T) {
	dir := t.TempDir()
	p := harness.Start(t, harness.Options{
		Data:    filepath.Join(dir, "data"),
		Wrapper: namespace(t, fmt.Sprintf(`mount -t tmpfs -o size=%d none "$0"`, diskBytes), dir),
	})
	filler := filepath.Join("/proc", fmt.Sprint(p.PID()), "root", dir, "filler") // the disk is there only for the process
	carts := shopv1.NewCartServiceClient(p.Dial(t))
	name := strings.Repeat("n", 64<<10) // the log has some room of its own, which is soon used up
	add := func(item string) error {
		_, err := carts.AddItem(t.Context(), &shopv1.AddItemRequest{CartId: "full", ItemId: item, Name: name, Quantity: 1})
		return err
	}
	if err := add("before"); err != nil {
		t.Fatal(err)
	}
	kit.FillDisk(t, filler)

	var refused error
	added := []string{"before"}
	kit.Await(t, "a command that finds no room", func() bool {
		item := fmt.Sprintf("during-%d", len(added))
		if refused = add(item); refused == nil {
			added = append(added, item)
		}
		return refused != nil
	})
	says(t, refused, codes.Unavailable, "no space left", dir)

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	kit.Await(t, "the worker to serve again", func() bool {
		err := add("after")
		if err != nil && status.Code(err) != codes.Unavailable {
			t.Errorf("while the worker recovers: %v", err)
		}
		return err == nil
	})
	cart, err := carts.GetCart(t.Context(), &shopv1.GetCartRequest{CartId: "full"})
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]int32{}
	for _, item := range cart.GetItems() {
		there[item.GetItemId()] = item.GetQuantity()
	}
	for _, item := range added {
		if there[item] != 1 {
			t.Errorf("%s was added once and is there %d times", item, there[item])
		}
	}
	newAccount(p.Dial(t)).add(t)
}

package partitions

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/partitions/core"
)

// unreadable is a store whose reads fail from some moment on.
type unreadable struct {
	materializer.Store

	broken atomic.Bool
}

func (u *unreadable) Get(key []byte) ([]byte, error) {
	if u.broken.Load() {
		return nil, materializer.ErrCorrupt
	}
	return u.Store.Get(key)
}

func (u *unreadable) Scan(lower, upper []byte, yield func(key, value []byte) bool) error {
	if u.broken.Load() {
		return materializer.ErrCorrupt
	}
	return u.Store.Scan(lower, upper, yield)
}

// TestWhatCannotBeLoadedWasNotApplied: no command has run on an entity that cannot be loaded, so
// its caller gets "not applied".
func TestWhatCannotBeLoadedWasNotApplied(t *testing.T) {
	store := &unreadable{Store: memstore.New()}
	f := start(t, setup{world: alone, store: store})
	f.await(core.Active)
	store.broken.Store(true)
	a := f.submit(command("a", "add x"))
	f.wantError(a, entities.Unavailable, entities.NotApplied)
	if !errors.Is(a.err, materializer.ErrCorrupt) || !strings.Contains(a.err.Error(), "words/a") {
		t.Errorf("the caller is told %v", a.err)
	}
	store.broken.Store(false)
	f.want(f.submit(command("a", "add y")), "y")
}

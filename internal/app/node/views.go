package node

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/materializer/pebblestore"
)

const (
	loopViews = "views"

	viewsMemTableBytes = 32 << 20
	// viewsMinFreeBytes is what views leave of the disk to the store and the log, which commands need.
	// What views have in memory by then, four memtables and a compaction, fits several times.
	viewsMinFreeBytes = 512 << 20
)

// views is the store of projections, in a directory of its own. It is opened when there is
// something to project; without that there is none. Nothing that happens to it ends the node or
// makes it unready, and its rows can be built again from the journal: a store that is damaged is
// deleted.
type views struct {
	node   *Node
	dir    string
	cache  *pebblestore.Cache
	memory *memstore.Store // of an ephemeral node, instead of all else

	opening sync.Mutex // held while now changes
	closed  bool
	now     atomic.Pointer[openViews] // nil while none is open
}

// openViews is one opening of the store.
type openViews struct {
	*pebblestore.Store

	ended atomic.Pointer[error] // why it must be opened again
}

func (n *Node) viewsDirectory() string { return filepath.Join(n.config.Data, loopViews) }

// Open returns the store, which it opens if it is not open or cannot be used any more. Those who
// get pebblestore.ErrEnded or materializer.ErrCorrupt of the store call Open again. It may be
// called from any goroutine.
func (v *views) Open() (materializer.Store, error) {
	v.opening.Lock()
	defer v.opening.Unlock()
	if v.closed {
		return nil, errStopping
	}
	if v.memory != nil {
		return v.memory, nil
	}
	var damage error
	if open := v.now.Load(); open != nil {
		ended := open.ended.Load()
		if ended == nil {
			return open.Store, nil
		}
		if errors.Is(*ended, materializer.ErrCorrupt) {
			damage = *ended
		}
		v.now.Store(nil)
		_ = open.Close() // says again why it has ended
	}
	next := &openViews{}
	store, err := openOrReplace(v.optionsOf(next), damage, v.tellDamage)
	if err != nil {
		v.node.troubles.note(loopViews, err)
		return nil, v.node.inUse(err)
	}
	next.Store = store
	v.now.Store(next)
	return store, nil
}

func (v *views) optionsOf(open *openViews) pebblestore.Options {
	return pebblestore.Options{
		Dir: v.dir, Cache: v.cache, Compactions: 1, MemTableBytes: viewsMemTableBytes, MinFreeBytes: viewsMinFreeBytes,
		OnFailure: func(err error) {
			v.node.troubles.note(loopViews, err)
			v.node.logger.Error("the views refuse writes; commands go on", observe.Path, v.dir, observe.Error, err)
			if errors.Is(err, pebblestore.ErrEnded) {
				open.ended.Store(&err)
			}
		},
		OnWarning: func(message string) { v.node.logger.Warn("views", observe.Path, v.dir, observe.Error, message) },
	}
}

func (v *views) tellDamage(err error) {
	v.node.troubles.note(loopViews, fmt.Errorf("they were damaged and are built again from the log: %w", err))
	v.node.logger.Warn("the views are damaged and are built again from the log", observe.Path, v.dir, observe.Error, err)
}

// Close closes the store for good.
func (v *views) Close() error {
	v.opening.Lock()
	defer v.opening.Unlock()
	v.closed = true
	if open := v.now.Swap(nil); open != nil {
		return open.Close()
	}
	return nil
}

// loop shows the views among what works below the tasks; ok is false while they are not open.
func (v *views) loop() (l loop, ok bool) {
	open := v.now.Load()
	if open == nil {
		return loop{}, false
	}
	return loop{
		name:    loopViews,
		failure: func() error { return open.Stats().Failure },
		last: func() (time.Time, error) {
			t := v.node.troubles.of(loopViews)
			return t.at, t.err
		},
	}, true
}

// shownLoops are those that affect readiness, and the views.
func (n *Node) shownLoops() []loop {
	if l, ok := n.views.loop(); ok {
		return append(slices.Clip(n.loops), l)
	}
	return n.loops
}

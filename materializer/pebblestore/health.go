package pebblestore

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/millrace-io/millrace/materializer"
)

// health knows whether Pebble can keep what it is given. Pebble reports from the background, with
// its own lock held, so nothing here waits for it or calls it.
type health struct {
	dir       string
	onFailure func(error)
	onWarning func(string)

	refused atomic.Pointer[error] // what writes are refused with; nil while all is well

	mu sync.Mutex
	// What is wrong: with files or the manifest, until the store is opened again; with the last
	// flush; with the last compaction. Pebble repeats the last two until they succeed.
	final, flush, compaction error
	lastFlush                error         // of the last FlushEnd
	flushFailed              chan struct{} // closed when a flush fails or the end has come, then replaced

	ended     chan struct{} // closed when final is set
	abandoned atomic.Bool   // calls no longer wait for Pebble
}

func (h *health) init(o Options) {
	h.dir, h.onFailure, h.onWarning = o.Dir, o.OnFailure, o.OnWarning
	h.flushFailed, h.ended = make(chan struct{}), make(chan struct{})
}

// refusal returns the error that a write must be refused with, or nil.
func (h *health) refusal() error {
	if err := h.refused.Load(); err != nil {
		return *err
	}
	return nil
}

// flushState returns a channel that is closed when the next flush fails, and the error that
// prevents one now.
func (h *health) flushState() (failed <-chan struct{}, final, transient error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.flushFailed, h.final, h.flush
}

// change lets update record a failure or a success, and calls OnFailure when writes begin to be
// refused or the store has ended.
func (h *health) change(update func()) {
	h.mu.Lock()
	ended, refused := h.final != nil, h.refused.Load() != nil
	update()
	var now error
	for _, err := range []error{h.compaction, h.flush, h.final} { // the most serious last
		if err != nil {
			now = err
		}
	}
	if now == nil {
		h.refused.Store(nil)
	} else {
		h.refused.Store(&now)
	}
	tell := now != nil && (!refused || h.final != nil && !ended)
	h.mu.Unlock()
	if tell {
		h.onFailure(now)
	}
}

// end notes an error after which the store must be opened again, or even rebuilt.
func (h *health) end(err error) {
	h.change(func() {
		if h.final == nil {
			h.final = fmt.Errorf("%w (%w)", h.explain("write", err), ErrEnded)
			close(h.ended)
		}
		h.wakeFlushers()
	})
}

// flushed notes that a flush has succeeded.
func (h *health) flushed() {
	h.change(func() { h.flush = nil })
}

// wakeFlushers is called with h.mu held.
func (h *health) wakeFlushers() {
	close(h.flushFailed)
	h.flushFailed = make(chan struct{})
}

// explain adds to an error of Pebble which store it is about, and what to do when files are
// damaged.
func (h *health) explain(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case isDamage(err):
		return damaged(h.dir, doing, err)
	default:
		return fmt.Errorf("store %s: %s: %w", h.dir, doing, err)
	}
}

func damaged(dir, doing string, err error) error {
	return fmt.Errorf("store %s: %s: %w: %w; delete the directory, it is rebuilt from the log", dir, doing,
		materializer.ErrCorrupt, err)
}

// isDamage reports whether a file is not what Pebble wrote, or gone.
func isDamage(err error) bool { return pebble.IsCorruptionError(err) || errors.Is(err, fs.ErrNotExist) }

// isDiskError reports whether the operating system reported the error.
func isDiskError(err error) bool {
	_, ok := errors.AsType[syscall.Errno](err)
	return ok
}

// listener receives Pebble's events.
func (h *health) listener() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: h.backgroundError,
		DataCorruption:  func(info pebble.DataCorruptionInfo) { h.end(info.Details) },
		FlushEnd:        h.flushEnd,
		CompactionEnd:   h.compactionEnd,
		WriteStallBegin: func(info pebble.WriteStallBeginInfo) { h.onWarning("commits wait: " + info.Reason) },
		WriteStallEnd:   func() { h.onWarning("commits go on") },
	}
}

// flushEnd only stores an error: Pebble also reports one for a flush that had nothing to write, and
// repeats those that count as a backgroundError.
func (h *health) flushEnd(info pebble.FlushInfo) {
	h.change(func() {
		if h.lastFlush = info.Err; info.Err == nil {
			h.flush = nil
		}
	})
}

func (h *health) compactionEnd(info pebble.CompactionInfo) {
	if errors.Is(info.Err, pebble.ErrCancelledCompaction) {
		return
	}
	h.change(func() { h.compaction = h.explain("compact", info.Err) })
}

func (h *health) backgroundError(err error) {
	if h.abandoned.Load() {
		select {} // Pebble would try again at once, forever
	}
	if _, final, _ := h.flushState(); final != nil {
		return // already reported, and Pebble repeats it without pause
	}
	h.onWarning(fmt.Sprintf("background work: %v", err))
	if isDamage(err) {
		h.end(err)
		return
	}
	h.change(func() {
		if h.lastFlush != nil && errors.Is(err, h.lastFlush) {
			h.flush = h.explain("flush", err)
			h.wakeFlushers()
		}
	})
}

// logger takes Pebble's log lines.
type logger struct{ health *health }

// Infof drops the line: what counts is in Stats.
func (logger) Infof(string, ...any) {}

// Errorf passes the line on.
func (l logger) Errorf(format string, args ...any) { l.health.onWarning(fmt.Sprintf(format, args...)) }

// Fatalf is called by Pebble where it expects the process to end. An error of the disk while it
// writes its manifest only ends the use of this store: Pebble returns the error upwards and has not
// changed what readers see. Anything else is a broken invariant of Pebble, after which nothing it
// writes can be trusted.
func (l logger) Fatalf(format string, args ...any) {
	for _, arg := range args {
		if err, ok := arg.(error); ok && (isDiskError(err) || isDamage(err)) {
			l.health.end(err)
			return
		}
	}
	panic(fmt.Sprintf("store %s: pebble: %s", l.health.dir, fmt.Sprintf(format, args...)))
}

// retryRest is how long background work waits before it tries again what has just failed.
const retryRest = 200 * time.Millisecond

// restingFS makes Pebble wait before it creates a file while the disk takes no writes. Without the
// pause it would try again at once, forever.
type restingFS struct {
	vfs.FS

	health  *health
	closing <-chan struct{} // closed when the store closes: pauses end
}

// Create makes a file, after a pause while writes fail.
func (r restingFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if r.health.refusal() != nil {
		rest := time.NewTimer(retryRest)
		defer rest.Stop()
		select {
		case <-rest.C:
		case <-r.closing:
		}
	}
	return r.FS.Create(name, category)
}

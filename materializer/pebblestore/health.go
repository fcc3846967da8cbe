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

	"github.com/millrace-io/millrace/materializer"
)

// diskFullPause is how long Pebble's background work rests before it tries a full disk again.
const diskFullPause = 200 * time.Millisecond

// health knows whether Pebble can still keep what it is given. Pebble reports from the background, with its own lock held,
// so nothing here waits or calls back into it.
type health struct {
	dir       string
	onFailure func(error)
	onWarning func(string)
	closing   chan struct{} // closed when the store closes: nobody rests any longer

	failure atomic.Pointer[failure] // nil while all is well

	mu     sync.Mutex
	failed chan struct{} // closed at the next failure, then replaced
}

// failure is why writes are refused.
type failure struct {
	err error
	// final: only opening the store again can help.
	final bool
}

func (h *health) init(o Options) {
	h.dir, h.onFailure, h.onWarning = o.Dir, o.OnFailure, o.OnWarning
	h.closing, h.failed = make(chan struct{}), make(chan struct{})
}

// refusal returns the error that a write must be refused with, or nil.
func (h *health) refusal() error {
	if f := h.failure.Load(); f != nil {
		return f.err
	}
	return nil
}

// finalRefusal is refusal for those who may try to mend what can be mended.
func (h *health) finalRefusal() error {
	if f := h.failure.Load(); f != nil && f.final {
		return f.err
	}
	return nil
}

// nextFailure returns a channel that is closed when the next failure is noted.
func (h *health) nextFailure() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failed
}

func (h *health) fail(err error, final bool) {
	err = h.explain("write in the background", err)
	final = final || errors.Is(err, materializer.ErrCorrupt)
	h.mu.Lock()
	before := h.failure.Load()
	if before == nil || !before.final {
		h.failure.Store(&failure{err, final})
	}
	close(h.failed)
	h.failed = make(chan struct{})
	h.mu.Unlock()
	if before == nil || final && !before.final {
		h.onFailure(err)
	}
}

// recover notes that a flush has succeeded.
func (h *health) recover() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f := h.failure.Load(); f != nil && !f.final {
		h.failure.Store(nil)
	}
}

// diskFull is called by the file system when there is no space. Without the rest, Pebble would try again at once, for ever.
func (h *health) diskFull() {
	rest := time.NewTimer(diskFullPause)
	defer rest.Stop()
	select {
	case <-rest.C:
	case <-h.closing:
	}
}

// explain adds to an error of Pebble which store it is about, and what to do when files are damaged.
func (h *health) explain(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case pebble.IsCorruptionError(err) || errors.Is(err, fs.ErrNotExist):
		return damaged(h.dir, doing, err)
	default:
		return fmt.Errorf("store %s: %s: %w", h.dir, doing, err)
	}
}

func damaged(dir, doing string, err error) error {
	return fmt.Errorf("%s: %s: %w: %w; delete the directory, it is rebuilt from the log", dir, doing, materializer.ErrCorrupt, err)
}

// listener hears what Pebble does in the background.
func (h *health) listener() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: func(err error) { h.fail(err, false) },
		DataCorruption:  func(info pebble.DataCorruptionInfo) { h.fail(info.Details, true) },
		FlushEnd: func(info pebble.FlushInfo) {
			if info.Err == nil {
				h.recover()
			}
		},
		WriteStallBegin: func(info pebble.WriteStallBeginInfo) { h.onWarning("commits wait: " + info.Reason) },
		WriteStallEnd:   func() { h.onWarning("commits go on") },
	}
}

// logger takes Pebble's log lines.
type logger struct{ health *health }

// Infof drops the line: what counts is in Stats.
func (logger) Infof(string, ...any) {}

// Errorf passes the line on.
func (l logger) Errorf(format string, args ...any) { l.health.onWarning(fmt.Sprintf(format, args...)) }

// Fatalf is called by Pebble where it expects the process to end. An error of the disk, which it meets while writing its
// manifest, only ends the use of this store: Pebble returns the error upwards and has not changed what readers see.
// Anything else is a broken invariant of Pebble, after which nothing it writes can be trusted.
func (l logger) Fatalf(format string, args ...any) {
	for _, arg := range args {
		if err, ok := arg.(error); ok && (isDiskError(err) || pebble.IsCorruptionError(err)) {
			l.health.fail(err, true)
			return
		}
	}
	panic(fmt.Sprintf("store %s: pebble: %s", l.health.dir, fmt.Sprintf(format, args...)))
}

// isDiskError tells whether the operating system reported the error.
func isDiskError(err error) bool {
	_, ok := errors.AsType[syscall.Errno](err)
	return ok
}

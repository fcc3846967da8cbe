package node

import (
	"context"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/internal/clock"
)

const (
	// watchEvery is how often the supervised function's files are checked.
	watchEvery = 700 * time.Millisecond
	// watchMost bounds the files that are checked.
	watchMost = 20_000
)

// watch detects changes of source files by polling: that works on every file system, and needs no
// library.
type watch struct {
	dir, data string
	was       fingerprint
}

// fingerprint is what a change of files changes: when the youngest was written, and how many there
// are.
type fingerprint struct {
	youngest time.Time
	files    int
}

// newWatch records the present state of the files below dir, without the data directory.
func newWatch(dir, data string) *watch {
	w := &watch{dir: dir}
	w.data, _ = filepath.Abs(data)
	w.was = w.look()
	return w
}

// await returns true when the files are not what they were, false when ctx has ended.
func (w *watch) await(ctx context.Context, clk clock.Clock) bool {
	for {
		again, giveUp := clk.After(watchEvery)
		select {
		case <-again:
		case <-ctx.Done():
			giveUp()
			return false
		}
		if w.look() != w.was {
			return true
		}
	}
}

func (w *watch) look() fingerprint {
	var now fingerprint
	_ = filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error { // it returns no error
		switch {
		case err != nil:
			return nil //nolint:nilerr // what cannot be read is not watched
		case d.IsDir():
			return w.enter(path, d.Name())
		case !isSource(d.Name()):
			return nil
		}
		if info, err := d.Info(); err == nil && info.ModTime().After(now.youngest) {
			now.youngest = info.ModTime()
		}
		if now.files++; now.files == watchMost {
			return fs.SkipAll
		}
		return nil
	})
	return now
}

// enter skips directories with what programs write, not people.
func (w *watch) enter(path, name string) error {
	if path == w.dir {
		return nil
	}
	abs, _ := filepath.Abs(path)
	if strings.HasPrefix(name, ".") || slices.Contains([]string{"node_modules", "target", "__pycache__"}, name) ||
		abs == w.data {
		return fs.SkipDir
	}
	return nil
}

// isSource leaves out what programs and editors write beside sources.
func isSource(name string) bool {
	return !strings.HasPrefix(name, ".") && !strings.HasSuffix(name, "~") && !slices.Contains([]string{".log", ".tmp", ".swp", ".pid"}, filepath.Ext(name))
}

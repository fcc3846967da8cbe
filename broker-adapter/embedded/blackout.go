package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// blackoutFS is a file system on which the lights go out at the first failed write. From then on nothing changes on the
// disk: what is created goes to memory, what is written to older files vanishes, and success is reported for all of it.
//
// Why: Pebble ends the process, or throws beyond recovery, when a write to its WAL or MANIFEST fails at certain places
// (rotation of the WAL, installing a version). Here it never sees such an error, runs on in the dark until the committer
// has looked at failure and closes it, and the next open finds the disk as a power cut would have left it. The price is that every
// success must be held against failure *after* it was reported: whoever acknowledges asks failure first.
//
// Tables are the exception: their writers get the error, since Pebble handles it by writing another table.
//
// It starts no goroutine. All methods may overlap.
type blackoutFS struct {
	vfs.FS
	// dark holds the files that were created after the lights went out.
	dark *vfs.MemFS
	once sync.Once
	out  chan struct{}
	// cause is set before out is closed.
	cause atomic.Pointer[error]
}

func newBlackoutFS(disk vfs.FS, dir string) *blackoutFS {
	b := &blackoutFS{FS: disk, dark: vfs.NewMem(), out: make(chan struct{})}
	_ = b.dark.MkdirAll(dir, 0o755) // in memory: cannot go wrong
	return b
}

// failure returns what put the lights out, nil while they are on.
func (b *blackoutFS) failure() error {
	if cause := b.cause.Load(); cause != nil {
		return *cause
	}
	return nil
}

func (b *blackoutFS) isDark() bool { return b.cause.Load() != nil }

// fail puts the lights out. The first cause stays.
func (b *blackoutFS) fail(doing, name string, err error) {
	b.once.Do(func() {
		cause := err
		if _, named := errors.AsType[*fs.PathError](err); !named {
			cause = fmt.Errorf("%s %s: %w", doing, name, err)
		}
		b.cause.Store(&cause)
		close(b.out)
	})
}

// Create creates a file on the disk, in the dark in memory.
func (b *blackoutFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if !b.isDark() {
		f, err := b.FS.Create(name, category)
		if err == nil {
			return b.wrap(f, name), nil
		}
		b.fail("create", name, err)
	}
	return b.dark.Create(name, category)
}

// OpenReadWrite opens a file for writing at positions.
func (b *blackoutFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	if !b.isDark() {
		f, err := b.FS.OpenReadWrite(name, category, opts...)
		if err == nil {
			return b.wrap(f, name), nil
		}
		b.fail("open for writing", name, err)
	}
	return b.dark.OpenReadWrite(name, category, opts...)
}

// ReuseForWrite recycles an old file; in the dark it makes a new one.
func (b *blackoutFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if !b.isDark() {
		f, err := b.FS.ReuseForWrite(oldname, newname, category)
		if err == nil {
			return b.wrap(f, newname), nil
		}
		b.fail("reuse as", newname, err)
	}
	return b.dark.Create(newname, category)
}

// Open opens a file for reading, first among those of the dark.
func (b *blackoutFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if b.isDark() {
		if f, err := b.dark.Open(name); err == nil {
			return f, nil
		}
	}
	return b.FS.Open(name, opts...)
}

// OpenDir opens a directory for syncing.
func (b *blackoutFS) OpenDir(name string) (vfs.File, error) {
	f, err := b.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return b.wrap(f, name), nil
}

// Link is needed by nothing that the log does; in the dark it says so.
func (b *blackoutFS) Link(oldname, newname string) error {
	if cause := b.failure(); cause != nil {
		return cause
	}
	return b.FS.Link(oldname, newname)
}

// Remove removes a file. That it cannot be removed loses nothing, so it puts no lights out.
func (b *blackoutFS) Remove(name string) error {
	if b.isDark() {
		return ignoreMissing(b.dark.Remove(name))
	}
	return b.FS.Remove(name)
}

// RemoveAll is Remove with everything below.
func (b *blackoutFS) RemoveAll(name string) error {
	if b.isDark() {
		return ignoreMissing(b.dark.RemoveAll(name))
	}
	return b.FS.RemoveAll(name)
}

// Rename renames a file.
func (b *blackoutFS) Rename(oldname, newname string) error {
	if !b.isDark() {
		err := b.FS.Rename(oldname, newname)
		if err == nil {
			return nil
		}
		b.fail("rename", oldname, err)
	}
	return ignoreMissing(b.dark.Rename(oldname, newname))
}

// MkdirAll makes directories.
func (b *blackoutFS) MkdirAll(dir string, perm os.FileMode) error {
	if !b.isDark() {
		err := b.FS.MkdirAll(dir, perm)
		if err == nil {
			return nil
		}
		b.fail("make directory", dir, err)
	}
	return b.dark.MkdirAll(dir, perm)
}

// List lists what is on the disk and in the dark.
func (b *blackoutFS) List(dir string) ([]string, error) {
	names, err := b.FS.List(dir)
	if err != nil || !b.isDark() {
		return names, err
	}
	dark, _ := b.dark.List(dir) // a directory that is missing there has nothing to add
	names = append(names, dark...)
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Stat describes a file, first among those of the dark.
func (b *blackoutFS) Stat(name string) (vfs.FileInfo, error) {
	if b.isDark() {
		if info, err := b.dark.Stat(name); err == nil {
			return info, nil
		}
	}
	return b.FS.Stat(name)
}

// Unwrap returns the disk.
func (b *blackoutFS) Unwrap() vfs.FS { return b.FS }

func ignoreMissing(err error) error {
	if oserror.IsNotExist(err) {
		return nil
	}
	return err
}

func (b *blackoutFS) wrap(f vfs.File, name string) vfs.File {
	ext := path.Ext(name)
	return &blackoutFile{File: f, fs: b, name: name, table: ext == ".sst" || ext == ".blob"}
}

// blackoutFile is a file that was opened while the lights were on.
type blackoutFile struct {
	vfs.File
	fs   *blackoutFS
	name string
	// table: its writer is told of errors.
	table bool
}

// outcome is what the writer is told after an operation that ended with err, or that was not tried in the dark.
func (f *blackoutFile) outcome(doing string, err error) error {
	if err != nil {
		f.fs.fail(doing, f.name, err)
	}
	if f.table {
		return f.fs.failure()
	}
	return nil
}

// Write writes, or in the dark does nothing.
func (f *blackoutFile) Write(p []byte) (int, error) {
	var err error
	if !f.fs.isDark() {
		if _, err = f.File.Write(p); err == nil {
			return len(p), nil
		}
	}
	return f.written(p, f.outcome("write", err))
}

// WriteAt is Write at a position.
func (f *blackoutFile) WriteAt(p []byte, at int64) (int, error) {
	var err error
	if !f.fs.isDark() {
		if _, err = f.File.WriteAt(p, at); err == nil {
			return len(p), nil
		}
	}
	return f.written(p, f.outcome("write", err))
}

func (f *blackoutFile) written(p []byte, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// Sync syncs data and metadata.
func (f *blackoutFile) Sync() error { return f.sync(f.File.Sync) }

// SyncData syncs data.
func (f *blackoutFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *blackoutFile) sync(do func() error) error {
	if f.fs.isDark() {
		return f.outcome("sync", nil)
	}
	if err := do(); err != nil {
		return f.outcome("sync", err)
	}
	return nil
}

// SyncTo starts to sync a prefix.
func (f *blackoutFile) SyncTo(length int64) (bool, error) {
	if f.fs.isDark() {
		return true, f.outcome("sync", nil)
	}
	full, err := f.File.SyncTo(length)
	if err != nil {
		return true, f.outcome("sync", err)
	}
	return full, nil
}

// Preallocate asks for space ahead. A disk that cannot is not a failure; the write will tell.
func (f *blackoutFile) Preallocate(offset, length int64) error {
	if f.fs.isDark() {
		return nil
	}
	return f.File.Preallocate(offset, length)
}

// Close closes the file on the disk in any case.
func (f *blackoutFile) Close() error {
	if err := f.File.Close(); err != nil && !f.fs.isDark() {
		return f.outcome("close", err)
	}
	return nil
}

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

// failStopFS is a file system that stops writing at the first write that fails. From then on
// nothing changes on the disk: new files are created in memory, writes to older files are dropped,
// and success is reported for all of it.
//
// Why: Pebble ends the process, or panics beyond recovery, when a write to its WAL or MANIFEST
// fails at certain places (rotation of the WAL, installing a version). Here it never sees such an
// error and runs on until the committer has called failure and closes it; the next open finds the
// disk as a power cut would have left it. The price: a reported success counts only if failure
// returns nil *after* it.
//
// Tables are the exception: their writers get the error, since Pebble handles it by writing another
// table.
//
// It starts no goroutine. All methods may overlap.
type failStopFS struct {
	vfs.FS
	// after holds the files that were created after the stop.
	after *vfs.MemFS
	once  sync.Once
	out   chan struct{}
	// cause is set before out is closed.
	cause atomic.Pointer[error]
}

func newFailStopFS(disk vfs.FS, dir string) *failStopFS {
	b := &failStopFS{FS: disk, after: vfs.NewMem(), out: make(chan struct{})}
	_ = b.after.MkdirAll(dir, 0o755) // cannot fail: it is in memory
	return b
}

// failure returns why writing has stopped, nil while it has not.
func (b *failStopFS) failure() error {
	if cause := b.cause.Load(); cause != nil {
		return *cause
	}
	return nil
}

func (b *failStopFS) isStopped() bool { return b.cause.Load() != nil }

// fail stops all writing. The first cause stays.
func (b *failStopFS) fail(doing, name string, err error) {
	b.once.Do(func() {
		cause := err
		if _, named := errors.AsType[*fs.PathError](err); !named {
			cause = fmt.Errorf("%s %s: %w", doing, name, err)
		}
		b.cause.Store(&cause)
		close(b.out)
	})
}

// Create creates a file on the disk, after the stop in memory.
func (b *failStopFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if !b.isStopped() {
		f, err := b.FS.Create(name, category)
		if err == nil {
			return b.wrap(f, name), nil
		}
		b.fail("create", name, err)
	}
	return b.after.Create(name, category)
}

// OpenReadWrite opens a file for writing at positions.
func (b *failStopFS) OpenReadWrite(name string, category vfs.DiskWriteCategory,
	opts ...vfs.OpenOption,
) (vfs.File, error) {
	if !b.isStopped() {
		f, err := b.FS.OpenReadWrite(name, category, opts...)
		if err == nil {
			return b.wrap(f, name), nil
		}
		b.fail("open for writing", name, err)
	}
	return b.after.OpenReadWrite(name, category, opts...)
}

// ReuseForWrite recycles an old file; after the stop it makes a new one.
func (b *failStopFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if !b.isStopped() {
		f, err := b.FS.ReuseForWrite(oldname, newname, category)
		if err == nil {
			return b.wrap(f, newname), nil
		}
		b.fail("reuse as", newname, err)
	}
	return b.after.Create(newname, category)
}

// Open opens a file for reading, first among those created after the stop.
func (b *failStopFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if b.isStopped() {
		if f, err := b.after.Open(name); err == nil {
			return f, nil
		}
	}
	return b.FS.Open(name, opts...)
}

// OpenDir opens a directory for syncing.
func (b *failStopFS) OpenDir(name string) (vfs.File, error) {
	f, err := b.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return b.wrap(f, name), nil
}

// Link is not used by the log; after the stop it returns an error.
func (b *failStopFS) Link(oldname, newname string) error {
	if cause := b.failure(); cause != nil {
		return cause
	}
	return b.FS.Link(oldname, newname)
}

// Remove removes a file. A failure to remove loses no data, so it does not stop writing.
func (b *failStopFS) Remove(name string) error {
	if b.isStopped() {
		return ignoreMissing(b.after.Remove(name))
	}
	return b.FS.Remove(name)
}

// RemoveAll is Remove with everything below.
func (b *failStopFS) RemoveAll(name string) error {
	if b.isStopped() {
		return ignoreMissing(b.after.RemoveAll(name))
	}
	return b.FS.RemoveAll(name)
}

// Rename renames a file.
func (b *failStopFS) Rename(oldname, newname string) error {
	if !b.isStopped() {
		err := b.FS.Rename(oldname, newname)
		if err == nil {
			return nil
		}
		b.fail("rename", oldname, err)
	}
	return ignoreMissing(b.after.Rename(oldname, newname))
}

// MkdirAll makes directories.
func (b *failStopFS) MkdirAll(dir string, perm os.FileMode) error {
	if !b.isStopped() {
		err := b.FS.MkdirAll(dir, perm)
		if err == nil {
			return nil
		}
		b.fail("make directory", dir, err)
	}
	return b.after.MkdirAll(dir, perm)
}

// List lists what is on the disk and what was created after the stop.
func (b *failStopFS) List(dir string) ([]string, error) {
	names, err := b.FS.List(dir)
	if err != nil || !b.isStopped() {
		return names, err
	}
	created, _ := b.after.List(dir) // an error means that nothing was created there
	names = append(names, created...)
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Stat describes a file, first among those created after the stop.
func (b *failStopFS) Stat(name string) (vfs.FileInfo, error) {
	if b.isStopped() {
		if info, err := b.after.Stat(name); err == nil {
			return info, nil
		}
	}
	return b.FS.Stat(name)
}

// Unwrap returns the disk.
func (b *failStopFS) Unwrap() vfs.FS { return b.FS }

func ignoreMissing(err error) error {
	if oserror.IsNotExist(err) {
		return nil
	}
	return err
}

func (b *failStopFS) wrap(f vfs.File, name string) vfs.File {
	ext := path.Ext(name)
	return &failStopFile{File: f, fs: b, name: name, table: ext == ".sst" || ext == ".blob"}
}

// failStopFile is a file that was opened before writing stopped.
type failStopFile struct {
	vfs.File
	fs   *failStopFS
	name string
	// table: its writer gets errors.
	table bool
}

// outcome is what the writer gets for an operation that ended with err, or was skipped after the
// stop.
func (f *failStopFile) outcome(doing string, err error) error {
	if err != nil {
		f.fs.fail(doing, f.name, err)
	}
	if f.table {
		return f.fs.failure()
	}
	return nil
}

// Write writes, or after the stop does nothing.
func (f *failStopFile) Write(p []byte) (int, error) {
	var err error
	if !f.fs.isStopped() {
		if _, err = f.File.Write(p); err == nil {
			return len(p), nil
		}
	}
	return f.written(p, f.outcome("write", err))
}

// WriteAt is Write at a position.
func (f *failStopFile) WriteAt(p []byte, at int64) (int, error) {
	var err error
	if !f.fs.isStopped() {
		if _, err = f.File.WriteAt(p, at); err == nil {
			return len(p), nil
		}
	}
	return f.written(p, f.outcome("write", err))
}

func (f *failStopFile) written(p []byte, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// Sync syncs data and metadata.
func (f *failStopFile) Sync() error { return f.sync(f.File.Sync) }

// SyncData syncs data.
func (f *failStopFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *failStopFile) sync(do func() error) error {
	if f.fs.isStopped() {
		return f.outcome("sync", nil)
	}
	if err := do(); err != nil {
		return f.outcome("sync", err)
	}
	return nil
}

// SyncTo starts to sync a prefix.
func (f *failStopFile) SyncTo(length int64) (bool, error) {
	if f.fs.isStopped() {
		return true, f.outcome("sync", nil)
	}
	full, err := f.File.SyncTo(length)
	if err != nil {
		return true, f.outcome("sync", err)
	}
	return full, nil
}

// Preallocate asks for space ahead. An error is not a failure; the write itself reports it.
func (f *failStopFile) Preallocate(offset, length int64) error {
	if f.fs.isStopped() {
		return nil
	}
	return f.File.Preallocate(offset, length)
}

// Close closes the file on the disk in any case.
func (f *failStopFile) Close() error {
	if err := f.File.Close(); err != nil && !f.fs.isStopped() {
		return f.outcome("close", err)
	}
	return nil
}

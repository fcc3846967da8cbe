package embedded

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"syscall"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The file FORMAT holds one line, the version of this package's format. It is read before the
// database is opened, so that a newer format is reported as such.
const (
	formatFile    = "FORMAT"
	formatNewFile = "FORMAT.new"
	formatLine    = "millrace log format %d\n"
	formatVersion = 1
	// maxFormatBytes bounds how much of it is read.
	maxFormatBytes = 256

	lockFile = "LOCK"
)

// takeDirectory creates the directory if needed and locks it. The lock is held through every
// reopening.
func takeDirectory(o Options) (*pebble.Lock, error) {
	if err := makeDirectory(o.FS, o.Dir); err != nil {
		return nil, directoryError("create log directory", o.Dir, err)
	}
	lock, err := pebble.LockDirectory(o.Dir, o.FS)
	switch {
	case err != nil && advice(err) != "" && !lockConflict(err):
		return nil, directoryError("lock log directory", o.Dir, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %s is open in another process, or a second time in this one (%w); "+
			"stop the other one or choose another directory", ErrLocked, o.Dir, err)
	}
	if err := checkFormat(o.FS, o.Dir); err != nil {
		_ = lock.Close() // err is the one to report
		return nil, err
	}
	return lock, nil
}

// makeDirectory creates what is missing of a path and makes it durable: a directory whose entry is
// lost in a power cut takes all records in it along.
func makeDirectory(disk vfs.FS, dir string) error {
	var parents []string
	for at := dir; ; at = disk.PathDir(at) {
		info, err := disk.Stat(at)
		if err == nil {
			if !info.IsDir() {
				return fmt.Errorf("%s is not a directory: %w", at, fs.ErrExist)
			}
			break
		}
		if !oserror.IsNotExist(err) {
			return err
		}
		parent := disk.PathDir(at)
		if parent == at {
			break
		}
		parents = append(parents, parent)
	}
	if err := disk.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	for _, parent := range slices.Backward(parents) {
		if err := syncDirectory(disk, parent); err != nil {
			return err
		}
	}
	return nil
}

func syncDirectory(disk vfs.FS, dir string) error {
	d, err := disk.OpenDir(dir)
	if err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		_ = d.Close() // err is the one to report
		return err
	}
	return d.Close()
}

// checkFormat reads the format of a directory, or writes it into an empty one.
func checkFormat(disk vfs.FS, dir string) error {
	f, err := disk.Open(disk.PathJoin(dir, formatFile))
	if oserror.IsNotExist(err) {
		return startFormat(disk, dir)
	}
	if err != nil {
		return directoryError("read the format of log directory", dir, err)
	}
	line, err := io.ReadAll(io.LimitReader(f, maxFormatBytes))
	if err := firstError(err, f.Close()); err != nil {
		return directoryError("read the format of log directory", dir, err)
	}
	var version int
	if _, err := fmt.Sscanf(string(line), formatLine, &version); err != nil || version < 1 {
		return fmt.Errorf("read the format of log directory %s: %w: file %s holds %.40q; %s", dir, ErrCorrupt, formatFile,
			line, restoreAdvice)
	}
	if version > formatVersion {
		return fmt.Errorf("%w: %s has format %d, this millrace reads up to %d; run the version of millrace that wrote it, or a newer one",
			ErrNewerFormat, dir, version, formatVersion)
	}
	return nil
}

// startFormat writes the format into an empty directory; it refuses any other.
func startFormat(disk vfs.FS, dir string) error {
	names, err := disk.List(dir)
	if err != nil {
		return directoryError("list log directory", dir, err)
	}
	for _, name := range names {
		if name != lockFile && name != formatNewFile {
			return fmt.Errorf("%w: %s has no file %s but holds %s; choose an empty directory, or restore the file if this was a log",
				ErrNotALog, dir, formatFile, name)
		}
	}
	if err := replaceFile(disk, dir, formatNewFile, formatFile, fmt.Appendf(nil, formatLine, formatVersion)); err != nil {
		return directoryError("start a log in", dir, err)
	}
	return nil
}

// replaceFile replaces a file atomically: after a power cut it has the old content or the new one.
func replaceFile(disk vfs.FS, dir, newName, name string, content []byte) error {
	path := disk.PathJoin(dir, newName)
	f, err := disk.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err := firstError(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := disk.Rename(path, disk.PathJoin(dir, name)); err != nil {
		return err
	}
	return syncDirectory(disk, dir)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// lockConflict reports whether err means that another process holds the lock: EAGAIN or EACCES.
func lockConflict(err error) bool {
	_, isPath := errors.AsType[*fs.PathError](err)
	return !isPath && (errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES))
}

package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/cockroachdb/pebble/v2"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

var (
	// ErrLocked: another process, or another Log of this one, has the directory open.
	ErrLocked = errors.New("log directory is in use")
	// ErrNotALog: the directory holds something else.
	ErrNotALog = errors.New("directory holds no log")
	// ErrNewerFormat: a newer version of millrace wrote the directory.
	ErrNewerFormat = errors.New("log directory has a newer format")
	// ErrCorrupt: what was read is not what was written.
	ErrCorrupt = errors.New("log is damaged")
	// ErrFailed: the log cannot be written at present and is being opened again. Nothing of this
	// append was written.
	ErrFailed = fmt.Errorf("log cannot be written at present: %w", broker.ErrNotWritten)
	// ErrOutcomeUnknown: writing ended in an error; the records may or may not be there when the
	// log has been opened again.
	ErrOutcomeUnknown = errors.New("outcome of the append is unknown")
)

// advice returns what to do about an error of the file system, "" if there is no advice.
func advice(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "free space on its disk; the log continues by itself as soon as it can write"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return "give this user write permission or choose another directory"
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrExist):
		return "a file is in the way: choose another directory or move that file"
	case errors.Is(err, syscall.EIO):
		return "check the disk"
	}
	return ""
}

// restoreAdvice is the remedy for damage: the log cannot be rebuilt from anything else.
const restoreAdvice = "stop the process, keep a copy of the directory, check the disk and restore the directory from a backup"

// directoryError adds the operation, the directory and the remedy to an error.
func directoryError(doing, dir string, err error) error {
	if pebble.IsCorruptionError(err) || errors.Is(err, fs.ErrNotExist) { // damaged, or gone
		return fmt.Errorf("%s %s: %w: %w; %s", doing, dir, ErrCorrupt, err, restoreAdvice)
	}
	if hint := advice(err); hint != "" {
		return fmt.Errorf("%s %s: %w; %s", doing, dir, err, hint)
	}
	return fmt.Errorf("%s %s: %w", doing, dir, err)
}

// corruptRecord is the error for a record that cannot be read.
func corruptRecord(dir string, p broker.Partition, offset int64, why error) error {
	return fmt.Errorf("read log in %s, topic %s, partition %d, offset %d: %w: %w; %s",
		dir, p.Topic, p.ID, offset, ErrCorrupt, why, restoreAdvice)
}

package embedded

import (
	"errors"
	"path"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// aheadBytes is how much of a WAL is filled with zeros at a time, before records are written over
// them.
const aheadBytes = 256 << 10

// pageBytes is the usual size of a page of the kernel's; aheadBytes is a multiple of it.
const pageBytes = 4 << 10

// aheadFS fills a WAL with zeros ahead of what is written to it. The sync of a record then changes
// no metadata of the file, neither its size nor its extents, so a journaling file system has
// nothing else to write: a sync takes two thirds of the time. Pebble reuses old WALs for the same
// reason, and its reader takes zeros after the last record for the end.
type aheadFS struct{ vfs.FS }

// Create creates a file. Only a WAL is filled ahead.
func (a aheadFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := a.FS.Create(name, category)
	if err != nil || path.Ext(name) != ".log" {
		return f, err
	}
	return &aheadFile{File: f}, nil
}

// ReuseForWrite takes an old file, whose bytes are written over before it grows.
func (a aheadFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := a.FS.ReuseForWrite(oldname, newname, category)
	if err != nil || path.Ext(newname) != ".log" {
		return f, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &aheadFile{File: f, filled: info.Size()}, nil
}

// Unwrap returns the file system below.
func (a aheadFS) Unwrap() vfs.FS { return a.FS }

// aheadFile is a WAL. It is written by one goroutine at a time, from its beginning to its end.
type aheadFile struct {
	vfs.File
	// next is where the next record goes, filled the end of the file.
	next, filled int64
}

// Write writes the next records.
func (f *aheadFile) Write(p []byte) (int, error) {
	if end := f.next + int64(len(p)); end > f.filled {
		f.fill(max(f.filled, f.next))
	}
	n, err := f.File.Write(p)
	f.next += int64(n)
	return n, err
}

// fill writes zeros from an offset on, as far as the disk takes them; the next write reports any
// error. It writes page by page: of one large write the kernel would count all bytes again with
// each record (write_bytes).
func (f *aheadFile) fill(from int64) {
	page := make([]byte, pageBytes)
	for f.filled = from; f.filled < from+aheadBytes; {
		n, err := f.File.WriteAt(page, f.filled)
		f.filled += int64(n)
		if err != nil {
			return
		}
	}
}

package embedded

import (
	"bytes"
	"path"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestWALIsFilledAhead: appends do not change the size of the WAL, until they come to its end.
func TestWALIsFilledAhead(t *testing.T) {
	disk := vfs.NewMem()
	log := mustOpen(t, Options{Dir: "/log", FS: disk})
	createTestTopic(t, log)
	for range 100 {
		if r := appendWait(log, 0, "record"); r.Err != nil {
			t.Fatal(r.Err)
		}
		if size := walSize(t, disk); size != aheadBytes {
			t.Fatalf("the WAL has %d bytes, want %d from its first record on", size, aheadBytes)
		}
	}
}

// walSize is the size of the newest WAL.
func walSize(t *testing.T, disk vfs.FS) int64 {
	t.Helper()
	names, err := disk.List("/log")
	if err != nil {
		t.Fatal(err)
	}
	newest := ""
	for _, name := range names {
		if path.Ext(name) == ".log" && name > newest {
			newest = name
		}
	}
	info, err := disk.Stat("/log/" + newest)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// TestAheadFile: the file has what was written, then zeros; a reused file grows only at its end.
func TestAheadFile(t *testing.T) {
	disk := vfs.NewMem()
	fs := aheadFS{disk}
	f, err := fs.Create("1.log", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	long := bytes.Repeat([]byte("long"), aheadBytes/2) // two times what is filled at a time
	// A writer may change its buffer.
	for _, p := range [][]byte{[]byte("first"), long, []byte("last")} {
		if n, err := f.Write(bytes.Clone(p)); n != len(p) || err != nil {
			t.Fatal(n, err)
		}
	}
	content := append(append([]byte("first"), long...), "last"...)
	holds(t, disk, "1.log", content, len(content)-len("last")+aheadBytes)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}

	old := readFile(t, disk, "1.log")
	f, err = fs.ReuseForWrite("1.log", "2.log", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("again")); err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, disk, "2.log"); !bytes.Equal(got, append([]byte("again"), old[len("again"):]...)) {
		t.Errorf("a reused file has %d bytes, want its %d, and the record at its beginning", len(got), len(old))
	}
	rest := bytes.Repeat([]byte("x"), len(old)-len("again")+1)
	if _, err := f.Write(bytes.Clone(rest)); err != nil {
		t.Fatal(err)
	}
	holds(t, disk, "2.log", append([]byte("again"), rest...), len(old)+aheadBytes)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// holds checks that a file begins with content and has only zeros after it.
func holds(t *testing.T, disk *vfs.MemFS, name string, content []byte, size int) {
	t.Helper()
	got := readFile(t, disk, name)
	if len(got) != size || !bytes.HasPrefix(got, content) || len(bytes.TrimLeft(got[len(content):], "\x00")) != 0 {
		t.Errorf("%s has %d bytes, want the %d that were written and zeros up to %d", name, len(got), len(content), size)
	}
}

// readFile returns a copy of what a file holds.
func readFile(t *testing.T, disk *vfs.MemFS, name string) []byte {
	t.Helper()
	data, err := disk.UnsafeGetFileDataBuffer(name)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(data)
}

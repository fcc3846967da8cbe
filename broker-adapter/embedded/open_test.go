package embedded

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/tests/kit"
)

// wantOpenError opens and wants a certain error with certain words in it.
func wantOpenError(t *testing.T, o Options, want error, words ...string) {
	t.Helper()
	l, err := Open(o)
	if err == nil {
		_ = l.Close()
	}
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not say %q: %v", word, err)
		}
	}
}

func TestSecondOpenIsRefused(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	first := mustOpen(t, Options{Dir: dir})
	createTestTopic(t, first)
	wantOpenError(t, Options{Dir: dir}, ErrLocked, dir, "stop the other one")
	wantOpenError(t, Options{Dir: link}, ErrLocked, dir) // the same under another name
	if r := appendWait(first, 0, "undisturbed"); r.Err != nil {
		t.Fatal(r.Err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, Options{Dir: link})
}

func TestNewerFormatIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := mustOpen(t, Options{Dir: dir}).Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, formatFile)
	if err := os.WriteFile(file, []byte("millrace log format 7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantOpenError(t, Options{Dir: dir}, ErrNewerFormat, dir, "format 7", "up to 1")
	if err := os.WriteFile(file, []byte("gibberish"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantOpenError(t, Options{Dir: dir}, ErrCorrupt, dir, "gibberish")
}

func TestForeignDirectoryIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.tex"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantOpenError(t, Options{Dir: dir}, ErrNotALog, dir, "thesis.tex")
	file := filepath.Join(dir, "thesis.tex")
	wantOpenError(t, Options{Dir: file}, fs.ErrExist, file, "choose another directory")
	wantOpenError(t, Options{Dir: filepath.Join(file, "below")}, syscall.ENOTDIR, file, "choose another directory")
}

func TestMissingParentsAreCreated(t *testing.T) {
	mustOpen(t, Options{Dir: filepath.Join(t.TempDir(), "a", "b", "c")})
}

// TestDirectoryThatCannotBeWritten injects the errors, since tests may run as a user who may write
// everything.
func TestDirectoryThatCannotBeWritten(t *testing.T) {
	cases := []struct {
		name  string
		err   error
		words []string
	}{
		{"not permitted", &fs.PathError{Op: "open", Path: "/log/LOCK", Err: syscall.EACCES}, []string{"/log", "write permission"}},
		{"read-only", &fs.PathError{Op: "open", Path: "/log/LOCK", Err: syscall.EROFS}, []string{"/log", "write permission"}},
		{"full", &fs.PathError{Op: "write", Path: "/log/x", Err: syscall.ENOSPC}, []string{"/log", "free space"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inject := errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind == errorfs.OpLock || op.Kind == errorfs.OpFileWrite {
					return c.err
				}
				return nil
			})
			wantOpenError(t, Options{Dir: "/log", FS: errorfs.Wrap(vfs.NewMem(), inject)}, c.err, c.words...)
		})
	}
}

// TestOpenFailsAnywhere fails the nth writing operation of the first start, for every n: Open
// returns the error and leaves a directory that opens when the disk is well.
func TestOpenFailsAnywhere(t *testing.T) {
	for n := int64(0); ; n++ {
		mem, disk := vfs.NewMem(), &faultyDisk{err: syscall.ENOSPC}
		disk.after(n, forEver)
		l, err := Open(Options{Dir: "/log", FS: errorfs.Wrap(mem, errorfs.InjectorFunc(disk.inject))})
		if err == nil {
			if err := l.Close(); disk.countdown.Load() < 0 && err == nil {
				continue // it failed at Close only, and nothing was lost by that
			}
			if n < 10 {
				t.Fatalf("only %d operations to open a log", n)
			}
			return
		}
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "/log") {
			t.Fatalf("operation %d: %v", n, err)
		}
		again := mustOpen(t, Options{Dir: "/log", FS: mem})
		createTestTopic(t, again)
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{
		{}, {Dir: "x", FS: vfs.NewMem(), MemTableBytes: 1}, {Dir: "x", FS: vfs.NewMem(), QueueBytes: -1},
	} {
		if l, err := Open(o); err == nil {
			_ = l.Close()
			t.Errorf("%+v was accepted", o)
		}
	}
}

func TestCreateIsChecked(t *testing.T) {
	log := mustOpen(t, Options{Ephemeral: true})
	for _, spec := range []broker.TopicSpec{{Partitions: 1}, {Name: "x"}, {Name: "x", Partitions: 1, MaxRecordBytes: -1}} {
		if err := log.Create(t.Context(), spec); err == nil {
			t.Errorf("%+v was accepted", spec)
		}
	}
}

// TestCacheBesideMemTables: Pebble reserves the memory of memtables in its cache; the configured
// block cache must be there in addition.
func TestCacheBesideMemTables(t *testing.T) {
	l := mustOpen(t, Options{Dir: "/log", FS: vfs.NewMem(), BlockCache: minMemTableBytes, MemTableBytes: minMemTableBytes})
	db := l.current.Load()
	key := recordKey(1, 0, 0)
	for range 4 { // Pebble begins with a small memtable and makes each one twice as large
		if err := db.Set(key, []byte("value"), nil); err != nil {
			t.Fatal(err)
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	// A compaction that replaces the table meanwhile empties the cache; there is one at most.
	kit.Await(t, "the cache to hold something of what is read", func() bool {
		_, closer, err := db.Get(key)
		if err != nil {
			t.Fatal(err)
		}
		if err := closer.Close(); err != nil {
			t.Error(err)
		}
		return db.Metrics().BlockCache.Size > 0
	})
}

// TestCreateRaisesTheLimit of a topic that exists, for good, and lowers none.
func TestCreateRaisesTheLimit(t *testing.T) {
	mem := vfs.NewMem()
	spec := broker.TopicSpec{Name: "app.journal", Partitions: 1, MaxRecordBytes: 1 << 20}
	p := broker.Partition{Topic: spec.Name}
	large := []broker.Record{{Value: make([]byte, 2<<20)}}
	for i, limit := range []int{1 << 20, 3 << 20, 1 << 20} {
		l := mustOpen(t, Options{Dir: "/log", FS: mem})
		spec.MaxRecordBytes = limit
		if err := l.Create(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		info, err := l.Describe(t.Context(), spec.Name)
		if want := max(limit, min(i, 1)*3<<20); err != nil || info.MaxAppendBytes != want {
			t.Fatalf("start %d, asked for %d: the topic takes %d, %v; want %d", i, limit, info.MaxAppendBytes, err, want)
		}
		result := make(chan broker.AppendResult, 1)
		l.Append(p, large, func(r broker.AppendResult) { result <- r })
		if r := <-result; errors.Is(r.Err, broker.ErrTooLarge) != (i == 0) || (i > 0 && r.Base != int64(i-1)) {
			t.Errorf("start %d: an append of 2 MiB ends with %+v", i, r)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

package pebblestore_test

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/pebblestore"
)

const rows = 2000

func row(i int) (key, value []byte) {
	return fmt.Appendf(nil, "key/%06d", i), fmt.Appendf(nil, "value/%0*d", 20+i%50, i)
}

// fill writes rows in batches and makes them durable.
func fill(t *testing.T, store *pebblestore.Store) {
	t.Helper()
	b := store.NewBatch()
	for i := range rows {
		err := b.Put(row(i))
		if i%100 == 99 {
			err = errors.Join(err, b.Commit())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(b.Close(), store.Flush()); err != nil {
		t.Fatal(err)
	}
}

// commit writes one row.
func commit(store *pebblestore.Store, key string) error {
	b := store.NewBatch()
	return errors.Join(b.Put([]byte(key), []byte("v")), b.Commit(), b.Close())
}

func TestSecondOpenIsRefused(t *testing.T) {
	for name, options := range map[string]pebblestore.Options{
		"memory": small(vfs.NewMem()),
		"disk":   {Dir: t.TempDir()},
	} {
		t.Run(name, func(t *testing.T) {
			first := open(t, options)
			_, err := pebblestore.Open(options)
			if !errors.Is(err, pebblestore.ErrLocked) || !strings.Contains(err.Error(), options.Dir) {
				t.Errorf("second open: %v, want ErrLocked with the directory %s", err, options.Dir)
			}
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			again := open(t, options)
			if err := again.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestOptionsAreChecked(t *testing.T) {
	_, err := pebblestore.Open(pebblestore.Options{BlockCache: -1, MemTableBytes: 1})
	for _, want := range []string{"set Dir", "BlockCache is -1", "MemTableBytes is 1"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v lacks %q", err, want)
		}
	}
}

// wantCorrupt fails unless the error tells the operator which directory is damaged and what to do.
func wantCorrupt(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, materializer.ErrCorrupt) {
		t.Fatalf("error is %v, want ErrCorrupt", err)
	}
	for _, want := range []string{"store: ", "delete the directory"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %v lacks %q", err, want)
		}
	}
}

// Every kind of file is damaged in every way, one at a time. The store may say that it is damaged,
// at once or when the place is read; it must not show wrong rows, nor panic.
func TestDamageIsFoundOrHarmless(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	pristine := vfs.NewMem()
	store := open(t, small(pristine))
	fill(t, store)
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := pristine.List("store")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for range 100 {
		fs := vfs.NewMem()
		if _, err := vfs.Clone(pristine, fs, "store", "store"); err != nil {
			t.Fatal(err)
		}
		name := names[random.IntN(len(names))]
		if damage(t, fs, path.Join("store", name), random) && readAll(t, fs) {
			found[path.Ext(name)]++
		}
	}
	t.Logf("damage found, by extension of the file: %v", found)
	if found[".sst"] == 0 {
		t.Error("no damage to a table was found")
	}
}

// damage removes the file, cuts it, or flips a bit; false if the file is empty or a directory.
func damage(t *testing.T, fs vfs.FS, name string, random *rand.Rand) bool {
	t.Helper()
	info, err := fs.Stat(name)
	if err != nil || info.IsDir() || info.Size() == 0 {
		return false
	}
	file, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(file)
	if err = errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	switch random.IntN(3) {
	case 0:
		if err := fs.Remove(name); err != nil {
			t.Fatal(err)
		}
		return true
	case 1:
		content = content[:random.IntN(len(content))]
	default:
		content[random.IntN(len(content))] ^= 1 << random.IntN(8)
	}
	out, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	_, err = out.Write(content)
	if err = errors.Join(err, out.Close()); err != nil {
		t.Fatal(err)
	}
	return true
}

// readAll opens the store and reads every row. It returns whether damage was reported, and fails if
// rows are wrong.
func readAll(t *testing.T, fs vfs.FS) bool {
	t.Helper()
	store, err := pebblestore.Open(small(fs))
	if err != nil {
		wantCorrupt(t, err)
		return true
	}
	defer store.Close()
	for i := range rows {
		key, want := row(i)
		got, err := store.Get(key)
		if err != nil {
			wantCorrupt(t, err)
			wantCorrupt(t, commit(store, "after damage was found"))
			return true
		}
		// An earlier state of the store is harmless: its position row is as old.
		if got != nil && string(got) != string(want) {
			t.Fatalf("row %q is %q, want %q", key, got, want)
		}
	}
	return false
}

func TestNewerVersionIsDamage(t *testing.T) {
	fs := vfs.NewMem()
	store := open(t, small(fs))
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	newer := fmt.Sprintf("store/marker.format-version.999999.%03d", pebble.FormatNewest+100)
	file, err := fs.Create(newer, vfs.WriteCategoryUnspecified)
	if err = errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = pebblestore.Open(small(fs))
	wantCorrupt(t, err)
}

// failing makes writes to files fail whose name has the given start.
type failing struct {
	prefix atomic.Pointer[string]
	errno  syscall.Errno
}

func (f *failing) fs(under vfs.FS) vfs.FS {
	return errorfs.Wrap(under, errorfs.InjectorFunc(func(op errorfs.Op) error {
		prefix := f.prefix.Load()
		if prefix != nil && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && strings.HasPrefix(path.Base(op.Path), *prefix) {
			return f.errno
		}
		return nil
	}))
}

func (f *failing) begin(prefix string) { f.prefix.Store(&prefix) }

func (f *failing) end() { f.prefix.Store(nil) }

func TestFullDiskRefusesWritesUntilThereIsSpace(t *testing.T) {
	disk := &failing{errno: syscall.ENOSPC}
	options := small(disk.fs(vfs.NewMem()))
	reported := make(chan error, 10)
	options.OnFailure = func(err error) { reported <- err }
	store := open(t, options)
	fill(t, store)

	disk.begin("") // every file
	if err := commit(store, "last"); err != nil {
		t.Fatalf("commit before the store can know: %v", err)
	}
	if err := store.Flush(); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "store") {
		t.Errorf("Flush on a full disk: %v, want ENOSPC and the directory", err)
	}
	if err := <-reported; !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("OnFailure got %v, want ENOSPC", err)
	}
	if err := commit(store, "refused"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("commit on a full disk: %v, want ENOSPC", err)
	}
	if stats := store.Stats(); !errors.Is(stats.Failure, syscall.ENOSPC) {
		t.Errorf("Stats.Failure is %v, want ENOSPC", stats.Failure)
	}
	if got, err := store.Get([]byte("last")); err != nil || string(got) != "v" {
		t.Errorf("Get on a full disk: %q, %v", got, err)
	}

	for range 5 { // flushes that are asked for while none succeeds must not pile up
		if err := store.Flush(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("Flush again on a full disk: %v, want ENOSPC", err)
		}
	}
	if n := store.Stats().MemTables; n > 3 {
		t.Errorf("%d memtables pile up", n)
	}
	disk.end()
	for store.Flush() != nil { // the background work may be in an attempt that has failed already
	}
	if err := commit(store, "again"); err != nil {
		t.Errorf("commit with space again: %v", err)
	}
	if got, err := store.Get([]byte("refused")); err != nil || got != nil {
		t.Errorf("the refused row is %q, %v", got, err)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

func TestCloseOnAFullDiskSaysWhatWasLost(t *testing.T) {
	disk, memory := &failing{errno: syscall.ENOSPC}, vfs.NewMem()
	store := open(t, small(disk.fs(memory)))
	fill(t, store)
	if err := commit(store, "lost"); err != nil {
		t.Fatal(err)
	}
	disk.begin("")
	if err := store.Close(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Close on a full disk: %v, want ENOSPC", err)
	}
	disk.end()
	store = open(t, small(memory))
	got, err := store.Get([]byte("lost"))
	if err != nil || got != nil {
		t.Errorf("the row that could not be kept is %q, %v", got, err)
	}
	key, want := row(rows - 1)
	if got, err := store.Get(key); err != nil || string(got) != string(want) {
		t.Errorf("a row that was durable is %q, %v; want %q", got, err, want)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

func TestManifestFailureIsFinalUntilOpenedAgain(t *testing.T) {
	disk, memory := &failing{errno: syscall.EIO}, vfs.NewMem()
	store := open(t, small(disk.fs(memory)))
	fill(t, store)
	if err := commit(store, "lost"); err != nil {
		t.Fatal(err)
	}
	disk.begin("MANIFEST")
	if err := store.Flush(); !errors.Is(err, syscall.EIO) {
		t.Errorf("Flush: %v, want EIO", err)
	}
	disk.end()
	for name, err := range map[string]error{"Flush": store.Flush(), "commit": commit(store, "x"), "Close": store.Close()} {
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("%s after the manifest failed: %v, want EIO", name, err)
		}
	}
	store = open(t, small(memory))
	key, want := row(rows - 1)
	if got, err := store.Get(key); err != nil || string(got) != string(want) {
		t.Errorf("a row that was durable is %q, %v; want %q", got, err, want)
	}
	if err := errors.Join(commit(store, "again"), store.Close()); err != nil {
		t.Error(err)
	}
}

// compactionFails makes every file fail that a compaction wants to write.
type compactionFails struct {
	vfs.FS

	full atomic.Bool
}

func (f *compactionFails) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if f.full.Load() && category == "pebble-compaction" {
		return nil, syscall.ENOSPC
	}
	return f.FS.Create(name, category)
}

// Flushes go on while compactions fail: what was committed becomes durable, but no more is taken
// before it gets worse.
func TestFailingCompactionRefusesCommitsUntilOneSucceeds(t *testing.T) {
	disk := &compactionFails{FS: vfs.NewMem()}
	disk.full.Store(true)
	options := small(disk)
	reported := make(chan error, 10)
	options.OnFailure = func(err error) { reported <- err }
	store := open(t, options)
	// The same keys again and again, so that tables must be merged. Once there are enough of them for
	// that, no more are made before it has failed: at twelve, Pebble blocks the next flush.
	const enough = 8
	var err error
	for err == nil && store.Stats().L0Tables < enough {
		err = errors.Join(commit(store, "a"), commit(store, "z"))
		if err == nil {
			err = store.Flush()
		}
	}
	if failure := <-reported; !errors.Is(failure, syscall.ENOSPC) {
		t.Errorf("%v is reported, want ENOSPC", failure)
	}
	if err = cmp.Or(err, commit(store, "a")); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("commit while compactions fail: %v, want ENOSPC", err)
	}
	if err := store.Flush(); err != nil {
		t.Errorf("Flush while compactions fail: %v", err)
	}
	disk.full.Store(false)
	for commit(store, "a") != nil {
		runtime.Gosched() // Pebble tries again by itself
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

func TestRefusedIngestLeavesNoFiles(t *testing.T) {
	fs := vfs.NewMem()
	store := open(t, small(fs))
	keys := []string{}
	for i := range rows {
		keys = append(keys, fmt.Sprintf("%06d", i))
	}
	keys = append(keys, "000000")
	err := store.Ingest(func() (materializer.Row, bool) {
		if len(keys) == 0 {
			return materializer.Row{}, false
		}
		key := keys[0]
		keys = keys[1:]
		return materializer.Row{Key: []byte(key), Value: make([]byte, 200)}, true
	})
	if err == nil {
		t.Error("keys that do not ascend were taken")
	}
	names, err := fs.List("store/ingest")
	if err != nil || len(names) != 0 {
		t.Errorf("files left: %q, %v", names, err)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

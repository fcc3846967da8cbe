package embedded

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// TestBitFlip flips one bit of a closed log. Then opening or reading fails with an error that names
// the directory, or every record is as it was written: never a wrong one, never one missing without
// an error.
func TestBitFlip(t *testing.T) {
	whole, results, kinds := vfs.NewCrashableMem(), newLedger(), map[string]int{}
	fillForDamage(t, Options{Dir: "/log", FS: whole, MemTableBytes: minMemTableBytes}, results, 1)
	for seed := range 25 * *seeds {
		flipBit(t, whole, results, seed, kinds)
	}
	t.Logf("outcomes: %v", kinds)
	for _, kind := range []string{".sst", ".log", "MANIFEST"} {
		if kinds["detected in "+kind] == 0 {
			t.Errorf("no flip in a %s file was detected: %v", kind, kinds)
		}
	}
}

func flipBit(t *testing.T, whole *vfs.MemFS, results *ledger, seed uint64, kinds map[string]int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 3))
	mem := whole.CrashClone(vfs.CrashCloneCfg{})
	options := Options{Dir: "/log", FS: mem, MemTableBytes: minMemTableBytes}
	name, data := randomFile(t, mem, rng)
	bit := rng.IntN(len(data) * 8)
	data[bit/8] ^= 1 << (bit % 8)
	kind := path.Ext(name)
	if kind == "" {
		kind, _, _ = strings.Cut(name, "-") // MANIFEST-000001
	}
	if err := readDamaged(t, options, results); err != nil {
		if !strings.Contains(err.Error(), "/log") {
			t.Errorf("seed %d: bit %d of %s: the error does not name the directory: %v", seed, bit, name, err)
		}
		kinds["detected in "+kind]++
		return
	}
	kinds["harmless in "+kind]++
}

// fillForDamage makes a log with tables and a WAL that holds records.
func fillForDamage(t *testing.T, options Options, results *ledger, seed uint64) {
	t.Helper()
	log, err := Open(options)
	if err != nil {
		t.Fatal(err)
	}
	createTestTopic(t, log)
	results.writers(t, log, "w", seed, 2, 800, always)
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
}

// randomFile picks a file by kind first, so that the few big tables do not get all the hits.
func randomFile(t *testing.T, mem *vfs.MemFS, rng *rand.Rand) (string, []byte) {
	t.Helper()
	names, err := mem.List("/log")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	for {
		name := names[rng.IntN(len(names))]
		data, err := mem.UnsafeGetFileDataBuffer("/log/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > 0 {
			return name, data
		}
	}
}

// readDamaged opens the log and reads everything; without an error all must be right.
func readDamaged(t *testing.T, options Options, results *ledger) error {
	t.Helper()
	log, err := Open(options)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // a damaged one may say so again
	for p := range results.acked {
		if _, err := readAll(t.Context(), log, p); err != nil {
			return err
		}
	}
	results.verify(t, log)
	return nil
}

// TestDamageInTheFirstWALIsNoTornTail kills a log that was never closed and damages the middle of
// its first WAL: the records after it were acknowledged, so it must not pass for the end. (In the
// last block of 32 KiB the two cannot be distinguished.)
func TestDamageInTheFirstWALIsNoTornTail(t *testing.T) {
	live := vfs.NewCrashableMem()
	log := mustOpen(t, Options{Dir: "/log", FS: live})
	createTestTopic(t, log)
	const appends, size = 20, 8 << 10
	for range appends {
		if r := appendWait(log, 0, strings.Repeat("v", size)); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	mem := live.CrashClone(vfs.CrashCloneCfg{})
	names, err := mem.List("/log")
	if err != nil {
		t.Fatal(err)
	}
	var wal []byte // the one that has the records: others are filled with zeros ahead
	for _, name := range names {
		data, err := mem.UnsafeGetFileDataBuffer("/log/" + name)
		if err == nil && path.Ext(name) == ".log" && bytes.Count(data, []byte("v")) > bytes.Count(wal, []byte("v")) {
			wal = data
		}
	}
	wal[appends/2*size] ^= 1
	opened, err := Open(Options{Dir: "/log", FS: mem})
	if err == nil {
		_ = opened.Close()
	}
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "/log") {
		t.Errorf("opening the damaged log: %v, want an error that names it", err)
	}
}

// TestMissingFile removes each file of a closed log in turn. A missing file that is needed must be
// detected.
func TestMissingFile(t *testing.T) {
	whole, results := vfs.NewCrashableMem(), newLedger()
	fillForDamage(t, Options{Dir: "/log", FS: whole, MemTableBytes: minMemTableBytes}, results, 1)
	names, err := whole.List("/log")
	if err != nil {
		t.Fatal(err)
	}
	missed := 0
	for _, name := range names {
		mem := whole.CrashClone(vfs.CrashCloneCfg{})
		if err := mem.Remove("/log/" + name); err != nil {
			t.Fatal(err)
		}
		err := readDamaged(t, Options{Dir: "/log", FS: mem, MemTableBytes: minMemTableBytes}, results)
		if err == nil {
			continue // not needed: readDamaged has seen every record
		}
		missed++
		if !strings.Contains(err.Error(), "/log") {
			t.Errorf("without %s: the error does not name the directory: %v", name, err)
		}
		if path.Ext(name) == ".sst" && (!errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), restoreAdvice)) {
			t.Errorf("without %s: the error does not say what to do: %v", name, err)
		}
	}
	if missed < 4 { // FORMAT, a table, a WAL, the manifest
		t.Errorf("only %d of %d files were missed: %q", missed, len(names), names)
	}
}

// TestDamagedRecordIsNamed changes a stored record without breaking the database's own checksums.
func TestDamagedRecordIsNamed(t *testing.T) {
	cases := map[string]func(row []byte) []byte{
		"value changed":   func(row []byte) []byte { row[len(row)-1] ^= 1; return row },
		"header changed":  func(row []byte) []byte { row[flagsAt] ^= 1; return row },
		"cut off":         func(row []byte) []byte { return row[:len(row)-1] },
		"almost nothing":  func(row []byte) []byte { return row[:3] },
		"empty":           func([]byte) []byte { return nil },
		"unknown version": func(row []byte) []byte { row[0] = 200; return row },
	}
	for name, damage := range cases {
		t.Run(name, func(t *testing.T) {
			log := mustOpen(t, Options{Ephemeral: true})
			createTestTopic(t, log)
			p := broker.Partition{Topic: testTopic, ID: 1}
			for i := range 3 {
				if r := appendWait(log, 1, fmt.Sprintf("w %d 0 1", i)); r.Err != nil {
					t.Fatal(r.Err)
				}
			}
			rewriteRow(t, log, recordKey(1, 1, 1), damage)
			values, err := readAll(t.Context(), log, p)
			if len(values) != 1 || !errors.Is(err, ErrCorrupt) {
				t.Fatalf("read %q, %v; want the first record and ErrCorrupt", values, err)
			}
			for _, part := range []string{log.Dir(), testTopic, "partition 1", "offset 1", "backup"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error does not say %q: %v", part, err)
				}
			}
		})
	}
}

func TestMissingRecordIsNamed(t *testing.T) {
	for _, offset := range []int64{0, 1, 2} {
		log := mustOpen(t, Options{Ephemeral: true})
		createTestTopic(t, log)
		for i := range 3 {
			if r := appendWait(log, 0, fmt.Sprintf("w %d 0 1", i)); r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		if err := log.current.Load().Delete(recordKey(1, 0, offset), pebble.Sync); err != nil {
			t.Fatal(err)
		}
		values, err := readAll(t.Context(), log, broker.Partition{Topic: testTopic})
		if int64(len(values)) != offset || !errors.Is(err, ErrCorrupt) || !errors.Is(err, errMissing) {
			t.Errorf("without offset %d: read %q, %v", offset, values, err)
		}
	}
}

// rewriteRow replaces a row, as a failing memory might.
func rewriteRow(t *testing.T, log *Log, key []byte, change func([]byte) []byte) {
	t.Helper()
	db := log.current.Load()
	row, closer, err := db.Get(key)
	if err != nil {
		t.Fatal(err)
	}
	changed := change(slices.Clone(row))
	if err := firstError(closer.Close(), db.Set(key, changed, pebble.Sync)); err != nil {
		t.Fatal(err)
	}
}

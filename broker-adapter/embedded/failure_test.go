package embedded

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/internal/backoff"
	"github.com/millrace-io/millrace/internal/clock/clocktest"
)

// faultyDisk fails operations that write, while it is switched on.
type faultyDisk struct {
	// countdown is how many operations still succeed; left is how many fail after that.
	countdown, left atomic.Int64
	err             error
}

func (d *faultyDisk) inject(op errorfs.Op) error {
	switch op.Kind {
	case errorfs.OpCreate, errorfs.OpRename, errorfs.OpReuseForWrite, errorfs.OpFileWrite, errorfs.OpFileWriteAt,
		errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo, errorfs.OpFilePreallocate, errorfs.OpFileClose:
	default:
		return nil
	}
	if d.countdown.Add(-1) >= 0 || d.left.Add(-1) < 0 {
		return nil
	}
	return d.err
}

// after arranges that the next good operations succeed and bad ones after them fail.
func (d *faultyDisk) after(good, bad int64) {
	d.left.Store(bad)
	d.countdown.Store(good)
}

const forEver = 1 << 40

// TestDiskFull: an append on a full disk has an unknown outcome, later ones are refused, an attempt
// to open the log again fails, and appends succeed when there is space again. The clock is set by
// the test.
func TestDiskFull(t *testing.T) {
	disk, turned := &faultyDisk{err: syscall.ENOSPC}, clocktest.NewManual(time.Unix(1_000_000, 0))
	disk.after(forEver, 0)
	mem := vfs.NewCrashableMem()
	log := mustOpen(t, Options{Dir: "/log", FS: errorfs.Wrap(mem, errorfs.InjectorFunc(disk.inject)), Clock: turned})
	createTestTopic(t, log)
	if r := appendWait(log, 0, "w 0 0 1"); r.Err != nil {
		t.Fatal(r.Err)
	}

	disk.after(0, forEver)
	r := appendWait(log, 0, "w 1 0 1")
	if !errors.Is(r.Err, ErrOutcomeUnknown) || !errors.Is(r.Err, syscall.ENOSPC) {
		t.Fatalf("append onto a full disk: %v", r.Err)
	}
	r = appendWait(log, 0, "w 2 0 1")
	if !errors.Is(r.Err, ErrFailed) || !errors.Is(r.Err, syscall.ENOSPC) || errors.Is(r.Err, ErrOutcomeUnknown) {
		t.Fatalf("append to a failed log: %v", r.Err)
	}
	for _, part := range []string{"/log", "no space left on device", "free space on its disk"} {
		if !strings.Contains(r.Err.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, r.Err)
		}
	}
	if s := log.Stats(); s.State != StateFailed || s.LastError == nil || s.Failures != 1 {
		t.Errorf("stats of a failed log: %+v", s)
	}
	if end, err := log.End(t.Context(), broker.Partition{Topic: testTopic}); err != nil || end != 1 {
		t.Errorf("end of a failed log is %d, %v", end, err)
	}

	turned.Advance(time.Minute) // an attempt on a disk that is still full
	if r := appendWait(log, 0, "w 3 0 1"); !errors.Is(r.Err, ErrFailed) {
		t.Fatalf("append while the disk is still full: %v", r.Err)
	}
	disk.after(forEver, 0)
	r = appendUntilBack(t, log, turned)
	if s := log.Stats(); s.State != StateReady || s.Reopened != 1 {
		t.Errorf("stats of a log that is back: %+v", s)
	}
	told := newLedger()
	told.refused["w 2 0 1"], told.refused["w 3 0 1"] = true, true
	told.acked[broker.Partition{Topic: testTopic}] = map[int64]string{0: "w 0 0 1", r.Base: "back 0 0 1"}
	told.verify(t, log)
}

// appendUntilBack advances the clock until an append succeeds.
func appendUntilBack(t *testing.T, log *Log, turned *clocktest.Manual) broker.AppendResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for ctx.Err() == nil {
		turned.Advance(time.Minute)
		r := appendWait(log, 0, "back 0 0 1")
		if r.Err == nil {
			return r
		}
		if !errors.Is(r.Err, ErrFailed) {
			t.Fatal(r.Err)
		}
	}
	t.Fatal("the log did not come back")
	return broker.AppendResult{}
}

// TestDiskFailsAnywhere makes writes, syncs, creations, renames and closes fail at a random
// operation, once or for a while, under load. All acknowledged records must be there, before and
// after a power cut that loses everything not synced.
func TestDiskFailsAnywhere(t *testing.T) {
	for _, err := range []error{syscall.ENOSPC, syscall.EIO} {
		for seed := range *seeds {
			t.Run(fmt.Sprintf("%v/seed=%d", err, seed), func(t *testing.T) {
				t.Parallel()
				failAnywhere(t, err, seed)
			})
		}
	}
}

func failAnywhere(t *testing.T, injected error, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 7))
	disk, mem, told := &faultyDisk{err: injected}, vfs.NewCrashableMem(), newLedger()
	disk.after(forEver, 0)
	options := Options{
		Dir: "/log", FS: errorfs.Wrap(mem, errorfs.InjectorFunc(disk.inject)), MemTableBytes: minMemTableBytes,
		Retry: backoff.Policy{First: time.Microsecond, Max: time.Millisecond},
	}
	log := mustOpen(t, options)
	createTestTopic(t, log)
	for round := range 6 {
		bad := int64(1)
		if rng.IntN(2) == 0 {
			bad = rng.Int64N(300)
		}
		disk.after(rng.Int64N(400), bad)
		told.writers(t, log, fmt.Sprintf("until%d-", round), seed, 4, 1<<20,
			func() bool { return disk.countdown.Load() >= 0 })
		told.writers(t, log, fmt.Sprintf("after%d-", round), seed, 4, 100, always)
	}
	disk.after(forEver, 0)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i := 0; ; i++ {
		err := appendWait(log, 0, fmt.Sprintf("end %d 0 1", i)).Err
		if err == nil {
			break
		}
		if ctx.Err() != nil || errors.Is(err, broker.ErrRegressed) {
			t.Fatalf("the log did not come back: %v", err)
		}
	}
	told.verify(t, log)
	after := mem.CrashClone(vfs.CrashCloneCfg{})
	again := mustOpen(t, Options{Dir: "/log", FS: after, MemTableBytes: minMemTableBytes})
	told.verify(t, again)
	if s := log.Stats(); s.Failures == 0 {
		t.Error("no failure was injected")
	}
}

// TestReadersSurviveAFailure has a reader wait while the disk fails and the log comes back.
func TestReadersSurviveAFailure(t *testing.T) {
	disk, turned := &faultyDisk{err: syscall.EIO}, clocktest.NewManual(time.Unix(1_000_000, 0))
	disk.after(forEver, 0)
	log := mustOpen(t, Options{
		Dir: "/log", FS: errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(disk.inject)), Clock: turned,
	})
	createTestTopic(t, log)
	for i := range 3 {
		if r := appendWait(log, 0, fmt.Sprintf("w %d 0 1", i)); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	r, err := log.Read(broker.Partition{Topic: testTopic}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	disk.after(0, forEver)
	if r := appendWait(log, 0, "w 3 0 1"); !errors.Is(r.Err, ErrOutcomeUnknown) {
		t.Fatal(r.Err)
	}
	if r := appendWait(log, 0, "w 4 0 1"); !errors.Is(r.Err, ErrFailed) { // the database is closed now
		t.Fatal(r.Err)
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.Next(short); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrFailed) {
		t.Fatalf("reading from a failed log: %v", err)
	}
	disk.after(forEver, 0)
	appendUntilBack(t, log, turned)
	batch, err := r.Next(t.Context())
	if err != nil || string(batch.Records[0].Value) != "w 0 0 1" {
		t.Fatalf("reading from a log that is back: %v, %v", batch, err)
	}
}

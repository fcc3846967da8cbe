package observe

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// A duration lies above the bound of the bucket before and not above its own.
func TestBucketsEncloseTheirDurations(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	durations := []time.Duration{0, 1, 1023, 1024, 1025, 1280, 1281, 1<<36 - 1, 1 << 36}
	for range 10_000 {
		durations = append(durations, time.Duration(random.Int64N(1<<random.IntN(37))))
	}
	for _, d := range durations {
		b := bucketOf(d)
		if d > boundOf(b) || b > 0 && d <= boundOf(b-1) {
			t.Fatalf("%v is in bucket %d, which ends at %v", d, b, boundOf(b))
		}
	}
	for _, d := range []time.Duration{1<<36 + 1, time.Hour} {
		if b := bucketOf(d); b != buckets-1 {
			t.Errorf("%v is in bucket %d, want the last", d, b)
		}
	}
}

func TestQuantileIsAtMostAQuarterTooHigh(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var h Histogram
	durations := make([]time.Duration, 1000)
	for i := range durations {
		durations[i] = 2*time.Microsecond + time.Duration(random.ExpFloat64()*float64(time.Millisecond))
		h.Observe(durations[i])
	}
	slices.Sort(durations)
	s := h.Snapshot()
	for _, q := range []float64{0, 0.5, 0.9, 0.99, 1} {
		exact := durations[min(int(q*1000), 999)]
		if got := s.Quantile(q); got < exact || got > exact+exact/4+1 {
			t.Errorf("quantile %v is %v, want %v to %v", q, got, exact, exact+exact/4)
		}
	}
}

func TestEmptyAndOverlongSnapshots(t *testing.T) {
	var h Histogram
	empty := h.Snapshot()
	if got := empty.Quantile(0.99); got != 0 {
		t.Errorf("quantile of nothing is %v, want 0", got)
	}
	h.Observe(time.Hour)
	h.Observe(-time.Second)
	full := h.Snapshot()
	if got, want := full.Quantile(1), time.Duration(1<<36); got != want {
		t.Errorf("an hour is reported as %v, want the last bound %v", got, want)
	}
	if full.Count != 2 || full.Sum != time.Hour {
		t.Errorf("count %d, sum %v; want 2 and one hour", full.Count, full.Sum)
	}
	if diff := full.Since(&empty); diff != full {
		t.Errorf("difference to an empty snapshot is %+v", diff)
	}
	if diff := full.Since(&full); diff != empty {
		t.Errorf("difference to itself is %+v", diff)
	}
}

func TestObserveFromManyGoroutines(t *testing.T) {
	const goroutines, each = 8, 1000
	var h Histogram
	var observers sync.WaitGroup
	for range goroutines {
		observers.Go(func() {
			for i := range each {
				h.Observe(time.Duration(i) * time.Microsecond)
			}
		})
	}
	observers.Wait()
	if s := h.Snapshot(); s.Count != goroutines*each {
		t.Errorf("%d observations, want %d", s.Count, goroutines*each)
	}
}

func TestObserveDoesNotAllocate(t *testing.T) {
	var h Histogram
	if n := testing.AllocsPerRun(100, func() { h.Observe(time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

package effects

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	"github.com/millrace-io/millrace/internal/failpoint"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kit"
)

// timerCallers is how many callers set timers at a time.
const timerCallers = 64

// each calls on for 0 to n-1, from many goroutines, and ends the test at the first error.
func each(t *testing.T, n int, on func(ctx context.Context, i int) error) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var (
		next    atomic.Int64
		callers sync.WaitGroup
	)
	for range timerCallers {
		callers.Go(func() { // waited for below
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := on(ctx, i); err != nil {
					cancel(fmt.Errorf("%d of %d: %w", i, n, err))
				}
			}
		})
	}
	callers.Wait()
	if err := context.Cause(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestTimersFireOnce sets many timers that are due at the same time, kills the worker before that
// and while they fire, deletes its store once, and finds that every one has fired once.
func TestTimersFireOnce(t *testing.T) {
	n := kit.Timers.Number(t)
	p := harness.Start(t, harness.Options{Program: "tests/e2e/mirror", Tags: "failpoints"})
	counters := counterv1.NewCounterServiceClient(p.Dial(t))
	began := time.Now()
	due := began.Add(5*time.Second + time.Duration(n)*200*time.Microsecond)
	each(t, n, func(ctx context.Context, i int) error {
		ctx = metadata.AppendToOutgoingContext(ctx, "millrace-command-id", "set")
		_, err := counters.Increment(ctx,
			&counterv1.IncrementRequest{CounterId: "t-" + strconv.Itoa(i), By: due.UnixMilli()}, grpc.WaitForReady(true))
		return err
	})
	set := time.Since(began)
	if time.Now().After(due) {
		t.Fatalf("setting %d timers took %v: some were due before the last was set", n, set)
	}
	p.Kill(t)
	p.Arm(fmt.Sprintf("%s=%s:%d", failpoint.Variable, failpoint.BeforeTimer, n/3))
	p.Respawn(t)
	p.AwaitExitWithin(t, time.Until(due)+10*time.Minute) // it is killed while they fire
	p.DeleteStore(t)
	p.Arm()
	p.Restart(t)
	fired(t, p, n)
	took := time.Since(due)

	late := make([]int64, n)
	each(t, n, func(ctx context.Context, i int) error {
		c, err := counters.Get(ctx, &counterv1.GetRequest{CounterId: "t-" + strconv.Itoa(i)}, grpc.WaitForReady(true))
		if err == nil && c.GetValue()&0xff != 1 {
			err = fmt.Errorf("it fired %d times", c.GetValue()&0xff)
		}
		late[i] = c.GetValue() >> 8
		return err
	})
	slices.Sort(late)
	t.Logf("timers: %d set in %.1f s, all due at once, worker killed before and in the middle, store deleted; each fired once; the last %.1f s after the due time, lateness p50 %d ms, p99 %d ms",
		n, set.Seconds(), took.Seconds(), late[n/2], late[n*99/100])
}

// TestTimersAreOnTime sets timers that are due one after the other, and prints how late they are
// when nothing fails.
func TestTimersAreOnTime(t *testing.T) {
	const n, spread = 2000, 4 * time.Second
	p := harness.Start(t, harness.Options{Program: "tests/e2e/mirror", Tags: "failpoints"})
	counters := counterv1.NewCounterServiceClient(p.Dial(t))
	first := time.Now().Add(3 * time.Second)
	each(t, n, func(ctx context.Context, i int) error {
		due := first.Add(spread / n * time.Duration(i))
		_, err := counters.Increment(ctx, &counterv1.IncrementRequest{CounterId: "t-" + strconv.Itoa(i), By: due.UnixMilli()})
		return err
	})
	kit.Await(t, "every timer is due", func() bool { return time.Now().After(first.Add(spread)) })
	fired(t, p, n)
	late := make([]int64, n)
	each(t, n, func(ctx context.Context, i int) error {
		c, err := counters.Get(ctx, &counterv1.GetRequest{CounterId: "t-" + strconv.Itoa(i)})
		if err == nil && (c.GetValue()&0xff != 1 || c.GetValue() < 0) {
			err = fmt.Errorf("it fired %d times, %d ms late", c.GetValue()&0xff, c.GetValue()>>8)
		}
		late[i] = c.GetValue() >> 8
		return err
	})
	slices.Sort(late)
	t.Logf("timers: %d over %v, lateness p50 %d ms, p99 %d ms, worst %d ms", n, spread, late[n/2], late[n*99/100],
		late[n-1])
}

// fired waits until no timer is left.
func fired(t *testing.T, p *harness.Process, n int) {
	t.Helper()
	admin := adminv1.NewAdminServiceClient(p.DialAdmin(t))
	patience := time.Minute + time.Duration(n)*time.Millisecond
	kit.AwaitWithin(t, patience, "every timer has fired", func() bool {
		s, err := admin.Status(t.Context(), &adminv1.StatusRequest{})
		if err != nil || len(s.GetPartitions()) == 0 {
			return false
		}
		for _, partition := range s.GetPartitions() {
			if partition.GetState() != "active" || partition.GetTimers() > 0 || partition.GetMoreTimers() ||
				partition.GetWaitingCommands() > 0 {
				return false
			}
		}
		return true
	})
}

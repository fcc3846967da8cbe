package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/internal/clock"
	"github.com/millrace-io/millrace/internal/clock/clocktest"
	"github.com/millrace-io/millrace/internal/leaktest"
	"github.com/millrace-io/millrace/internal/lifecycle"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

var errDisk = errors.New("disk is full")

// untilStopped is a task that waits for its context and reports the cause.
func untilStopped(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func newGroup(t *testing.T) *lifecycle.Group {
	t.Helper()
	return lifecycle.New(t.Context(), clock.Wall{})
}

func states(g *lifecycle.Group) string {
	var list []string
	for _, s := range g.Status() {
		list = append(list, fmt.Sprintf("%s=%s", s.Name, s.State))
	}
	return strings.Join(list, " ")
}

func TestFirstFailureStopsAllAndIsNamed(t *testing.T) {
	g := newGroup(t)
	var seen error
	g.Start("gateway", func(ctx context.Context) error {
		<-ctx.Done()
		seen = context.Cause(ctx)
		return ctx.Err()
	})
	g.Start("store", func(context.Context) error { return errDisk })
	err := g.Wait()
	if want := "task store: disk is full"; err == nil || err.Error() != want || !errors.Is(err, errDisk) {
		t.Errorf("Wait: %v, want %s", err, want)
	}
	if !errors.Is(seen, errDisk) {
		t.Errorf("the other task saw the cause %v, want %v", seen, errDisk)
	}
	if got, want := states(g), "gateway=stopped store=failed"; got != want {
		t.Errorf("states %q, want %q", got, want)
	}
	if err := g.Status()[1].Err; !errors.Is(err, errDisk) {
		t.Errorf("status of store carries %v, want %v", err, errDisk)
	}
}

func TestStopWithoutCauseIsNoError(t *testing.T) {
	g := newGroup(t)
	g.Start("one", untilStopped)
	g.Start("two", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	g.Stop(nil)
	g.Stop(errDisk) // too late: the first stop counts
	if err := g.Wait(); err != nil {
		t.Errorf("Wait: %v, want nil", err)
	}
	if err := g.Wait(); err != nil {
		t.Errorf("second Wait: %v, want nil", err)
	}
	if got, want := states(g), "one=stopped two=stopped"; got != want {
		t.Errorf("states %q, want %q", got, want)
	}
}

func TestStopWithCauseIsReported(t *testing.T) {
	g := newGroup(t)
	g.Start("one", untilStopped)
	g.Stop(errDisk)
	if err := g.Wait(); !errors.Is(err, errDisk) {
		t.Errorf("Wait: %v, want %v", err, errDisk)
	}
}

func TestFailureWhileStoppingIsReported(t *testing.T) {
	g := newGroup(t)
	g.Start("store", func(ctx context.Context) error {
		<-ctx.Done()
		return errDisk
	})
	g.Stop(nil)
	if err := g.Wait(); err == nil || err.Error() != "task store: disk is full" {
		t.Errorf("Wait: %v, want the store's failure", err)
	}
}

func TestTaskThatIsDoneStopsNoOther(t *testing.T) {
	g := newGroup(t)
	g.Start("short", func(context.Context) error { return nil })
	if err := g.Wait(); err != nil {
		t.Fatalf("Wait: %v", err)
	}
	g.Start("long", untilStopped)
	if got, want := states(g), "short=done long=running"; got != want {
		t.Errorf("states %q, want %q", got, want)
	}
	g.Stop(nil)
	if err := g.Wait(); err != nil {
		t.Errorf("Wait: %v", err)
	}
}

func TestPanicIsTrappedWithItsStack(t *testing.T) {
	g := newGroup(t)
	g.Start("bad", func(context.Context) error { panicHere(); return nil })
	err := g.Wait()
	if !errors.Is(err, errDisk) {
		t.Fatalf("Wait: %v, want the panic's value to be in the chain", err)
	}
	trapped, ok := errors.AsType[*lifecycle.PanicError](err)
	if !ok || !strings.Contains(string(trapped.Stack), "panicHere") {
		t.Errorf("no stack of the panic in %#v", err)
	}
}

func panicHere() { panic(errDisk) }

func TestGoexitIsAFailure(t *testing.T) {
	g := newGroup(t)
	g.Start("gone", func(context.Context) error { runtime.Goexit(); return nil })
	if err := g.Wait(); err == nil || !strings.Contains(err.Error(), "task gone: ") {
		t.Errorf("Wait: %v, want a failure of task gone", err)
	}
}

func TestStartAfterStopDoesNotRun(t *testing.T) {
	g := newGroup(t)
	g.Stop(nil)
	g.Start("late", func(context.Context) error { return errDisk })
	if err := g.Wait(); err != nil {
		t.Errorf("Wait: %v, want nil", err)
	}
	if got, want := states(g), "late=stopped"; got != want {
		t.Errorf("states %q, want %q", got, want)
	}
}

func TestParentEndsTheGroup(t *testing.T) {
	for _, tc := range []struct{ cause, want error }{{nil, nil}, {errDisk, errDisk}} {
		ctx, cancel := context.WithCancelCause(t.Context())
		g := lifecycle.New(ctx, clock.Wall{})
		g.Start("one", untilStopped)
		cancel(tc.cause)
		<-g.Stopping()
		if err := g.Wait(); !errors.Is(err, tc.want) {
			t.Errorf("parent ended with %v: Wait: %v, want %v", tc.cause, err, tc.want)
		}
	}
}

func TestStatusShowsWhenTheStateBegan(t *testing.T) {
	start := time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)
	clk := clocktest.NewManual(start)
	g := lifecycle.New(t.Context(), clk)
	g.Start("one", untilStopped)
	if got := g.Status()[0].Since; !got.Equal(start) {
		t.Errorf("running since %v, want %v", got, start)
	}
	clk.Advance(time.Minute)
	g.Stop(nil)
	if err := g.Wait(); err != nil {
		t.Fatalf("Wait: %v", err)
	}
	if got, want := g.Status()[0].Since, start.Add(time.Minute); !got.Equal(want) {
		t.Errorf("stopped since %v, want %v", got, want)
	}
}

// Starts, stops and waits from many goroutines at once; for the race detector and the leak check.
func TestStartStopWaitTogether(t *testing.T) {
	g := newGroup(t)
	var callers sync.WaitGroup
	for i := range 8 {
		callers.Go(func() {
			for j := range 20 {
				g.Start(fmt.Sprintf("%d/%d", i, j), untilStopped)
			}
			g.Stop(nil)
			if err := g.Wait(); err != nil {
				t.Errorf("Wait: %v", err)
			}
		})
	}
	callers.Wait()
	if err := g.Wait(); err != nil {
		t.Errorf("Wait: %v", err)
	}
	if slices.ContainsFunc(g.Status(), func(s lifecycle.Status) bool { return s.State != lifecycle.Stopped }) {
		t.Errorf("not all stopped: %s", states(g))
	}
}

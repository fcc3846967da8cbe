package host_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/host"
)

// soon is the deadline of callers, by the time of a bubble.
const soon = 300 * time.Millisecond

// impatiently runs a test with a function of this process, in a bubble, and with contexts that end
// soon.
func impatiently(
	t *testing.T, test func(t *testing.T, h *host.Host, f *localFunction, end func(byCancel bool) context.Context),
) {
	t.Helper()
	spec := newSpec(t)
	synctest.Test(t, func(t *testing.T) {
		f := &localFunction{spec: spec, deaf: make(chan struct{})}
		h := host.New(host.Settings{})
		set(t, h, newInProcess(t, f, host.Hooks{OnSessionFault: func(key entities.Key, err *entities.Error) {
			t.Errorf("%s is said to have crashed: %v", key, err.Cause)
		}}))
		test(t, h, f, func(byCancel bool) context.Context {
			ctx, cancel := context.WithTimeout(t.Context(), soon)
			t.Cleanup(cancel)
			if byCancel {
				ctx, cancel = context.WithCancel(t.Context())
				time.AfterFunc(soon, cancel)
			}
			return ctx
		})
	})
}

// A function that returns the error of its context has given the call up: it did not crash.
func TestGivenUpIsNotCrashed(t *testing.T) {
	impatiently(t, func(t *testing.T, h *host.Host, _ *localFunction, end func(bool) context.Context) {
		for byCancel, reason := range map[bool]entities.Reason{false: entities.Deadline, true: entities.Cancelled} {
			_, err := h.Act(end(byCancel), invocation("t.Acts", "Do", entities.Key{}, "wait"))
			wantError(t, err, reason, entities.Unknown, "while the function worked")
			s := streamOf("Out", nil)
			s.Payload = textPayload("wait")
			err = h.ActStream(end(byCancel), s, collect(new([]string)))
			wantError(t, err, reason, entities.Unknown, "while the function worked")
			session, err := h.Open(t.Context(), "t.Carts", cartKey, nothingStored)
			if err != nil {
				t.Fatal(err)
			}
			_, err = session.Handle(end(byCancel), invocation("t.Carts", "Add", cartKey, "wait"))
			wantError(t, err, reason, entities.NotApplied, "nothing was applied")
			session.Close(t.Context())
		}
	})
}

// The caller of an action that does not look at its context is let go at its deadline. What the
// action sends later does not reach it.
func TestActionsAreLeftAtTheDeadline(t *testing.T) {
	impatiently(t, func(t *testing.T, h *host.Host, f *localFunction, end func(bool) context.Context) {
		began := time.Now()
		_, err := h.Act(end(false), invocation("t.Acts", "Do", entities.Key{}, "deaf"))
		wantError(t, err, entities.Deadline, entities.Unknown, "while the function worked")
		s := streamOf("Out", nil)
		s.Payload = textPayload("deaf")
		var outcomes []string
		err = h.ActStream(end(false), s, collect(&outcomes))
		wantError(t, err, entities.Deadline, entities.Unknown, "while the function worked")
		if took := time.Since(began); took != 2*soon {
			t.Errorf("both took %v", took)
		}
		close(f.deaf)
		synctest.Wait()
		if len(outcomes) > 0 {
			t.Errorf("the caller that left gets %v", outcomes)
		}
	})
}

// There is a bound to the actions that run although their callers have left.
func TestForsakenActionsAreBounded(t *testing.T) {
	impatiently(t, func(t *testing.T, h *host.Host, f *localFunction, end func(bool) context.Context) {
		act := func(ctx context.Context, word string) error {
			_, err := h.Act(ctx, invocation("t.Acts", "Do", entities.Key{}, word))
			return err
		}
		ctx, cancel := context.WithDeadline(t.Context(), time.Now())
		defer cancel()
		for n := 0; ; n++ {
			err := act(ctx, "deaf")
			if entities.AsError(err).Reason != entities.Deadline {
				wantError(t, err, entities.Overloaded, entities.NotApplied, fmt.Sprintf("too many actions, %d, still run", n))
				break
			}
		}
		close(f.deaf)
		synctest.Wait()
		if err := act(end(false), "x"); err != nil {
			t.Error(err)
		}
	})
}

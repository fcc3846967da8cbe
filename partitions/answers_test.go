package partitions

import (
	"context"
	"errors"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/entities"
)

// This file is how tests send commands to a partition, and check what their callers get.

// answer is what a caller got.
type answer struct {
	text string
	err  error
	done entities.Committed
}

func (f *fixture) submit(cmd *entities.Command) answer {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 10*time.Second)
	defer cancel()
	done, err := f.p.Submit(ctx, cmd)
	a := answer{err: err, done: done}
	switch {
	case err != nil:
	case done.Outcome.Failure != nil:
		a.text = "refused: " + done.Outcome.Failure.Message
	case done.Outcome.Reply != nil:
		a.text = string(done.Outcome.Reply.Payload.Value)
	}
	return a
}

// later submits on another goroutine.
func (f *fixture) later(cmd *entities.Command) <-chan answer {
	ch := make(chan answer, 1)
	go func() { ch <- f.submit(cmd) }() // received by the test
	return ch
}

func (f *fixture) receive(ch <-chan answer) answer {
	f.t.Helper()
	select {
	case a := <-ch:
		return a
	case <-time.After(10 * time.Second):
		f.t.Fatal("no answer")
		return answer{}
	}
}

// silent checks that there is no answer although everything that can happen has happened: all
// goroutines of the test's synctest bubble wait for the test.
func (f *fixture) silent(ch <-chan answer) {
	f.t.Helper()
	synctest.Wait()
	select {
	case a := <-ch:
		f.t.Fatalf("answered too early: %q, %v", a.text, a.err)
	default:
	}
}

func (f *fixture) want(a answer, text string) {
	f.t.Helper()
	if a.err != nil || a.text != text {
		f.t.Fatalf("answer %q, %v; want %q", a.text, a.err, text)
	}
}

func (f *fixture) wantError(a answer, reason entities.Reason, outcome entities.OutcomeClass) {
	f.t.Helper()
	e, ok := errors.AsType[*entities.Error](a.err)
	if !ok || e.Reason != reason || e.Outcome != outcome {
		f.t.Fatalf("answer %q, %v; want reason %d, outcome %s", a.text, a.err, reason, outcome)
	}
}

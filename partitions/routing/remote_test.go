package routing

import (
	"errors"
	"testing"

	"github.com/millrace-io/millrace/entities"
)

// TestAGatewayRunsAnActionOnce: an action that has reached a worker is not run by the next one.
func TestAGatewayRunsAnActionOnce(t *testing.T) {
	for outcome, want := range map[entities.OutcomeClass]int{entities.NotApplied: 2, entities.Unknown: 1} {
		w := &workers{err: entities.Errorf(entities.Moved, outcome, "it moved")}
		f := NewRemoteRouter(options(ownedBy(2), w))
		action := &entities.Command{Service: "test.Acts", Method: "Do"}
		if _, err := f.Dispatch(t.Context(), action); err == nil || len(w.calls) != want {
			t.Errorf("%s: called %q, %v; want %d calls", outcome, w.calls, err, want)
		}
		w.calls = nil
		if err := f.DispatchStream(t.Context(), &entities.Stream{Command: action}); err == nil || len(w.calls) != want {
			t.Errorf("%s, streamed: called %q, %v; want %d calls", outcome, w.calls, err, want)
		}
	}
}

// TestGatewaysSayOnlyWhatTheyKnow: the error of an attempt on its way to the owner does not cover
// attempts before it, unless the command has no id, and so no other attempts. What the owner has
// checked stays.
func TestGatewaysSayOnlyWhatTheyKnow(t *testing.T) {
	nothing := func(reason entities.Reason) error {
		return entities.Errorf(reason, entities.NotApplied, "nothing was applied")
	}
	checked := entities.Errorf(entities.Overloaded, entities.NotApplied, "full: nothing was applied")
	checked.Checked = true
	refused := &entities.Error{Reason: entities.FunctionRefused, Outcome: entities.Refused}
	for name, c := range map[string]struct {
		err         error
		named, none entities.OutcomeClass
	}{
		"a link that is full":           {nothing(entities.Overloaded), entities.Unknown, entities.NotApplied},
		"a deadline before the link":    {nothing(entities.Deadline), entities.Unknown, entities.NotApplied},
		"a frame that is too large":     {nothing(entities.TooLarge), entities.Unknown, entities.NotApplied},
		"an owner that checked":         {checked, entities.NotApplied, entities.NotApplied},
		"a message that is no command":  {nothing(entities.InvalidCommand), entities.NotApplied, entities.NotApplied},
		"a function that says no":       {refused, entities.Refused, entities.Refused},
		"a worker that cannot be asked": {nothing(entities.Halted), entities.Unknown, entities.NotApplied},
	} {
		f := NewRemoteRouter(options(ownedBy(1), &workers{err: c.err}))
		for id, want := range map[string]entities.OutcomeClass{"X": c.named, "": c.none} {
			_, err := f.Dispatch(t.Context(), withID(command("a", "add x"), id))
			if e := entities.AsError(err); e.Outcome != want {
				t.Errorf("%s, id %q: the caller is told %s: %s", name, id, e.Outcome, e.Message)
			}
		}
	}
}

// TestDoubtStays: after an attempt with an unknown outcome, only an owner that has looked for it
// reports that nothing was applied.
func TestDoubtStays(t *testing.T) {
	unknown := entities.OutcomeLost(0, "the connection broke")
	busy := entities.Overload("%d commands already wait", 1)
	halted := entities.Errorf(entities.Halted, entities.NotApplied, "x")
	for _, last := range []*entities.Error{entities.PartitionMoved(0, "x"), busy, halted} {
		if err := resolveOutcome(unknown, last); err != error(unknown) { //nolint:errorlint // the very one
			t.Errorf("after an unknown outcome %q is told as it is", last)
		}
		if err := resolveOutcome(nil, last); err != error(last) { //nolint:errorlint // the very one
			t.Errorf("%q became %v", last, err)
		}
	}
	checked := entities.Errorf(entities.IDReused, entities.NotApplied, "used before")
	checked.Checked = true
	for _, last := range []*entities.Error{checked, {Reason: entities.FunctionRefused, Outcome: entities.Refused}} {
		if err := resolveOutcome(unknown, last); !errors.Is(err, last) {
			t.Errorf("the owner's %q became %v", last, err)
		}
	}
}

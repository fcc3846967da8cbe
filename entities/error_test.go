package entities

import "testing"

// TestNotAppliedTable: every reason has a row, and callers of a command with an id get its outcome.
func TestNotAppliedTable(t *testing.T) {
	for reason := FunctionRefused; reason <= Internal; reason++ {
		line, known := notApplied[reason]
		if !known || line.why == "" {
			t.Errorf("reason %d has no line in the table of what NotApplied rests on", reason)
		}
		for _, c := range []struct {
			id      string
			checked bool
			want    OutcomeClass
		}{
			{"", false, NotApplied},
			{"X", true, NotApplied},
			{"X", false, map[basis]OutcomeClass{byOwner: Unknown, byNature: NotApplied, never: Unknown}[line.basis]},
		} {
			e := Errorf(reason, NotApplied, "it failed: nothing was applied")
			e.Checked = c.checked
			got := e.ForCommand(c.id)
			if got.Outcome != c.want || got.Reason != reason {
				t.Errorf("reason %d, id %q, checked %v: the caller gets %s, want %s", reason, c.id, c.checked, got.Outcome,
					c.want)
			}
			if e.Outcome != NotApplied {
				t.Error("the error itself was changed")
			}
		}
	}
	for _, outcome := range []OutcomeClass{Refused, Unknown, Applied} {
		if e := Errorf(Unavailable, outcome, "x"); e.ForCommand("X") != e {
			t.Errorf("the outcome %s became another one", outcome)
		}
	}
	const want = `the queue is full: this attempt applied nothing, try again later; it is not known whether an earlier attempt under the ` +
		`command id "X" took effect: send it again under the same id`
	if got := Errorf(Overloaded, NotApplied,
		"the queue is full: nothing was applied, try again later").ForCommand("X").Message; got != want {
		t.Errorf("the message is\n%s\nwant\n%s", got, want)
	}
}

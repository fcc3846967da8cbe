package entities

import "testing"

// TestNotAppliedTable: every reason has its line, and what it says of a command with an id is what callers hear.
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
			told := e.ForCommand(c.id)
			if told.Outcome != c.want || told.Reason != reason {
				t.Errorf("reason %d, id %q, checked %v: the caller hears %s, want %s", reason, c.id, c.checked, told.Outcome, c.want)
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
	if got := Errorf(Overloaded, NotApplied, "the queue is full: nothing was applied, try again later").ForCommand("X").Message; got != want {
		t.Errorf("the message is\n%s\nwant\n%s", got, want)
	}
}

package partitions

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/partitions/core"
)

// size shortens a text of a test: its beginning, and its length.
func size(text string) string {
	if len(text) < 100 {
		return text
	}
	for _, outcome := range []string{"not_applied: ", "applied: "} {
		if strings.HasPrefix(text, outcome) {
			return outcome
		}
	}
	return fmt.Sprintf("%d bytes", len(text))
}

// TestSizesDoNotDependOnTheDoor: a command has the same result at the owner, at another worker and
// at a gateway. What those add, so that it can be sent again, does not count against it; an id of
// the caller does, everywhere.
func TestSizesDoNotDependOnTheDoor(t *testing.T) {
	const large = 1_200_000 // more than a commit
	payload := strings.Repeat("y", large)
	for _, c := range []struct{ what, text, id, want, repeat string }{
		{"a reply beside records", fmt.Sprint("fat ", large), "", "1200000 bytes", "1200000 bytes"},
		{"a reply beside records, under an id", fmt.Sprint("fat ", large), "id", "1200000 bytes", "applied: "},
		{"a reply alone", fmt.Sprint("answer ", large), "", "1200000 bytes", "1200000 bytes"},
		{"a reply alone, under an id", fmt.Sprint("answer ", large), "id", "1200000 bytes", "1200000 bytes"},
		{"records, under an id", fmt.Sprint("big ", large), "id", "not_applied: ", "not_applied: "},
		{"records", fmt.Sprint("big ", large), "", "not_applied: ", "not_applied: "},
		{"a forward that is answered at length", fmt.Sprint("send b answer ", large), "", "1200000 bytes", "1200000 bytes"},
		{"a forward that is answered at length, under an id", fmt.Sprint("send b answer ", large), "id", "1200000 bytes", "applied: "},
		{"a bare forward that is answered at length", fmt.Sprint("pass b fat ", large), "", "1200000 bytes", "1200000 bytes"},
		{"a bare forward that is answered at length, under an id", fmt.Sprint("pass b fat ", large), "id", "1200000 bytes", "applied: "},
		{"a bare forward of much", "pass b length " + payload, "", "not_applied: ", "not_applied: "},
		{"a bare forward of much, under an id", "pass b length " + payload, "id", "not_applied: ", "not_applied: "},
		{"a forward of much", "send b length " + payload, "", "not_applied: ", "not_applied: "},
		{"a forward of half as much", "send b length " + payload[:large/2], "", "600000", "600000"},
	} {
		cl := newCluster(t, Limits{Limits: core.Limits{MovePatience: time.Minute}})
		cl.owned(cl.b, 1)
		gateway := cl.a.gateway(cl.a.m.options.Table, cl.net)
		for door, ask := range map[string]func(*entities.Command) string{
			"the owner":      func(cmd *entities.Command) string { return answerText(cl.b.router.Dispatch(t.Context(), cmd)) },
			"another worker": func(cmd *entities.Command) string { return answerText(cl.a.router.Dispatch(t.Context(), cmd)) },
			"a gateway":      func(cmd *entities.Command) string { return answerText(gateway.Dispatch(t.Context(), cmd)) },
		} {
			id := c.id
			if id != "" {
				id += door
			}
			for _, want := range []string{c.want, c.repeat} {
				if got := size(ask(withID(command("a", c.text), id))); got != want {
					t.Errorf("%s, by way of %s: %q; want %q", c.what, door, got, want)
				}
			}
		}
	}
}

// TestLargeAnswersThatAreLost: an answer that was too large to be kept is lost between two workers.
// The command is not run again, and its caller gets what is known.
func TestLargeAnswersThatAreLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for text, want := range map[string]int{"fat 1200000": 1, "pass b fat 1200000": 1, "send b fat 1200000": 2} {
			c := newCluster(t, Limits{Limits: core.Limits{MovePatience: time.Minute}})
			c.owned(c.b, 1)
			c.net.lose = 1
			got := make(chan string, 1)
			go func() { got <- answerText(c.a.router.Dispatch(t.Context(), command("a", text))) }() // received below
			c.until("the command is sent again", func() bool { return len(got) > 0 })
			if answer := <-got; !strings.HasPrefix(answer, "applied: ") || !strings.Contains(answer, "took effect") {
				t.Errorf("%s: %q", text, size(answer))
			}
			words := strings.Fields(c.b.ask(command("a", "read")) + " " + c.b.ask(command("b", "read")))
			if len(words) != want {
				t.Errorf("%s: the entities have %q; want %d words", text, words, want)
			}
		}
	})
}

// TestLargeAnswersOfEffects: an effect whose target gives a large answer has taken effect, and is
// not sent again.
func TestLargeAnswersOfEffects(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(core.Active)
	f.want(f.submit(command("a", "later b fat 1200000")), "later")
	f.settled()
	if s := f.p.Status(); s.Parked != 0 {
		t.Errorf("%d effects are parked", s.Parked)
	}
	f.want(f.submit(command("b", "read")), "fat")
}

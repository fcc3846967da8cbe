package cli

import (
	"fmt"
	"strings"

	"github.com/millrace-io/millrace/internal/plural"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// detailed is a record of the journal that says more than its message.
type detailed interface {
	GetContent() *adminv1.Content
	GetKind() string
	GetTarget() string
	GetTimer() *adminv1.TimerRecord
	GetOutcome() string
	GetNote() string
}

// contentOf is what a record says, for a table: its message, the method and the timer that it is
// for, and how its command ended.
func contentOf(r detailed, settled *adminv1.SettledRecord) string {
	texts := []string{timerText(r.GetTimer())}
	if r.GetTarget() != "" && r.GetKind() != "refused" { // its note has it
		texts = append(texts, "to "+r.GetTarget())
	}
	texts = append(texts, show(r.GetContent()), settledText(settled), r.GetNote())
	// Only an answer that differs from the rule is of interest: most commands are replied to.
	if o := r.GetOutcome(); o != "" && o != "replied" && r.GetKind() != "refused" {
		texts = append(texts, "("+o+")")
	}
	return joined(texts...)
}

func timerText(t *adminv1.TimerRecord) string {
	if t == nil {
		return ""
	}
	text := fmt.Sprintf("%q", t.GetName())
	if t.GetDue() != nil {
		text += " due " + when(t.GetDue())
	}
	if t.GetSchedule() != "" {
		text += fmt.Sprintf(" by schedule %q", t.GetSchedule())
	}
	if t.SetOffset != nil {
		text += fmt.Sprintf(" set at offset %d", t.GetSetOffset())
	}
	return text
}

// shownOffsets bounds the offsets of a settled record that a table shows.
const shownOffsets = 20

func settledText(s *adminv1.SettledRecord) string {
	offsets := func(what string, all []int64) string {
		if len(all) == 0 {
			return ""
		}
		shown := strings.Trim(fmt.Sprint(all[:min(len(all), shownOffsets)]), "[]")
		if n := len(all) - shownOffsets; n > 0 {
			shown += fmt.Sprintf(" and %d more", n)
		}
		return what + " " + strings.ReplaceAll(shown, " ", ", ")
	}
	texts := []string{offsets("done", s.GetDone())}
	for _, p := range s.GetParked() {
		text := fmt.Sprintf("parked %d after %s", p.GetOffset(), plural.Of(p.GetAttempts(), "attempt"))
		if p.GetTimer() != "" {
			text += fmt.Sprintf(" of timer %q", p.GetTimer())
		}
		texts = append(texts, text+": "+p.GetError())
	}
	return joined(append(texts, offsets("sent again", s.GetReplayed()), offsets("dropped", s.GetDropped()))...)
}

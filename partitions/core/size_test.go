package core

import (
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/entities"
)

// TestOneLimitForACommand: how much a command may store is the same to the byte without an id, with
// one of its own, with one that a router gave, as an effect, and as a timer; and the log takes each
// of them. On the code before, the id, the trace, the cause and the answer counted.
func TestOneLimitForACommand(t *testing.T) {
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	source := &entities.Source{Generation: 1, Partition: 3, Offset: 1 << 60, Index: 7, Settled: 1 << 59}
	for range 64 {
		source.Open = append(source.Open, 1<<59+int64(len(source.Open)))
	}
	ways := map[string]func(*entities.Command){
		"without an id":   func(*entities.Command) {},
		"with an id":      func(cmd *entities.Command) { cmd.ID = strings.Repeat("i", 256) },
		"by a router":     func(cmd *entities.Command) { cmd.ID = entities.RoutedPrefix + "r" },
		"with a trace":    func(cmd *entities.Command) { cmd.TraceParent, cmd.Principal = trace, "alice" },
		"as an effect":    func(cmd *entities.Command) { cmd.Source = source },
		"as a timer":      func(cmd *entities.Command) { cmd.Timer = &entities.TimerFiring{Name: "t", Offset: 5} },
		"again and again": func(cmd *entities.Command) { cmd.Timer = &entities.TimerFiring{Name: "t", Schedule: "* * * * *"} },
	}
	outcomes := map[string]func(size int) *entities.Outcome{
		"an event":    func(size int) *entities.Outcome { return events(1, size) },
		"990 events":  func(size int) *entities.Outcome { return events(990, size/990) },
		"1000 events": func(size int) *entities.Outcome { return events(1000, size/1000) },
		"with a reply": func(size int) *entities.Outcome {
			out := events(1, size)
			out.Reply = reply(strings.Repeat("r", 1<<20))
			return out
		},
		"a forward": func(size int) *entities.Outcome {
			return &entities.Outcome{Forward: &entities.Target{Service: "s", Method: "m", Payload: events(1, size).Events[0]}}
		},
		"an event and a forward": func(size int) *entities.Outcome {
			return &entities.Outcome{
				Events:  events(1, 10).Events,
				Forward: &entities.Target{Method: "m", Payload: events(1, size).Events[0]},
			}
		},
		"an effect and a timer": func(size int) *entities.Outcome {
			target := entities.Target{Service: "s", Method: "m", Payload: events(1, size/2).Events[0]}
			return &entities.Outcome{
				Effects: []entities.SideEffect{{Target: target}},
				Timers:  []entities.TimerChange{{Name: "u", After: time.Hour, Target: target}},
			}
		},
	}
	for what, outcome := range outcomes {
		tooLarge := func(way string, size int) bool {
			c := activeCore(t, true)
			c.limits = Limits{MaxCommit: 400 << 10}.WithDefaults()
			cmd := command("e", "")
			ways[way](cmd)
			call := seated(cmd)
			c.Submitted(call)
			c.Decided(call, &Opening{}, outcome(size), nil)
			acknowledgeAll(t, c)
			if call.Err != nil && (call.Err.Reason != entities.TooLarge || call.Err.Outcome != entities.NotApplied) {
				t.Fatal(call.Err)
			}
			return call.Err != nil || call.gaveUp != nil
		}
		limit := sort.Search(1<<20, func(size int) bool { return tooLarge("without an id", size) })
		for way := range ways {
			if tooLarge(way, limit-1) || !tooLarge(way, limit) {
				t.Errorf("%s, %s: %d bytes are too large: %v; %d are: %v", what, way, limit-1, tooLarge(way, limit-1),
					limit, tooLarge(way, limit))
			}
		}
		if limit < 100<<10 || limit > 400<<10 {
			t.Errorf("%s: the limit is %d", what, limit)
		}
	}
}

// TestAnAnswerNeverFailsItsCommand: what is too large to be kept reaches the first caller, and a
// repeat is told that the command took effect.
func TestAnAnswerNeverFailsItsCommand(t *testing.T) {
	c := activeCore(t, true)
	cmd := withID(command("e", ""), "id")
	call := seated(cmd)
	c.Submitted(call)
	out := &entities.Outcome{Events: events(1, 10).Events, Reply: reply(strings.Repeat("r", 1<<20))}
	c.Decided(call, &Opening{}, out, nil)
	all := acknowledgeAll(t, c)
	done, err := call.Committed()
	if err != nil || done.Outcome.Reply == nil || len(done.Outcome.Reply.Payload.Value) != 1<<20 {
		t.Fatalf("the first caller gets %+v, %v", done.Outcome, err)
	}
	kept := string(all[len(all)-1].Envelope.Answer)
	if !strings.Contains(kept, "took effect") || !strings.Contains(kept, "max-commit") {
		t.Errorf("a repeat gets %q", kept)
	}
}

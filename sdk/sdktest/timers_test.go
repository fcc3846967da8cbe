package sdktest_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/sdk"
	scriptv1 "github.com/millrace-io/millrace/sdk/internal/script/v1"
	"github.com/millrace-io/millrace/sdk/sdktest"
)

const runComposite = scriptv1.CompositeService_Run_FullMethodName

// clockwork is a journal that does with timers what the first step of a request says: "after A",
// "every A", "cancel", each for the timer "t", whose command appends the text. Any other text is
// appended at once, with the hour.
func clockwork() *sdk.Service {
	return journal(func(n *note, cmd *sdk.Command, in *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
		if len(in.GetSteps()) == 0 {
			return &scriptv1.RunResponse{Text: n.Text}, nil
		}
		verb, text, _ := strings.Cut(in.GetSteps()[0].GetEmit(), " ")
		later := emit(text)
		later.Id = cmd.EntityID()
		switch verb {
		case "after":
			cmd.After(time.Hour, "t", runJournal, later)
		case "every":
			cmd.Every("0 6 * * *", "t", runJournal, later)
		case "cancel":
			cmd.Cancel("t")
		case "stray":
			later.Id = "someone else"
			cmd.After(time.Hour, "t", runJournal, later)
		default:
			cmd.Emit(appended(verb + cmd.Time().Format("02.15h ")))
		}
		return &scriptv1.RunResponse{Text: n.Text}, nil
	}, appendText)
}

func TestTimersOfAScenario(t *testing.T) {
	s := sdktest.New(t, clockwork(), "e1")
	s.When(runJournal, emit("after A")).ThenEvents().ThenTimers(sdktest.After(time.Hour, "t", runJournal, emit("A")))
	s.When(runJournal, emit("every B")).ThenTimers(sdktest.Every("0 6 * * *", "t", runJournal, emit("B")))
	s.When(runJournal, emit("cancel")).ThenTimers(sdktest.Cancel("t"))
	s.When(runJournal, emit("C")).ThenTimers()
}

func TestTimersThatAreNotAsExpected(t *testing.T) {
	good := sdktest.After(time.Hour, "t", runJournal, emit("A"))
	for want, expected := range map[string][]sdktest.Timer{
		`ThenTimers: 1 is one too many: timer "t" after 1h0m0s: /script.v1.JournalService/Run script.v1.RunRequest{`: nil,
		`ThenTimers: 2 is missing, want cancel timer "u"`:                                                            {good, sdktest.Cancel("u")},
		`want timer "u" after`:                {sdktest.After(time.Hour, "u", runJournal, emit("A"))},
		`want timer "t" after 1m0s`:           {sdktest.After(time.Minute, "t", runJournal, emit("A"))},
		`want timer "t" after 1h0m0s: /wrong`: {sdktest.After(time.Hour, "t", "/wrong", emit("A"))},
		`"steps":[{"emit":"B"}]`:              {sdktest.After(time.Hour, "t", runJournal, emit("B"))},
		`want timer "t" every "@daily"`:       {sdktest.Every("@daily", "t", runJournal, emit("A"))},
		`want cancel timer "t"`:               {sdktest.Cancel("t")},
	} {
		got := failureOf(t, func(ft sdktest.T) {
			sdktest.New(ft, clockwork(), "e1").When(runJournal, emit("after A")).ThenTimers(expected...)
		})
		if !strings.Contains(got, want) {
			t.Errorf("failed with %q, want %q", got, want)
		}
	}
}

// clock is a worker with journals that set timers, beginning at midnight of 1 January.
type clock struct {
	t *testing.T
	*sdktest.RunningWorker
	journals scriptv1.JournalServiceClient
}

func startClock(t *testing.T) clock {
	t.Helper()
	w := sdktest.Worker(t, clockwork())
	return clock{t: t, RunningWorker: w, journals: scriptv1.NewJournalServiceClient(w.Conn())}
}

// run sends a command to the journal a.
func (c clock) run(texts ...string) string {
	c.t.Helper()
	got, err := c.journals.Run(c.t.Context(), &scriptv1.RunRequest{Id: "a", Steps: emit(texts...).GetSteps()})
	if err != nil {
		c.t.Fatal(err)
	}
	return got.GetText()
}

// pass lets a time pass, after which the journal has a text.
func (c clock) pass(d time.Duration, want string) {
	c.t.Helper()
	c.Advance(d)
	c.AwaitQuiet()
	if got := c.run(); got != want {
		c.t.Fatalf("the journal has %q, want %q", got, want)
	}
}

// A recurring timer fires at its times. Of times that pass at once, it fires once.
func TestWorkerFiresRecurringTimers(t *testing.T) {
	w := startClock(t)
	w.run("every A")
	w.pass(6*time.Hour-time.Second, "")
	w.pass(time.Second, "A01.06h ")
	w.pass(24*time.Hour, "A01.06h A02.06h ")
	w.pass(72*time.Hour, "A01.06h A02.06h A05.06h ")
	w.run("cancel")
	w.pass(48*time.Hour, "A01.06h A02.06h A05.06h ")
}

// A timer for another entity fails the command that sets it, and nothing of it counts.
func TestWorkerTellsOfStrayTimers(t *testing.T) {
	w := startClock(t)
	_, err := w.journals.Run(t.Context(), &scriptv1.RunRequest{Id: "a", Steps: emit("stray A").GetSteps()})
	if status.Code(err) != codes.Unknown {
		t.Errorf("got %v, want a failure of the function", err)
	}
	if got := w.run(); got != "" {
		t.Errorf("the journal has %q", got)
	}
}

// The sdk finds the id in a message as the worker does, for a key of several fields and all sorts
// of them.
func TestWorkerFiresTimersOfCompositeKeys(t *testing.T) {
	w := sdktest.Worker(t, sdk.Value("composite", sdk.HandleValue(runComposite,
		func(cmd *sdk.ValueCommand[*scriptv1.Stored], in *scriptv1.CompositeRequest) (*scriptv1.RunResponse, error) {
			switch in.GetText() {
			case "set":
				in.Text = "fired"
				cmd.After(time.Hour, "t", runComposite, in)
			case "fired":
				cmd.Update(&scriptv1.Stored{Text: cmd.EntityID()})
			}
			return &scriptv1.RunResponse{Text: cmd.State().GetText()}, nil
		})))
	composites := scriptv1.NewCompositeServiceClient(w.Conn())
	for want, in := range map[string]*scriptv1.CompositeRequest{
		"a--7-true-COLOR_RED":            {Name: "a", Number: -7, Flag: true, Color: scriptv1.Color_COLOR_RED},
		"-0-false-COLOR_UNSPECIFIED":     {},
		"b-0-false-42":                   {Name: "b", Color: 42},
		"c-d-2147483647-false-COLOR_RED": {Name: "c-d", Number: 1<<31 - 1, Color: scriptv1.Color_COLOR_RED},
	} {
		in.Text = "set"
		if _, err := composites.Run(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		w.Advance(time.Hour)
		in.Text = ""
		w.AwaitQuiet()
		if got, err := composites.Run(t.Context(), in); err != nil || got.GetText() != want {
			t.Errorf("fired for %q, %v, want %q", got.GetText(), err, want)
		}
	}
}

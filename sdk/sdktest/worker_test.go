package sdktest_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/sdk"
	scriptv1 "github.com/millrace-io/millrace/sdk/internal/script/v1"
	"github.com/millrace-io/millrace/sdk/sdktest"
)

// tellingJournal emits the first step of a command and sends it to the cell of the same id: after
// the answer, or before it.
func tellingJournal() *sdk.Service {
	return journal(func(n *note, cmd *sdk.Command, in *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
		text := in.GetSteps()[0].GetEmit()
		cmd.Emit(&scriptv1.Appended{Text: text})
		var options []sdk.EffectOption
		if strings.HasPrefix(text, "sync") {
			options = append(options, sdk.Synchronous())
		}
		update := &scriptv1.Step{Step: &scriptv1.Step_Update{Update: text + " at " + cmd.Time().Format(time.DateTime)}}
		cmd.Effect(runCell, &scriptv1.RunRequest{Id: cmd.EntityID(), Steps: []*scriptv1.Step{update}}, options...)
		return &scriptv1.RunResponse{Text: n.Text}, nil
	}, appendText)
}

// cell stores the first step of a command, or shows what is stored to a command without steps.
func cell() *sdk.Service {
	return sdk.Value("cell", sdk.HandleValue(runCell,
		func(cmd *sdk.ValueCommand[*scriptv1.Stored], in *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
			if len(in.GetSteps()) > 0 {
				cmd.Update(&scriptv1.Stored{Text: in.GetSteps()[0].GetUpdate()})
			}
			return &scriptv1.RunResponse{Text: cmd.State().GetText()}, nil
		}))
}

// forgetting stores the first step of a command and forgets it an hour later, unless it gets
// another one until then; a command without steps shows what is stored.
func forgetting() *sdk.Service {
	return sdk.Value("cell", sdk.HandleValue(runCell,
		func(cmd *sdk.ValueCommand[*scriptv1.Stored], in *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
			if len(in.GetSteps()) == 0 {
				return &scriptv1.RunResponse{Text: cmd.State().GetText()}, nil
			}
			text := in.GetSteps()[0].GetUpdate()
			cmd.Update(&scriptv1.Stored{Text: text})
			switch text {
			case "":
				cmd.Cancel("tick")
			case "tick":
				cmd.Every("@every 1m", "tick", runCell, &scriptv1.RunRequest{Id: cmd.EntityID(), Steps: update("tock")})
			case "never":
				cmd.Every("0 0 31 2 *", "t", runCell, &scriptv1.RunRequest{Id: cmd.EntityID()})
			case "tock":
			default:
				cmd.After(time.Hour, "forget", runCell, &scriptv1.RunRequest{Id: cmd.EntityID(), Steps: update("")})
			}
			return &scriptv1.RunResponse{Text: text}, nil
		}))
}

func update(text string) []*scriptv1.Step {
	return []*scriptv1.Step{{Step: &scriptv1.Step_Update{Update: text}}}
}

func TestWorkerFiresTimers(t *testing.T) {
	w := sdktest.Worker(t, forgetting())
	cells := scriptv1.NewCellServiceClient(w.Conn())
	tell := func(text string) {
		t.Helper()
		if _, err := cells.Run(t.Context(), &scriptv1.RunRequest{Id: "a", Steps: update(text)}); err != nil {
			t.Fatal(err)
		}
	}
	shows := func(want string) {
		t.Helper()
		w.AwaitQuiet()
		got, err := cells.Run(t.Context(), &scriptv1.RunRequest{Id: "a"})
		if err != nil || got.GetText() != want {
			t.Fatalf("the cell has %q, %v; want %q", got.GetText(), err, want)
		}
	}
	tell("x")
	w.Advance(50 * time.Minute)
	shows("x")
	tell("y") // the timer is set anew
	w.Advance(50 * time.Minute)
	shows("y")
	w.Advance(10 * time.Minute)
	shows("")
	tell("tick")
	w.Advance(time.Minute)
	shows("tock")
	tell("x")
	w.Advance(time.Minute)
	shows("tock") // again and again
	tell("")
	tell("x")
	w.Advance(time.Minute)
	shows("x") // cancelled
	if _, err := cells.Run(t.Context(),
		&scriptv1.RunRequest{Id: "a", Steps: update("never")}); status.Code(err) != codes.Unknown {
		t.Errorf("a schedule that never comes: %v; want the command to fail", err)
	}
	shows("x")
}

func TestWorkerCarriesEffectsOut(t *testing.T) {
	w := sdktest.Worker(t, tellingJournal(), cell())
	journals, cells := scriptv1.NewJournalServiceClient(w.Conn()), scriptv1.NewCellServiceClient(w.Conn())
	for _, text := range []string{"sync", "async"} {
		w.Advance(time.Hour)
		if _, err := journals.Run(t.Context(), &scriptv1.RunRequest{Id: "a", Steps: emit(text).GetSteps()}); err != nil {
			t.Fatal(err)
		}
		if text == "async" {
			w.AwaitQuiet()
		}
		got, err := cells.Run(t.Context(), &scriptv1.RunRequest{Id: "a"})
		if err != nil {
			t.Fatal(err)
		}
		if want := text + " at " + w.Now().Format(time.DateTime); got.GetText() != want {
			t.Errorf("the cell has %q, want %q: the effect, with the time of the test", got.GetText(), want)
		}
	}
}

// An entity leaves memory when the clock has passed its idle time, and is loaded again with the
// next command.
func TestWorkerEntitiesComeBack(t *testing.T) {
	w := sdktest.Worker(t, tellingJournal(), cell())
	journals := scriptv1.NewJournalServiceClient(w.Conn())
	for i, want := range []string{"A", "AA", "AAA"} {
		got, err := journals.Run(t.Context(), &scriptv1.RunRequest{Id: "a", Steps: emit("A").GetSteps()})
		if err != nil || got.GetText() != want {
			t.Errorf("command %d: %q, %v, want %q", i, got.GetText(), err, want)
		}
		w.Advance(time.Hour)
	}
}

func TestWorkerRemembersCommandIDs(t *testing.T) {
	w := sdktest.Worker(t, tellingJournal(), cell())
	journals := scriptv1.NewJournalServiceClient(w.Conn())
	ctx := metadata.AppendToOutgoingContext(t.Context(), "millrace-command-id", "c-1")
	for range 2 {
		got, err := journals.Run(ctx, &scriptv1.RunRequest{Id: "a", Steps: emit("A").GetSteps()})
		if err != nil || got.GetText() != "A" {
			t.Errorf("%q, %v, want A both times", got.GetText(), err)
		}
	}
}

func TestWorkerSpeaksHTTP(t *testing.T) {
	w := sdktest.Worker(t, tellingJournal(), cell())
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+w.Address()+runCell, strings.NewReader(`{"id":"a","steps":[{"update":"x"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusOK || string(body) != `{"text":"x"}` {
		t.Errorf("%s, %v: %s", res.Status, err, body)
	}
}

func TestWorkersAreApart(t *testing.T) {
	for i := range 2 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			cells := scriptv1.NewCellServiceClient(sdktest.Worker(t, cell()).Conn())
			got, err := cells.Run(t.Context(), &scriptv1.RunRequest{Id: "a"})
			if err != nil || got.GetText() != "" {
				t.Errorf("%q, %v, want a cell that no command has used", got.GetText(), err)
			}
			step := &scriptv1.Step{Step: &scriptv1.Step_Update{Update: "mine"}}
			if _, err := cells.Run(t.Context(), &scriptv1.RunRequest{Id: "a", Steps: []*scriptv1.Step{step}}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWorkerTellsWhatIsWrongWithServices(t *testing.T) {
	got := failureOf(t, func(ft sdktest.T) { sdktest.Worker(cleaning{ft, t}, cell(), cell()) })
	if want := "is given twice"; !strings.Contains(got, want) {
		t.Errorf("failed with %q, want %q", got, want)
	}
}

// cleaning is a test that may fail, whose cleanup is that of one that may not.
type cleaning struct {
	sdktest.T
	test *testing.T
}

func (c cleaning) Cleanup(f func()) { c.test.Cleanup(f) }

func (c cleaning) Errorf(format string, args ...any) { c.test.Errorf(format, args...) }

func TestWorkerRefusalHasItsCode(t *testing.T) {
	service := journal(func(*note, *sdk.Command, *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
		return nil, sdk.Refuse(codes.NotFound, "not here")
	}, appendText)
	_, err := scriptv1.NewJournalServiceClient(sdktest.Worker(t, service).Conn()).Run(t.Context(),
		&scriptv1.RunRequest{Id: "a"})
	if status.Code(err) != codes.NotFound || status.Convert(err).Message() != "not here" {
		t.Errorf("error %v, want the refusal", err)
	}
}

package sdktest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/sdk"
	scriptv1 "github.com/millrace-io/millrace/sdk/internal/script/v1"
	"github.com/millrace-io/millrace/sdk/sdktest"
)

const (
	runJournal  = scriptv1.JournalService_Run_FullMethodName
	readJournal = scriptv1.JournalService_Read_FullMethodName
	runCell     = scriptv1.CellService_Run_FullMethodName
	unary       = scriptv1.FlowService_Unary_FullMethodName
)

// fakeT is a test that may fail.
type fakeT struct {
	ctx     context.Context
	failure string
	// output gets the failure; it may be nil.
	output io.Writer
}

func (f *fakeT) Helper() {}

func (f *fakeT) Context() context.Context { return f.ctx }

func (f *fakeT) Fatalf(format string, args ...any) {
	f.failure = fmt.Sprintf(format, args...)
	if f.output != nil {
		fmt.Fprintln(f.output, f.failure)
	}
	runtime.Goexit()
}

// failureOf runs a test that may fail, and returns how it failed; "" when it did not.
func failureOf(t *testing.T, test func(sdktest.T)) string {
	t.Helper()
	f := &fakeT{ctx: t.Context()}
	done := make(chan struct{})
	go func() { // Fatalf ends the goroutine; it is waited for below
		defer close(done)
		test(f)
	}()
	<-done
	return f.failure
}

// note is the state of the journals of these tests; each test makes its own mistakes with it.
type note struct {
	Text    string
	lengths map[string]int
	times   []time.Time
	last    *scriptv1.Stored
	any     any
	next    *note
	hook    func()
}

type handler = func(*note, *sdk.Command, *scriptv1.RunRequest) (*scriptv1.RunResponse, error)

// journal returns a service with one scripted handler, and more options.
func journal(run handler, on func(*note, *scriptv1.Appended), options ...sdk.Option[note]) *sdk.Service {
	options = append(options,
		sdk.Handle(runJournal, run),
		sdk.Handle(readJournal, func(n *note, cmd *sdk.Command, _ *scriptv1.ReadRequest) (*scriptv1.ReadResponse, error) {
			return &scriptv1.ReadResponse{Text: n.Text, Principal: cmd.Principal(), TimeUnixNanos: cmd.Time().UnixNano()}, nil
		}),
		sdk.On(on))
	return sdk.EventSourced("journal", func(string) *note { return &note{lengths: map[string]int{}} }, options...)
}

// appendText is an On without a mistake.
func appendText(n *note, e *scriptv1.Appended) {
	n.Text += e.GetText()
	n.lengths[e.GetText()] = len(e.GetText())
}

// emitAll is a handler without a mistake: it emits what the request says, or refuses.
func emitAll(n *note, cmd *sdk.Command, in *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
	for _, step := range in.GetSteps() {
		if text := step.GetRefuse(); text != "" {
			return nil, sdk.Refuse(codes.FailedPrecondition, "%s", text)
		}
		if text := step.GetEffect(); text != "" {
			cmd.Effect(unary, flow(text))
			continue
		}
		if text := step.GetForward(); text != "" {
			return sdk.Forward[*scriptv1.RunResponse](unary, flow(text))
		}
		cmd.Emit(&scriptv1.Appended{Text: step.GetEmit()})
	}
	return &scriptv1.RunResponse{Text: n.Text}, nil
}

func flow(text string) *scriptv1.FlowRequest {
	return &scriptv1.FlowRequest{
		Groups: []*scriptv1.Group{{Steps: []*scriptv1.Step{{Step: &scriptv1.Step_Reply{Reply: text}}}}},
	}
}

func emit(texts ...string) *scriptv1.RunRequest {
	in := &scriptv1.RunRequest{Id: "e1"}
	for _, text := range texts {
		in.Steps = append(in.Steps, &scriptv1.Step{Step: &scriptv1.Step_Emit{Emit: text}})
	}
	return in
}

// then adds a step to a request.
func then(in *scriptv1.RunRequest, step *scriptv1.Step) *scriptv1.RunRequest {
	in.Steps = append(in.Steps, step)
	return in
}

func refuse(text string) *scriptv1.Step {
	return &scriptv1.Step{Step: &scriptv1.Step_Refuse{Refuse: text}}
}

func appended(text string) *scriptv1.Appended { return &scriptv1.Appended{Text: text} }

func TestAScenarioReadsAsASentence(t *testing.T) {
	s := sdktest.New(t, journal(emitAll, appendText), "e1").
		Given(appended("A"), appended("B")).
		When(runJournal, emit("C", "D")).
		ThenEvents(appended("C"), appended("D")).
		ThenReply(&scriptv1.RunResponse{Text: "ABCD"})
	s.When(runJournal, then(emit("E"), refuse("not now"))).
		ThenRefused(codes.FailedPrecondition, "not now").
		ThenEvents()
	s.When(runJournal, then(then(emit("F"), &scriptv1.Step{Step: &scriptv1.Step_Effect{Effect: "x"}}),
		&scriptv1.Step{Step: &scriptv1.Step_Forward{Forward: "y"}})).
		ThenEvents(appended("F")).
		ThenEffect(unary, flow("x")).
		ThenForward(unary, flow("y"))
}

func TestTimeAndPrincipalAreTheScenarios(t *testing.T) {
	start := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	s := sdktest.New(t, journal(emitAll, appendText), "e1").At(start).As("ada")
	s.When(readJournal, &scriptv1.ReadRequest{Id: "e1"}).
		ThenReply(&scriptv1.ReadResponse{Principal: "ada", TimeUnixNanos: start.UnixNano()})
	s.When(readJournal, &scriptv1.ReadRequest{Id: "e1"}).
		ThenReply(&scriptv1.ReadResponse{Principal: "ada", TimeUnixNanos: start.Add(time.Second).UnixNano()})
}

// The mistakes that no one command shows are found by comparing images.
func TestMistakesInAFunctionAreFound(t *testing.T) {
	snapshots := sdk.SnapshotEvery(100,
		func(n *note) *scriptv1.Stored { return &scriptv1.Stored{Text: n.Text} },
		func(n *note, s *scriptv1.Stored) { n.Text = s.GetText() })
	clock := time.Unix(0, 0)
	calls := 0
	for name, c := range map[string]struct {
		service *sdk.Service
		want    []string
	}{
		"handler changes a field": {
			journal(func(n *note, _ *sdk.Command, _ *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
				n.Text = "sneaked in"
				return nil, nil
			}, appendText),
			[]string{"When Run: the image in memory differs from one that is replayed", "note.Text is sneaked in in memory, but  after rebuilding", "outside of sdk.On"},
		},
		"handler changes a map, then refuses": {
			journal(func(n *note, _ *sdk.Command, _ *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
				n.lengths["x"] = 1
				return nil, sdk.Refuse(codes.NotFound, "no")
			}, appendText),
			[]string{"note.lengths has the key x in memory, but after rebuilding it has not"},
		},
		"handler deletes from a map": {
			journal(func(n *note, cmd *sdk.Command, _ *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
				cmd.Emit(appended("A"))
				delete(n.lengths, "A")
				return nil, nil
			}, appendText),
			[]string{"note.lengths has no key A in memory, but after rebuilding it has"},
		},
		"On looks at the clock": {
			journal(emitAll, func(n *note, _ *scriptv1.Appended) {
				clock = clock.Add(time.Second)
				n.times = append(n.times, clock)
			}),
			[]string{"note.times[0] is ", "sdk.On depends on more than state and event"},
		},
		"On counts its calls": {
			journal(emitAll, func(n *note, _ *scriptv1.Appended) {
				calls++
				n.times = make([]time.Time, calls)
			}),
			[]string{"the number of elements of sdktest_test.note.times is 1 in memory, but 2 after rebuilding"},
		},
		"On changes its event": {
			journal(emitAll, func(n *note, e *scriptv1.Appended) {
				e.Text += "!"
				n.last = &scriptv1.Stored{Text: e.GetText()}
				n.any = e
				calls++
				if calls%2 == 1 {
					n.last.Text = "odd"
				}
			}),
			[]string{`note.last is script.v1.Stored{"text":`},
		},
		"snapshot forgets a field": {
			journal(emitAll, appendText, snapshots),
			[]string{"differs from one that is restored from its snapshot", "note.lengths has the key A in memory", "sdk.SnapshotEvery leave something out"},
		},
		"type of an interface": {
			journal(emitAll, func(n *note, _ *scriptv1.Appended) {
				calls++
				n.any = calls
				if calls%2 == 0 {
					n.any = "even"
				}
			}),
			[]string{"note.any is "},
		},
		"a pointer": {
			journal(func(n *note, cmd *sdk.Command, _ *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
				cmd.Emit(appended("A"))
				n.next = &note{}
				return nil, nil
			}, appendText),
			[]string{"note.next is ", "in memory, but <nil> after rebuilding"},
		},
		"a message is set": {
			journal(func(n *note, _ *sdk.Command, _ *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
				n.last = &scriptv1.Stored{Text: "A"}
				return nil, nil
			}, appendText),
			[]string{`note.last is script.v1.Stored{"text":"A"} in memory, but nil after rebuilding`},
		},
		"a message is taken": {
			journal(func(n *note, cmd *sdk.Command, _ *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
				cmd.Emit(appended("A"))
				n.last = nil
				return nil, nil
			}, func(n *note, e *scriptv1.Appended) { n.last = &scriptv1.Stored{Text: e.GetText()} }),
			[]string{`note.last is nil in memory, but script.v1.Stored{"text":"A"} after rebuilding`},
		},
		"crash": {
			journal(func(*note, *sdk.Command, *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
				return nil, errors.New("disk on fire")
			}, appendText),
			[]string{"When Run: the handler crashed: disk on fire", "return sdk.Refuse"},
		},
		"problems": {sdk.Action(), []string{"the service cannot be run:", "no handlers are given"}},
	} {
		t.Run(name, func(t *testing.T) {
			clock, calls = time.Unix(0, 0), 0
			got := failureOf(t, func(ft sdktest.T) { sdktest.New(ft, c.service, "e1").When(runJournal, emit("A")) })
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("want %q in\n%s", want, got)
				}
			}
		})
	}
}

// What cannot be stored is not compared; cycles end; nil and empty are the same.
func TestImagesThatAreEqualEnough(t *testing.T) {
	service := journal(func(n *note, cmd *sdk.Command, _ *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
		cmd.Emit(appended("A"))
		n.hook, n.times = func() {}, []time.Time{}
		return nil, nil
	}, func(n *note, e *scriptv1.Appended) {
		n.next = n
		n.last = &scriptv1.Stored{Text: e.GetText()}
		n.any = map[string]any{"k": []any{1, "two", struct{ at time.Time }{time.Unix(1, 0)}}}
	})
	sdktest.New(t, service, "e1").When(runJournal, emit()).ThenEvents(appended("A")).ThenReply(nil)
}

func TestDifferencesAreTold(t *testing.T) {
	good := func(ft sdktest.T) *sdktest.Scenario {
		return sdktest.New(ft, journal(emitAll, appendText), "e1").When(runJournal, emit("A"))
	}
	refused := func(ft sdktest.T) *sdktest.Scenario {
		return sdktest.New(ft, journal(emitAll, appendText), "e1").When(runJournal, then(emit(), refuse("not now")))
	}
	forwarded := func(ft sdktest.T) *sdktest.Scenario {
		in := then(then(emit(), &scriptv1.Step{Step: &scriptv1.Step_Effect{Effect: "x"}}),
			&scriptv1.Step{Step: &scriptv1.Step_Forward{Forward: "y"}})
		return sdktest.New(ft, journal(emitAll, appendText), "e1").When(runJournal, in)
	}
	cell := func(ft sdktest.T) *sdktest.Scenario {
		return sdktest.New(ft, cellService(), "e1")
	}
	for want, test := range map[string]func(ft sdktest.T){
		"ThenEvents: event 1\n got script.v1.Appended{\"text\":\"A\"}\nwant script.v1.Appended{\"text\":\"B\"}": func(
			ft sdktest.T,
		) {
			good(ft).ThenEvents(appended("B"))
		},
		"ThenEvents: event 1 is one too many: script.v1.Appended{\"text\":\"A\"}": func(
			ft sdktest.T,
		) {
			good(ft).ThenEvents()
		},
		"ThenEvents: event 2 is missing, want script.v1.Appended{}":   func(ft sdktest.T) { good(ft).ThenEvents(appended("A"), appended("")) },
		"ThenReply: reply 1 is one too many":                          func(ft sdktest.T) { good(ft).ThenReply(nil) },
		"ThenReply: Run was refused: FailedPrecondition: not now":     func(ft sdktest.T) { refused(ft).ThenReply(nil) },
		"ThenReply: Run was forwarded to script.v1.FlowService/Unary": func(ft sdktest.T) { forwarded(ft).ThenReply(nil) },
		"ThenRefused: Run was not refused, it decided: a reply":       func(ft sdktest.T) { good(ft).ThenRefused(codes.NotFound, "") },
		"it decided: a forward to /script.v1.FlowService/Unary":       func(ft sdktest.T) { forwarded(ft).ThenRefused(codes.NotFound, "") },
		"want NotFound and a message with \"later\"": func(
			ft sdktest.T,
		) {
			refused(ft).ThenRefused(codes.NotFound, "later")
		},
		"ThenForward: Run was not forwarded, it decided: a refusal: FailedPrecondition: not now": func(ft sdktest.T) { refused(ft).ThenForward(unary, flow("y")) },
		"ThenForward: Run was forwarded to /script.v1.FlowService/Unary, want /x/Y":              func(ft sdktest.T) { forwarded(ft).ThenForward("/x/Y", flow("y")) },
		"ThenForward: message 1": func(ft sdktest.T) { forwarded(ft).ThenForward(unary, flow("z")) },
		"ThenEffect: Run has no effect /script.v1.FlowService/Unary script.v1.FlowRequest{}; it has: ": func(ft sdktest.T) { forwarded(ft).ThenEffect(unary, &scriptv1.FlowRequest{}) },
		"ThenEvents: there was no When before":                                                         func(ft sdktest.T) { cell(ft).ThenEvents() },
		"ThenState: event-sourced service \"journal\" (script.v1.JournalService) takes no snapshots": func(ft sdktest.T) {
			good(ft).ThenState(&scriptv1.Stored{})
		},
		"ThenState: there is no value, want script.v1.Stored{}": func(ft sdktest.T) { cell(ft).ThenState(&scriptv1.Stored{}) },
		"ThenState: the value is script.v1.Stored{}, want none": func(ft sdktest.T) { cell(ft).Given(&scriptv1.Stored{}).ThenState(nil) },
		"ThenState:\n got script.v1.Stored{}\nwant script.v1.Stored{\"text\":\"A\"}": func(ft sdktest.T) {
			cell(ft).Given(&scriptv1.Stored{}).ThenState(&scriptv1.Stored{Text: "A"})
		},
		"When /script.v1.JournalService/Run: not a method of value service":           func(ft sdktest.T) { cell(ft).When(runJournal, emit()) },
		"When Run: the method takes 1 message, 2 given":                               func(ft sdktest.T) { cell(ft).When(runCell, emit(), emit()) },
		"When Run: a script.v1.Stored given, the method takes a script.v1.RunRequest": func(ft sdktest.T) { cell(ft).When(runCell, &scriptv1.Stored{}) },
		"a message of the test is nil":                                                func(ft sdktest.T) { cell(ft).When(runCell, (*scriptv1.RunRequest)(nil)) },
		"encode a script.v1.RunRequest of the test":                                   func(ft sdktest.T) { cell(ft).When(runCell, &scriptv1.RunRequest{Id: "\xff"}) },
		"event 2 is a script.v1.Stored, which has no function: add sdk.On":            func(ft sdktest.T) { good(ft).Given(&scriptv1.Stored{}) },
		"the stored value is a script.v1.Appended":                                    func(ft sdktest.T) { cell(ft).Given(appended("A")) },
		"Given: action service (script.v1.FlowService) has no history":                func(ft sdktest.T) { sdktest.New(ft, flowService(), "").Given(appended("A")) },
		"ThenState: action service (script.v1.FlowService) has no state":              func(ft sdktest.T) { sdktest.New(ft, flowService(), "").ThenState(appended("A")) },
	} {
		if got := failureOf(t, test); !strings.Contains(got, want) {
			t.Errorf("want\n%s\ngot\n%s", want, got)
		}
	}
}

func TestValuesAndStreams(t *testing.T) {
	sdktest.New(t, cellService(), "e1").
		Given(&scriptv1.Stored{Text: "A"}).
		ThenState(&scriptv1.Stored{Text: "A"}).
		When(runCell, emit("B")).ThenState(&scriptv1.Stored{Text: "AB"}).
		When(runCell, emit()).ThenState(nil)

	s := sdktest.New(t, flowService(), "")
	s.When(scriptv1.FlowService_Both_FullMethodName).ThenReplies()
	s.When(scriptv1.FlowService_Both_FullMethodName, flow("a"), flow("b")).
		ThenReplies(&scriptv1.RunResponse{Text: "1"}, &scriptv1.RunResponse{Text: "2"})
}

// cellService appends the request's texts to its value, and deletes it when there are none.
func cellService() *sdk.Service {
	return sdk.Value("cell", sdk.HandleValue(runCell,
		func(cmd *sdk.ValueCommand[*scriptv1.Stored], in *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
			if len(in.GetSteps()) == 0 {
				cmd.Delete()
				return nil, nil
			}
			next := proto.CloneOf(cmd.State())
			next.Text += in.GetSteps()[0].GetEmit()
			cmd.Update(next)
			return nil, nil
		}))
}

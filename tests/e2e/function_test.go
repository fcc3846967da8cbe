package e2e_test

import (
	"maps"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/millrace-io/millrace/sdk"
	"github.com/millrace-io/millrace/tests/conformance/proto/actionmodel"
	"github.com/millrace-io/millrace/tests/conformance/proto/esmodel"
	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kit"
)

// stage is millrace in this process, with a function that misbehaves on demand.
type stage struct {
	function *harness.Function
	script   *script
	journals esmodel.EventSourcedTckModelClient
	actions  actionmodel.ActionTckModelClient
}

// newStage starts both. The function has 500 ms for a command, and callers wait 500 ms for a
// function that is not there: both long enough for one that behaves, and short enough to be waited
// for.
func newStage(t *testing.T, settings map[string]string) *stage {
	t.Helper()
	s := &stage{script: &script{ended: make(chan string, 64)}}
	s.function = harness.ServeFunction(t, func(server *grpc.Server) { s.script.register(server) })
	all := map[string]string{"function": s.function.Address(), "function-timeout": "500ms", "function-wait": "500ms"}
	maps.Copy(all, settings)
	n := harness.StartNode(t, all)
	harness.AwaitReady(t, n)
	conn := kit.Dial(t, n.Status(t.Context()).GetPublicAddress())
	s.journals, s.actions = esmodel.NewEventSourcedTckModelClient(conn), actionmodel.NewActionTckModelClient(conn)
	return s
}

// command sends an entity its instruction: emit the event "x", or one of the script's faults.
func (s *stage) command(t *testing.T, id, do string) (string, error) {
	t.Helper()
	got, err := s.journals.Process(t.Context(), &esmodel.Request{Id: id, Actions: []*esmodel.RequestAction{
		{Action: &esmodel.RequestAction_Fail{Fail: &esmodel.Fail{Message: do}}},
	}})
	return got.GetMessage(), err
}

// emit makes the next command, which must work and show want as the state after it.
func (s *stage) emit(t *testing.T, id, want string) {
	t.Helper()
	if got, err := s.command(t, id, emitOne); err != nil || got != want {
		t.Fatalf("the next command answers %q, %v; want %q", got, err, want)
	}
}

// TestMisbehavingFunctionIsNamedAndCostsOneCommand goes through what a function can do instead of
// answering. Nothing of the command is stored, what was stored before is still there, and the next
// command works.
func TestMisbehavingFunctionIsNamedAndCostsOneCommand(t *testing.T) {
	s := newStage(t, nil)
	for _, tc := range []struct {
		name, do string
		code     codes.Code
		words    []string
	}{
		{"does not answer", hang, codes.Unknown, []string{"function at " + s.function.Address(), "500ms"}},
		{"breaks the stream", breakStream, codes.Unknown, []string{"Unexpected entity termination"}},
		{"ends the stream", endStream, codes.Unknown, []string{"Unexpected entity termination"}},
		{"gives up", giveUp, codes.Unknown, []string{"Unexpected entity failure"}},
		{"answers another command", answerAnother, codes.Unknown, []string{"Unexpected entity reply"}},
		{"says nothing", sayNothing, codes.Unknown, []string{"Unexpected entity message"}},
		{"answers garbage", answerGarbage, codes.Unknown, []string{"Unexpected entity termination"}},
		{"emits an event without a type", emitUntyped, codes.Unknown, []string{"Unexpected entity reply", "event 2 of 2", "type"}},
		{"emits an event whose type is no type", emitUnknown, codes.Unknown, []string{"Unexpected entity reply", "event 2 of 2", "nonsense", "prefix/name"}},
		{"emits too many events", emitMany, codes.Unknown, []string{"too many events", "1001", "1000"}},
		{"emits too much", emitMuch, codes.ResourceExhausted, []string{"921600", "nothing was applied"}},
		{"refuses", "no, thanks", codes.Unknown, []string{"no, thanks"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			id := strings.ReplaceAll(tc.name, " ", "-")
			s.emit(t, id, "x")
			_, err := s.command(t, id, tc.do)
			says(t, err, tc.code, tc.words...)
			s.emit(t, id, "xx")
		})
	}
}

// TestSecondAnswerToACommandCostsOnlyTheStream: the first answer counts, the stream ends, the next
// command has another one.
func TestSecondAnswerToACommandCostsOnlyTheStream(t *testing.T) {
	s := newStage(t, nil)
	s.emit(t, "twice", "x")
	if got, err := s.command(t, "twice", answerTwice); err != nil || got != "x" {
		t.Fatalf("the first answer: %q, %v", got, err)
	}
	if id := kit.Receive(t, "the end of a session", s.script.ended); id != "twice" {
		t.Fatalf("the stream of %q ended", id)
	}
	s.emit(t, "twice", "xx")
}

// TestEventOfAnUnknownMessageIsStoredAsItIs: a type that discovery did not describe is not checked,
// as in the protocol: its bytes come back unchanged.
func TestEventOfAnUnknownMessageIsStoredAsItIs(t *testing.T) {
	s := newStage(t, map[string]string{"passivate-after": "100ms"})
	if got, err := s.command(t, "opaque", emitOpaque); err != nil || got != "?" {
		t.Fatalf("emit an event of a type without a description: %q, %v", got, err)
	}
	kit.Receive(t, "the end of a session", s.script.ended) // passive
	s.emit(t, "opaque", "?x")
}

// TestEventThatTheSDKDoesNotKnowIsNamed: a function of our sdk can emit only what it can replay.
// The caller learns that the function failed, its author what to add.
func TestEventThatTheSDKDoesNotKnowIsNamed(t *testing.T) {
	type journal struct{ value string }
	service := sdk.EventSourced("journal", func(string) *journal { return &journal{} },
		sdk.Handle(esmodel.EventSourcedTckModel_Process_FullMethodName,
			func(j *journal, cmd *sdk.Command, in *esmodel.Request) (*esmodel.Response, error) {
				cmd.Emit(&esmodel.Persisted{Value: "x"})
				if len(in.GetActions()) > 0 {
					cmd.Emit(&esmodel.Response{})
				}
				return &esmodel.Response{Message: j.value}, nil
			}),
		sdk.On(func(j *journal, e *esmodel.Persisted) { j.value += e.GetValue() }))
	f := harness.ServeFunction(t, func(server *grpc.Server) { registerSDK(t, server, service) })
	n := harness.StartNode(t, map[string]string{"function": f.Address()})
	harness.AwaitReady(t, n)
	client := esmodel.NewEventSourcedTckModelClient(kit.Dial(t, n.Status(t.Context()).GetPublicAddress()))
	emit := func(want string) {
		t.Helper()
		if got, err := client.Process(t.Context(), &esmodel.Request{Id: "1"}); err != nil || got.GetMessage() != want {
			t.Fatalf("emit what is known: %v, %v; want %q", got, err, want)
		}
	}
	emit("x")
	_, err := client.Process(t.Context(), &esmodel.Request{Id: "1", Actions: []*esmodel.RequestAction{{}}})
	says(t, err, codes.Unknown, "Unexpected entity failure")
	emit("xx")
}

// registerSDK adds services of our sdk to a function.
func registerSDK(t *testing.T, server *grpc.Server, services ...*sdk.Service) {
	t.Helper()
	function, err := sdk.NewServer(services...)
	if err != nil {
		t.Fatal(err)
	}
	function.Register(server)
	t.Cleanup(function.Close)
}

// TestFunctionThatDiesMidCommandIsNamedAndComesBack cuts every connection while a command runs,
// calls in vain, and starts the function again at its address.
func TestFunctionThatDiesMidCommandIsNamedAndComesBack(t *testing.T) {
	s := newStage(t, map[string]string{"function-timeout": "30s"})
	s.emit(t, "mortal", "x")
	s.script.holding = make(chan struct{})
	failed := make(chan error, 1)
	go func() { // ends with the function, see below
		_, err := s.command(t, "mortal", hold)
		failed <- err
	}()
	kit.Receive(t, "a command that is held", s.script.holding)
	s.function.Stop()
	says(t, kit.Receive(t, "the command to fail", failed), codes.Unknown, "Unexpected entity termination")

	_, err := s.command(t, "mortal", emitOne)
	says(t, err, codes.Unavailable, "function at "+s.function.Address(), "not reachable", "start it")
	_, err = s.actions.ProcessUnary(t.Context(), &actionmodel.Request{})
	says(t, err, codes.Unavailable, "function at "+s.function.Address(), "not reachable", "start it")

	s.function.Start(t)
	s.emit(t, "mortal", "xx")
}

// TestFunctionThatWasNeverThereIsNamed calls before any function is there: callers wait, are told,
// and succeed once it is there.
func TestFunctionThatWasNeverThereIsNamed(t *testing.T) {
	sc := &script{ended: make(chan string, 64)}
	f := harness.NewFunction(kit.FreeAddress(t), func(server *grpc.Server) { sc.register(server) })
	n := harness.StartNode(t, map[string]string{"function": f.Address(), "function-wait": "200ms"})
	conn := kit.Dial(t, n.Status(t.Context()).GetPublicAddress())
	s := &stage{function: f, script: sc, journals: esmodel.NewEventSourcedTckModelClient(conn)}
	_, err := s.command(t, "early", emitOne)
	says(t, err, codes.Unavailable, "function")
	f.Start(t)
	harness.AwaitReady(t, n)
	s.emit(t, "early", "x")
}

// TestMisbehavingActionIsNamed goes through what an action can do instead of answering.
func TestMisbehavingActionIsNamed(t *testing.T) {
	s := newStage(t, nil)
	for _, tc := range []struct {
		name, do string
		code     codes.Code
		words    []string
	}{
		{"does not answer", hang, codes.Unknown, []string{"ProcessUnary", "function at " + s.function.Address(), "500ms"}},
		{"ends with a status of its own", breakStream, codes.DataLoss, []string{"broken"}},
		{"answers garbage", answerGarbage, codes.Internal, []string{"unmarshal"}},
		{"forwards to no service", forwardToNone, codes.Unimplemented, []string{"no.such.Service"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := s.act(t, tc.do)
			says(t, err, tc.code, tc.words...)
			if got, err := s.act(t, emitOne); err != nil || got != emitOne {
				t.Fatalf("the next call answers %q, %v", got, err)
			}
		})
	}
}

// act sends an action its instruction: answer with the same words, or one of the script's faults.
func (s *stage) act(t *testing.T, do string) (string, error) {
	t.Helper()
	got, err := s.actions.ProcessUnary(t.Context(), &actionmodel.Request{Groups: []*actionmodel.ProcessGroup{{
		Steps: []*actionmodel.ProcessStep{{Step: &actionmodel.ProcessStep_Reply{Reply: &actionmodel.Reply{Message: do}}}},
	}}})
	return got.GetMessage(), err
}

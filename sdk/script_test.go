package sdk_test

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/millrace-io/millrace/sdk"
	scriptv1 "github.com/millrace-io/millrace/sdk/internal/script/v1"
)

// The services of these tests do what their requests say, step by step, like the models of
// Cloudstate's conformance tests.

const (
	journalRun  = scriptv1.JournalService_Run_FullMethodName
	journalRead = scriptv1.JournalService_Read_FullMethodName
	cellRun     = scriptv1.CellService_Run_FullMethodName
	flowUnary   = scriptv1.FlowService_Unary_FullMethodName
	flowIn      = scriptv1.FlowService_In_FullMethodName
	flowOut     = scriptv1.FlowService_Out_FullMethodName
	flowBoth    = scriptv1.FlowService_Both_FullMethodName
)

// journal is the concatenation of the texts that were emitted.
type journal struct{ text string }

func journalOptions() []sdk.Option[journal] {
	return []sdk.Option[journal]{
		sdk.Handle(journalRun, (*journal).run),
		sdk.Handle(journalRead, (*journal).read),
		sdk.On((*journal).appended),
		sdk.SnapshotEvery(5, (*journal).snapshot, (*journal).restore),
	}
}

func journalService() *sdk.Service {
	return sdk.EventSourced("journal", func(string) *journal { return &journal{} }, journalOptions()...)
}

func (j *journal) appended(e *scriptv1.Appended) { j.text += e.GetText() }

func (j *journal) snapshot() *scriptv1.Stored { return &scriptv1.Stored{Text: j.text} }

func (j *journal) restore(s *scriptv1.Stored) { j.text = s.GetText() }

func (j *journal) run(cmd *sdk.Command, in *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
	var end error
	for _, step := range in.GetSteps() {
		switch s := step.GetStep().(type) {
		case *scriptv1.Step_Emit:
			cmd.Emit(&scriptv1.Appended{Text: s.Emit})
		case *scriptv1.Step_Update: // a mistake: an event without a function
			cmd.Emit(&scriptv1.Forgotten{})
		default:
			end = cmp.Or(other(cmd, step), end)
		}
	}
	if end != nil {
		return nil, end
	}
	return &scriptv1.RunResponse{Text: j.text}, nil
}

func (j *journal) read(cmd *sdk.Command, _ *scriptv1.ReadRequest) (*scriptv1.ReadResponse, error) {
	return &scriptv1.ReadResponse{
		Text: j.text, EntityId: cmd.EntityID(), CommandId: cmd.ID(), Principal: cmd.Principal(),
		Agent: cmd.Metadata().Get("user-agent"), TimeUnixNanos: cmd.Time().UnixNano(),
	}, nil
}

func cellService() *sdk.Service {
	return sdk.Value("cell", sdk.HandleValue(cellRun, runCell))
}

func runCell(cmd *sdk.ValueCommand[*scriptv1.Stored], in *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
	var end error
	for _, step := range in.GetSteps() {
		switch s := step.GetStep().(type) {
		case *scriptv1.Step_Update:
			cmd.Update(&scriptv1.Stored{Text: s.Update})
		case *scriptv1.Step_Delete:
			cmd.Delete()
		case *scriptv1.Step_Emit: // changes the copy of the state in place
			if state := cmd.State(); state != nil {
				state.Text = s.Emit
			}
		default:
			end = cmp.Or(other(cmd, step), end)
		}
	}
	if end != nil {
		return nil, end
	}
	return &scriptv1.RunResponse{Text: cmd.State().GetText()}, nil
}

func flowService() *sdk.Service {
	return sdk.Action(
		sdk.Unary(flowUnary, runUnary),
		sdk.ClientStream(flowIn, runIn),
		sdk.ServerStream(flowOut, runOut),
		sdk.Bidi(flowBoth, runBoth),
	)
}

// endingService is an action whose streamed answer ends with what its one group says, instead of
// having elements.
func endingService() *sdk.Service {
	return sdk.Action(
		sdk.Unary(flowUnary, runUnary),
		sdk.ClientStream(flowIn, runIn),
		sdk.ServerStream(flowOut,
			func(cmd *sdk.StreamCommand, in *scriptv1.FlowRequest, _ func(*scriptv1.RunResponse) error) error {
				_, err := runGroup(cmd, in.GetGroups()[0])
				return err
			}),
		sdk.Bidi(flowBoth, runBoth),
	)
}

// waitingService is an action whose bidirectional call answers each message with "first" and
// reports the iterator's error.
func waitingService(ended chan<- error) *sdk.Service {
	return sdk.Action(
		sdk.Unary(flowUnary, runUnary),
		sdk.ClientStream(flowIn, runIn),
		sdk.ServerStream(flowOut, runOut),
		sdk.Bidi(flowBoth, func(_ *sdk.StreamCommand, requests iter.Seq2[*scriptv1.FlowRequest, error],
			send func(*scriptv1.RunResponse) error,
		) error {
			for _, err := range requests {
				if err != nil {
					ended <- err
					return err
				}
				if err := send(response("first")); err != nil {
					return err
				}
			}
			return nil
		}),
	)
}

func runUnary(cmd *sdk.ActionCommand, in *scriptv1.FlowRequest) (*scriptv1.RunResponse, error) {
	var reply *scriptv1.RunResponse
	for _, group := range in.GetGroups() {
		var err error
		if reply, err = runGroup(cmd, group); err != nil {
			return nil, err
		}
	}
	return reply, nil
}

func runIn(cmd *sdk.ActionCommand, requests iter.Seq2[*scriptv1.FlowRequest, error]) (*scriptv1.RunResponse, error) {
	var reply *scriptv1.RunResponse
	var end error
	for in, err := range requests {
		if err != nil {
			return nil, err
		}
		out, err := runUnary(cmd, in)
		end = cmp.Or(err, end)
		if out != nil {
			reply = out
		}
	}
	return reply, end
}

func runOut(cmd *sdk.StreamCommand, in *scriptv1.FlowRequest, send func(*scriptv1.RunResponse) error) error {
	for _, group := range in.GetGroups() {
		if err := sendGroup(cmd, group, send); err != nil {
			return err
		}
	}
	return nil
}

// sendGroup makes a group one element of the answer.
func sendGroup(cmd *sdk.StreamCommand, group *scriptv1.Group, send func(*scriptv1.RunResponse) error) error {
	reply, err := runGroup(cmd, group)
	for _, step := range group.GetSteps() {
		if to := step.GetForward(); to != "" {
			return cmd.SendForward(flowUnary, request(to))
		}
	}
	switch _, refused := errors.AsType[*sdk.Refusal](err); {
	case refused:
		return cmd.SendRefusal(err)
	case err != nil:
		return err
	default:
		return send(reply)
	}
}

func runBoth(cmd *sdk.StreamCommand, requests iter.Seq2[*scriptv1.FlowRequest, error],
	send func(*scriptv1.RunResponse) error,
) error {
	for in, err := range requests {
		if err != nil {
			return err
		}
		if err := runOut(cmd, in, send); err != nil {
			return err
		}
	}
	return nil
}

func runGroup(cmd commander, group *scriptv1.Group) (*scriptv1.RunResponse, error) {
	var reply *scriptv1.RunResponse
	var end error
	for _, step := range group.GetSteps() {
		if s, ok := step.GetStep().(*scriptv1.Step_Reply); ok {
			reply = &scriptv1.RunResponse{Text: s.Reply}
			continue
		}
		end = cmp.Or(other(cmd, step), end)
	}
	return reply, end
}

// commander is what the steps of all kinds need of a command.
type commander interface {
	Effect(method string, in proto.Message, options ...sdk.EffectOption)
}

// other takes the steps that all kinds have, and returns the error with which the handler is to
// end.
func other(cmd commander, step *scriptv1.Step) error {
	switch s := step.GetStep().(type) {
	case *scriptv1.Step_Effect:
		cmd.Effect(flowUnary, request(s.Effect))
	case *scriptv1.Step_SynchronousEffect:
		cmd.Effect(flowUnary, request(s.SynchronousEffect), sdk.Synchronous())
	case *scriptv1.Step_Forward:
		_, err := sdk.Forward[*scriptv1.RunResponse](flowUnary, request(s.Forward))
		return err
	case *scriptv1.Step_Refuse:
		return sdk.Refuse(codes.Unknown, "%s", s.Refuse)
	case *scriptv1.Step_NotFound:
		return fmt.Errorf("wrapped: %w", sdk.Refuse(codes.NotFound, "%s", s.NotFound))
	case *scriptv1.Step_Crash:
		return errors.New(s.Crash)
	case *scriptv1.Step_Panic:
		panic(s.Panic)
	}
	return nil
}

// request is the request by which the target of a forward or an effect is recognised.
func request(text string) *scriptv1.FlowRequest {
	return &scriptv1.FlowRequest{Groups: []*scriptv1.Group{{Steps: []*scriptv1.Step{reply(text)}}}}
}

// The steps of a script.

func emit(text string) *scriptv1.Step { return &scriptv1.Step{Step: &scriptv1.Step_Emit{Emit: text}} }

func update(text string) *scriptv1.Step {
	return &scriptv1.Step{Step: &scriptv1.Step_Update{Update: text}}
}
func remove() *scriptv1.Step { return &scriptv1.Step{Step: &scriptv1.Step_Delete{Delete: true}} }
func reply(text string) *scriptv1.Step {
	return &scriptv1.Step{Step: &scriptv1.Step_Reply{Reply: text}}
}

func forward(text string) *scriptv1.Step {
	return &scriptv1.Step{Step: &scriptv1.Step_Forward{Forward: text}}
}

func effect(text string) *scriptv1.Step {
	return &scriptv1.Step{Step: &scriptv1.Step_Effect{Effect: text}}
}

func awaited(text string) *scriptv1.Step {
	return &scriptv1.Step{Step: &scriptv1.Step_SynchronousEffect{SynchronousEffect: text}}
}

func refuse(text string) *scriptv1.Step {
	return &scriptv1.Step{Step: &scriptv1.Step_Refuse{Refuse: text}}
}

func notFound(text string) *scriptv1.Step {
	return &scriptv1.Step{Step: &scriptv1.Step_NotFound{NotFound: text}}
}

func crash(text string) *scriptv1.Step {
	return &scriptv1.Step{Step: &scriptv1.Step_Crash{Crash: text}}
}

func panics(text string) *scriptv1.Step {
	return &scriptv1.Step{Step: &scriptv1.Step_Panic{Panic: text}}
}

func emits(texts ...string) []*scriptv1.Step {
	var steps []*scriptv1.Step
	for _, text := range texts {
		steps = append(steps, emit(text))
	}
	return steps
}

func run(steps ...*scriptv1.Step) *scriptv1.RunRequest {
	return &scriptv1.RunRequest{Id: entityID, Steps: steps}
}

func group(steps ...*scriptv1.Step) *scriptv1.Group { return &scriptv1.Group{Steps: steps} }

func flow(groups ...*scriptv1.Group) *scriptv1.FlowRequest {
	return &scriptv1.FlowRequest{Groups: groups}
}

func response(text string) *scriptv1.RunResponse { return &scriptv1.RunResponse{Text: text} }

// entityID is the entity of the tests.
const entityID = "e1"

// payload encodes a message as everything on the wire is.
func payload(t testing.TB, m proto.Message) sdk.Payload {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return sdk.Payload{TypeURL: a.GetTypeUrl(), Value: a.GetValue()}
}

// payloads encodes messages; none are nil.
func payloads[M proto.Message](t testing.TB, messages ...M) []sdk.Payload {
	t.Helper()
	var encoded []sdk.Payload
	for _, m := range messages {
		encoded = append(encoded, payload(t, m))
	}
	return encoded
}

func appended(texts ...string) []*scriptv1.Appended {
	var events []*scriptv1.Appended
	for _, text := range texts {
		events = append(events, &scriptv1.Appended{Text: text})
	}
	return events
}

// equal compares a result with what is expected of it.
func equal(t testing.TB, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

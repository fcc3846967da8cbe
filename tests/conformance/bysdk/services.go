package bysdk

import (
	"time"

	"google.golang.org/grpc/codes"

	"github.com/millrace-io/millrace/sdk"
	"github.com/millrace-io/millrace/tests/conformance/proto/esmodel"
	"github.com/millrace-io/millrace/tests/conformance/proto/vemodel"
)

const (
	snapshotEvery  = 5
	passivateAfter = 100 * time.Millisecond
)

// Services returns the services of the acceptance tests.
func Services() []*sdk.Service {
	return []*sdk.Service{
		sdk.EventSourced("event-sourced-tck-model", newJournal,
			sdk.Handle(esmodel.EventSourcedTckModel_Process_FullMethodName, (*journal).process),
			sdk.On((*journal).persisted),
			sdk.SnapshotEvery(snapshotEvery, (*journal).take, (*journal).restore)),
		sdk.EventSourced("event-sourced-tck-model-two", newJournal,
			sdk.Handle(esmodel.EventSourcedTwo_Call_FullMethodName, (*journal).call)),
		sdk.EventSourced("event-sourced-configured", newJournal,
			sdk.Handle(esmodel.EventSourcedConfigured_Call_FullMethodName, (*journal).call)).PassivateAfter(passivateAfter),
		sdk.Value("value-entity-tck-model", sdk.HandleValue(vemodel.ValueEntityTckModel_Process_FullMethodName,
			processValue)),
		sdk.Value("value-entity-tck-model-two", sdk.HandleValue(vemodel.ValueEntityTwo_Call_FullMethodName, callValue)),
		sdk.Value("value-entity-configured",
			sdk.HandleValue(vemodel.ValueEntityConfigured_Call_FullMethodName, callValue)).PassivateAfter(passivateAfter),
		actionModel(),
		actionTwo(),
	}
}

// journal is the concatenation of what was emitted.
type journal struct{ value string }

func newJournal(string) *journal { return &journal{} }

func (j *journal) persisted(e *esmodel.Persisted)    { j.value += e.GetValue() }
func (j *journal) take() *esmodel.Persisted          { return &esmodel.Persisted{Value: j.value} }
func (j *journal) restore(stored *esmodel.Persisted) { j.value = stored.GetValue() }

func (j *journal) call(*sdk.Command, *esmodel.Request) (*esmodel.Response, error) {
	return &esmodel.Response{}, nil
}

// process takes the actions of a request.
func (j *journal) process(cmd *sdk.Command, in *esmodel.Request) (*esmodel.Response, error) {
	var forward *esmodel.Forward
	for _, a := range in.GetActions() {
		switch action := a.GetAction().(type) {
		case *esmodel.RequestAction_Emit:
			cmd.Emit(&esmodel.Persisted{Value: action.Emit.GetValue()})
		case *esmodel.RequestAction_Forward:
			forward = action.Forward
		case *esmodel.RequestAction_Effect:
			cmd.Effect(esmodel.EventSourcedTwo_Call_FullMethodName, &esmodel.Request{Id: action.Effect.GetId()},
				waiting(action.Effect.GetSynchronous())...)
		case *esmodel.RequestAction_Fail:
			return nil, refuse(action.Fail.GetMessage())
		}
	}
	if forward != nil {
		return sdk.Forward[*esmodel.Response](esmodel.EventSourcedTwo_Call_FullMethodName,
			&esmodel.Request{Id: forward.GetId()})
	}
	return &esmodel.Response{Message: j.value}, nil
}

type valueCommand = sdk.ValueCommand[*vemodel.Persisted]

func callValue(*valueCommand, *vemodel.Request) (*vemodel.Response, error) {
	return &vemodel.Response{}, nil
}

// processValue takes the actions of a request.
func processValue(cmd *valueCommand, in *vemodel.Request) (*vemodel.Response, error) {
	var forward *vemodel.Forward
	for _, a := range in.GetActions() {
		switch action := a.GetAction().(type) {
		case *vemodel.RequestAction_Update:
			cmd.Update(&vemodel.Persisted{Value: action.Update.GetValue()})
		case *vemodel.RequestAction_Delete:
			cmd.Delete()
		case *vemodel.RequestAction_Forward:
			forward = action.Forward
		case *vemodel.RequestAction_Effect:
			cmd.Effect(vemodel.ValueEntityTwo_Call_FullMethodName, &vemodel.Request{Id: action.Effect.GetId()},
				waiting(action.Effect.GetSynchronous())...)
		case *vemodel.RequestAction_Fail:
			return nil, refuse(action.Fail.GetMessage())
		}
	}
	if forward != nil {
		return sdk.Forward[*vemodel.Response](vemodel.ValueEntityTwo_Call_FullMethodName,
			&vemodel.Request{Id: forward.GetId()})
	}
	return &vemodel.Response{Message: cmd.State().GetValue()}, nil
}

// refuse returns a refusal as in Cloudstate: without a code.
func refuse(message string) error { return sdk.Refuse(codes.Unknown, "%s", message) }

func waiting(synchronous bool) []sdk.EffectOption {
	if synchronous {
		return []sdk.EffectOption{sdk.Synchronous()}
	}
	return nil
}

package bysdk

import (
	"iter"

	"github.com/millrace-io/millrace/sdk"
	"github.com/millrace-io/millrace/tests/conformance/proto/actionmodel"
)

func actionModel() *sdk.Service {
	return sdk.Action(
		sdk.Unary(actionmodel.ActionTckModel_ProcessUnary_FullMethodName, processUnary),
		sdk.ClientStream(actionmodel.ActionTckModel_ProcessStreamedIn_FullMethodName, processStreamedIn),
		sdk.ServerStream(actionmodel.ActionTckModel_ProcessStreamedOut_FullMethodName, processStreamedOut),
		sdk.Bidi(actionmodel.ActionTckModel_ProcessStreamed_FullMethodName, processStreamed),
	)
}

func actionTwo() *sdk.Service {
	return sdk.Action(sdk.Unary(actionmodel.ActionTwo_Call_FullMethodName,
		func(*sdk.ActionCommand, *actionmodel.OtherRequest) (*actionmodel.Response, error) {
			return &actionmodel.Response{}, nil
		}))
}

func processUnary(cmd *sdk.ActionCommand, in *actionmodel.Request) (*actionmodel.Response, error) {
	return respond(cmd, in.GetGroups()...)
}

func processStreamedIn(cmd *sdk.ActionCommand,
	requests iter.Seq2[*actionmodel.Request, error],
) (*actionmodel.Response, error) {
	var all []*actionmodel.ProcessGroup
	for in, err := range requests {
		if err != nil {
			return nil, err
		}
		all = append(all, in.GetGroups()...)
	}
	return respond(cmd, all...)
}

func processStreamedOut(cmd *sdk.StreamCommand, in *actionmodel.Request, send func(*actionmodel.Response) error) error {
	for _, group := range in.GetGroups() {
		if err := element(cmd, group, send); err != nil {
			return err
		}
	}
	return nil
}

func processStreamed(cmd *sdk.StreamCommand, requests iter.Seq2[*actionmodel.Request, error],
	send func(*actionmodel.Response) error,
) error {
	for in, err := range requests {
		if err != nil {
			return err
		}
		if err := processStreamedOut(cmd, in, send); err != nil {
			return err
		}
	}
	return nil
}

// decision is the result of the steps of groups; the last reply, forward or failure counts, effects
// are sent.
type decision struct {
	reply   *actionmodel.Response
	forward *actionmodel.Forward
	fail    *actionmodel.Fail
}

func decide(cmd *sdk.ActionCommand, groups ...*actionmodel.ProcessGroup) decision {
	var d decision
	for _, group := range groups {
		for _, s := range group.GetSteps() {
			switch step := s.GetStep().(type) {
			case *actionmodel.ProcessStep_Reply:
				d = decision{reply: &actionmodel.Response{Message: step.Reply.GetMessage()}}
			case *actionmodel.ProcessStep_Forward:
				d = decision{forward: step.Forward}
			case *actionmodel.ProcessStep_Fail:
				d = decision{fail: step.Fail}
			case *actionmodel.ProcessStep_Effect:
				cmd.Effect(actionmodel.ActionTwo_Call_FullMethodName, &actionmodel.OtherRequest{Id: step.Effect.GetId()},
					waiting(step.Effect.GetSynchronous())...)
			}
		}
	}
	return d
}

// respond answers a call whose answer does not stream.
func respond(cmd *sdk.ActionCommand, groups ...*actionmodel.ProcessGroup) (*actionmodel.Response, error) {
	d := decide(cmd, groups...)
	switch {
	case d.forward != nil:
		return sdk.Forward[*actionmodel.Response](actionmodel.ActionTwo_Call_FullMethodName,
			&actionmodel.OtherRequest{Id: d.forward.GetId()})
	case d.fail != nil:
		return nil, refuse(d.fail.GetMessage())
	default:
		return d.reply, nil
	}
}

// element sends one element of an answer that streams.
func element(cmd *sdk.StreamCommand, group *actionmodel.ProcessGroup, send func(*actionmodel.Response) error) error {
	d := decide(&cmd.ActionCommand, group)
	switch {
	case d.forward != nil:
		return cmd.SendForward(actionmodel.ActionTwo_Call_FullMethodName, &actionmodel.OtherRequest{Id: d.forward.GetId()})
	case d.fail != nil:
		return cmd.SendRefusal(refuse(d.fail.GetMessage()))
	default:
		return send(d.reply)
	}
}

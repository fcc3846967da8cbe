package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/millrace-io/millrace/sdk"
	"github.com/millrace-io/millrace/tests/conformance/proto/vemodel"
)

// script is a value entity that does what its requests say: it keeps the numbers that it was given,
// in their order, and beside them as many bytes as the last one asks for. Its answer is the
// numbers.
//
// An update "slot padding sleep slow", four numbers, keeps slot and padding bytes, after sleep
// milliseconds. Effects and forwards of a request give the slot of its update to their target,
// which sleeps for slow milliseconds. An entity whose id begins with "no-" refuses everything, and
// the function exits at each command to one whose id begins with "dead-".
var script = sdk.Value("script", sdk.HandleValue(vemodel.ValueEntityTckModel_Process_FullMethodName, process)) //nolint:gochecknoglobals // a service, as in the examples

func process(cmd *sdk.ValueCommand[*vemodel.Persisted], in *vemodel.Request) (*vemodel.Response, error) {
	switch {
	case strings.HasPrefix(in.GetId(), "no-"):
		return nil, sdk.Refuse(codes.FailedPrecondition, "script %s takes nothing", in.GetId())
	case strings.HasPrefix(in.GetId(), "dead-"):
		return nil, errors.New("this entity cannot be used")
	}
	numbers, _, _ := strings.Cut(cmd.State().GetValue(), "|")
	var slot, padding, sleep, slow int
	var forward *vemodel.Request
	passOn := func(id string) *vemodel.Request {
		return &vemodel.Request{Id: id, Actions: []*vemodel.RequestAction{{Action: &vemodel.RequestAction_Update{
			Update: &vemodel.Update{Value: fmt.Sprintf("%d 0 %d 0", slot, slow)},
		}}}}
	}
	for _, a := range in.GetActions() {
		switch action := a.GetAction().(type) {
		case *vemodel.RequestAction_Update:
			if _, err := fmt.Sscan(action.Update.GetValue(), &slot, &padding, &sleep, &slow); err != nil {
				return nil, sdk.Refuse(codes.InvalidArgument, "%q: %v", action.Update.GetValue(), err)
			}
			<-time.After(time.Duration(sleep) * time.Millisecond) // also when its caller has left
			numbers = strings.Join(append(strings.Fields(numbers), strconv.Itoa(slot)), " ")
			cmd.Update(&vemodel.Persisted{Value: numbers + "|" + strings.Repeat("x", padding)})
		case *vemodel.RequestAction_Effect:
			cmd.Effect(vemodel.ValueEntityTckModel_Process_FullMethodName, passOn(action.Effect.GetId()),
				options(action.Effect)...)
		case *vemodel.RequestAction_Forward:
			forward = passOn(action.Forward.GetId())
		}
	}
	if forward != nil {
		return sdk.Forward[*vemodel.Response](vemodel.ValueEntityTckModel_Process_FullMethodName, forward)
	}
	return &vemodel.Response{Message: numbers}, nil
}

func options(e *vemodel.Effect) []sdk.EffectOption {
	if e.GetSynchronous() {
		return []sdk.EffectOption{sdk.Synchronous()}
	}
	return nil
}

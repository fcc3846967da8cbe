package sdk_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/millrace-io/millrace/sdk"
	scriptv1 "github.com/millrace-io/millrace/sdk/internal/script/v1"
)

// streaming returns an action whose streamed methods are the given functions.
func streaming(
	in func(*sdk.ActionCommand, iter.Seq2[*scriptv1.FlowRequest, error]) (*scriptv1.RunResponse, error),
	out func(*sdk.StreamCommand, *scriptv1.FlowRequest, func(*scriptv1.RunResponse) error) error,
) *sdk.Service {
	return sdk.Action(
		sdk.Unary(flowUnary, runUnary),
		sdk.ClientStream(flowIn, in),
		sdk.ServerStream(flowOut, out),
		sdk.Bidi(flowBoth, runBoth),
	)
}

// callOut calls the method whose answer streams, and returns its elements.
func callOut(ctx context.Context, t *testing.T, service *sdk.Service, send func(sdk.Decision) error) error {
	t.Helper()
	return service.Call(ctx, sdk.Invocation{Method: "Out", Payload: payload(t, flow())}, nil, send)
}

// Elements that cannot be sent are errors for the handler, which tells them apart from those of the
// line.
func TestElementsThatCannotBeSent(t *testing.T) {
	for want, element := range map[string]func(*sdk.StreamCommand, func(*scriptv1.RunResponse) error) error{
		"cmd.SendForward: /script.v1.FlowService/Unary: the message is a script.v1.RunResponse": func(cmd *sdk.StreamCommand, _ func(*scriptv1.RunResponse) error) error {
			return cmd.SendForward(flowUnary, response("x"))
		},
		"cmd.SendRefusal: EOF": func(cmd *sdk.StreamCommand, _ func(*scriptv1.RunResponse) error) error {
			return cmd.SendRefusal(io.EOF)
		},
		"encode script.v1.RunResponse": func(_ *sdk.StreamCommand, send func(*scriptv1.RunResponse) error) error {
			return send(response("\xff"))
		},
	} {
		service := streaming(runIn,
			func(cmd *sdk.StreamCommand, _ *scriptv1.FlowRequest, send func(*scriptv1.RunResponse) error) error {
				return element(cmd, send)
			})
		err := callOut(t.Context(), t, service, func(sdk.Decision) error { return nil })
		if crash, ok := errors.AsType[*sdk.CrashError](err); !ok || !strings.Contains(crash.Error(), want) {
			t.Errorf("want a crash with %q, got %v", want, err)
		}
	}
}

// A line that breaks is not the handler's fault: the call ends with the line's own error.
func TestABrokenLineIsNoCrash(t *testing.T) {
	broken := errors.New("line broken")
	service := streaming(runIn,
		func(_ *sdk.StreamCommand, _ *scriptv1.FlowRequest, send func(*scriptv1.RunResponse) error) error {
			return send(response("x"))
		})
	if err := callOut(t.Context(), t, service, func(sdk.Decision) error { return broken }); err != broken { //nolint:errorlint // this very error
		t.Errorf("send: got %v", err)
	}
	recv := func() (sdk.Payload, error) { return sdk.Payload{}, broken }
	err := service.Call(t.Context(), sdk.Invocation{Method: "In"}, recv, func(sdk.Decision) error { return nil })
	if err != broken { //nolint:errorlint // this very error
		t.Errorf("recv: got %v", err)
	}
}

func TestACancelledContextIsNoCrash(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	service := streaming(runIn,
		func(cmd *sdk.StreamCommand, _ *scriptv1.FlowRequest, _ func(*scriptv1.RunResponse) error) error {
			cancel()
			return cmd.Context().Err()
		})
	if err := callOut(ctx, t, service, func(sdk.Decision) error { return nil }); err != context.Canceled { //nolint:errorlint // this very error
		t.Errorf("got %v", err)
	}
}

// A handler need not read its input to the end.
func TestInputMayBeLeftUnread(t *testing.T) {
	service := streaming(func(_ *sdk.ActionCommand,
		requests iter.Seq2[*scriptv1.FlowRequest, error],
	) (*scriptv1.RunResponse, error) {
		for range requests {
			return response("enough"), nil
		}
		return nil, nil
	}, runOut)
	var got []sdk.Decision
	err := service.Call(t.Context(), sdk.Invocation{Method: "In"},
		func() (sdk.Payload, error) { return payload(t, flow()), nil },
		func(d sdk.Decision) error { got = append(got, d); return nil })
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "decisions", got, []sdk.Decision{{Reply: replies(t, "enough")}})
}

// A command that is kept longer than its handler ran can send nothing more.
func TestAStreamEndsWithItsHandler(t *testing.T) {
	var kept func(*scriptv1.RunResponse) error
	service := streaming(runIn,
		func(_ *sdk.StreamCommand, _ *scriptv1.FlowRequest, send func(*scriptv1.RunResponse) error) error {
			kept = send
			return nil
		})
	if err := callOut(t.Context(), t, service, func(sdk.Decision) error { return nil }); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if recover() == nil {
			t.Error("the kept send function still works")
		}
	}()
	_ = kept(response("late"))
}

// An action's effects are sent with its refusal, and its crash names no entity.
func TestActionDecisions(t *testing.T) {
	var got []sdk.Decision
	send := func(d sdk.Decision) error { got = append(got, d); return nil }
	inv := sdk.Invocation{Method: "Unary", Payload: payload(t, flow(group(effect("x"), notFound("no"))))}
	if err := flowService().Call(t.Context(), inv, nil, send); err != nil {
		t.Fatal(err)
	}
	equal(t, "decisions", got, []sdk.Decision{{
		Refusal: &sdk.Refusal{Code: codes.NotFound, Message: "no"},
		Effects: []sdk.Effect{{Target: sdk.Target{
			Service: "script.v1.FlowService", Method: "Unary",
			Payload: payload(t, request("x")),
		}}},
	}})
	inv.Payload = payload(t, flow(group(crash("disk on fire"))))
	err := flowService().Call(t.Context(), inv, nil, send)
	if want := "script.v1.FlowService/Unary: disk on fire (to say no to a command, return sdk.Refuse)"; err == nil ||
		err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

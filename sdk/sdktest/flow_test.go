package sdktest_test

import (
	"errors"
	"iter"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/sdk"
	scriptv1 "github.com/millrace-io/millrace/sdk/internal/script/v1"
	"github.com/millrace-io/millrace/sdk/sdktest"
)

// flowService counts the messages of a bidirectional call; its other methods crash.
func flowService() *sdk.Service {
	crash := errors.New("not used by these tests")
	return sdk.Action(
		sdk.Unary(unary, func(*sdk.ActionCommand, *scriptv1.FlowRequest) (*scriptv1.RunResponse, error) {
			return nil, crash
		}),
		sdk.ClientStream(scriptv1.FlowService_In_FullMethodName,
			func(*sdk.ActionCommand, iter.Seq2[*scriptv1.FlowRequest, error]) (*scriptv1.RunResponse, error) {
				return nil, crash
			}),
		sdk.ServerStream(scriptv1.FlowService_Out_FullMethodName,
			func(*sdk.StreamCommand, *scriptv1.FlowRequest, func(*scriptv1.RunResponse) error) error { return crash }),
		sdk.Bidi(scriptv1.FlowService_Both_FullMethodName,
			func(_ *sdk.StreamCommand, requests iter.Seq2[*scriptv1.FlowRequest, error],
				send func(*scriptv1.RunResponse) error,
			) error {
				count := 0
				for _, err := range requests {
					if err != nil {
						return err
					}
					count++
					if err := send(&scriptv1.RunResponse{Text: strconv.Itoa(count)}); err != nil {
						return err
					}
				}
				return nil
			}),
	)
}

func TestACrashedActionEndsTheTest(t *testing.T) {
	got := failureOf(t, func(ft sdktest.T) { sdktest.New(ft, flowService(), "").When(unary, flow("a")) })
	if want := "When Unary: the handler crashed: not used by these tests"; !strings.Contains(got, want) {
		t.Errorf("want %q, got %q", want, got)
	}
}

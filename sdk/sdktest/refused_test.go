package sdktest_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	effectv1 "github.com/millrace-io/millrace/proto/gen/millrace/effect/v1"
	"github.com/millrace-io/millrace/sdk"
	scriptv1 "github.com/millrace-io/millrace/sdk/internal/script/v1"
	"github.com/millrace-io/millrace/sdk/sdktest"
)

const (
	askMethod     = scriptv1.AskService_Ask_FullMethodName
	refusedMethod = scriptv1.AskService_Refused_FullMethodName
)

// asking stores that it has asked, and sends the steps to a journal. When that refuses, it stores
// the refusal.
func asking() *sdk.Service {
	return sdk.Value("ask",
		sdk.HandleValue(askMethod,
			func(cmd *sdk.ValueCommand[*scriptv1.Stored], in *scriptv1.AskRequest) (*scriptv1.RunResponse, error) {
				if in.GetOther() == "" {
					return &scriptv1.RunResponse{Text: cmd.State().GetText()}, nil
				}
				cmd.Update(&scriptv1.Stored{Text: "asked"})
				var options []sdk.EffectOption
				switch refusal := in.GetRefusal(); refusal {
				case "":
				case "ignore":
					options = append(options, sdk.IgnoreRefusal())
				default:
					options = append(options, sdk.OnRefused(refusal))
				}
				cmd.Effect(scriptv1.JournalService_Run_FullMethodName,
					&scriptv1.RunRequest{Id: in.GetOther(), Steps: in.GetSteps()}, options...)
				return &scriptv1.RunResponse{}, nil
			}),
		sdk.HandleValue(refusedMethod,
			func(cmd *sdk.ValueCommand[*scriptv1.Stored], in *effectv1.Refused) (*scriptv1.RunResponse, error) {
				sent := &scriptv1.RunRequest{}
				if err := in.GetPayload().UnmarshalTo(sent); err != nil {
					return nil, err
				}
				cmd.Update(&scriptv1.Stored{Text: fmt.Sprintf("%s, then %s/%s of %s said %v: %s",
					cmd.State().GetText(), in.GetService(), in.GetMethod(), sent.GetId(), codes.Code(in.GetCode()), in.GetMessage())})
				return &scriptv1.RunResponse{}, nil
			}))
}

// refusing refuses everything.
func refusing() *sdk.Service {
	return journal(func(*note, *sdk.Command, *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
		return nil, sdk.Refuse(codes.FailedPrecondition, "no money")
	}, appendText)
}

// TestWorkerTellsOfRefusals: what the target of an effect refuses is reported to the entity that
// asked, once, if it asked for that.
func TestWorkerTellsOfRefusals(t *testing.T) {
	for refusal, want := range map[string]string{
		refusedMethod: "asked, then script.v1.JournalService/Run of j said FailedPrecondition: no money",
		"":            "asked",
		"ignore":      "asked",
	} {
		t.Run(refusal, func(t *testing.T) {
			w := sdktest.Worker(t, asking(), refusing())
			asks := scriptv1.NewAskServiceClient(w.Conn())
			if _, err := asks.Ask(t.Context(), &scriptv1.AskRequest{Id: "a", Other: "j", Refusal: refusal}); err != nil {
				t.Fatal(err)
			}
			w.AwaitQuiet()
			res, err := asks.Ask(t.Context(), &scriptv1.AskRequest{Id: "a"})
			if err != nil || res.GetText() != want {
				t.Errorf("the entity that asked has %q, %v; want %q", res.GetText(), err, want)
			}
		})
	}
}

// TestCallersCannotRefuse: a caller that could call the method that learns of refusals would have
// an entity undo what it did.
func TestCallersCannotRefuse(t *testing.T) {
	w := sdktest.Worker(t, asking(), refusing())
	_, err := scriptv1.NewAskServiceClient(w.Conn()).Refused(t.Context(), &effectv1.Refused{EntityId: "a", Message: "no money"})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("a caller got %v, want Unimplemented", err)
	}
}

// TestEffectsSayWhatIsWrongWithTheirRefusal: a command whose effect names a method that cannot
// learn of a refusal crashes, in the first test that runs it.
func TestEffectsSayWhatIsWrongWithTheirRefusal(t *testing.T) {
	for name, test := range map[string]struct{ method, want string }{
		"of another service": {scriptv1.JournalService_Run_FullMethodName, "is not a method of script.v1.AskService"},
		"of another message": {askMethod, "declare it to take a millrace.effect.v1.Refused"},
		"no method":          {"Refused", "is not a full method name"},
	} {
		t.Run(name, func(t *testing.T) {
			w := sdktest.Worker(t, asking(), refusing())
			asks := scriptv1.NewAskServiceClient(w.Conn())
			if _, err := asks.Ask(t.Context(), &scriptv1.AskRequest{Id: "a", Other: "j", Refusal: test.method}); err == nil {
				t.Error("the command succeeded")
			}
			res, err := asks.Ask(t.Context(), &scriptv1.AskRequest{Id: "a"})
			if err != nil || res.GetText() != "" {
				t.Errorf("the entity has %q, %v; want nothing", res.GetText(), err)
			}
			entity, err := asking().NewEntity("a")
			if err != nil {
				t.Fatal(err)
			}
			request, err := proto.Marshal(&scriptv1.AskRequest{Id: "a", Other: "j", Refusal: test.method})
			if err != nil {
				t.Fatal(err)
			}
			_, err = entity.Handle(t.Context(), sdk.Invocation{Method: "Ask", Payload: sdk.Payload{Value: request}})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("the handler ended with %v, want %q", err, test.want)
			}
		})
	}
}

package node

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	"github.com/millrace-io/millrace/internal/app/inprocess"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
	"github.com/millrace-io/millrace/sdk"
)

// refusing is a counter whose every increment of a-x asks for the same of b-x, which refuses.
func refusing(t *testing.T) Local {
	t.Helper()
	f, err := inprocess.New(sdk.Value("counter",
		sdk.HandleValue(counterv1.CounterService_Increment_FullMethodName,
			func(cmd *sdk.ValueCommand[*counterv1.State], in *counterv1.IncrementRequest) (*counterv1.Counter, error) {
				name, asks := strings.CutPrefix(in.GetCounterId(), "a-")
				if !asks {
					return nil, sdk.Refuse(codes.FailedPrecondition, "%s is closed", in.GetCounterId())
				}
				cmd.Update(&counterv1.State{Value: cmd.State().GetValue() + 1})
				cmd.Effect(counterv1.CounterService_Increment_FullMethodName, &counterv1.IncrementRequest{CounterId: "b-" + name})
				return &counterv1.Counter{}, nil
			}),
		sdk.HandleValue(counterv1.CounterService_Get_FullMethodName,
			func(cmd *sdk.ValueCommand[*counterv1.State], _ *counterv1.GetRequest) (*counterv1.Counter, error) {
				return &counterv1.Counter{Value: cmd.State().GetValue()}, nil
			}),
	))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestRefusedEffectsAreListed: an operator sees what was refused, with code and text, in the list,
// in the history of the entity that asked, and in the log; drops one, and has another one sent
// again, which is refused once more.
func TestRefusedEffectsAreListed(t *testing.T) {
	n := started(t, Options{Local: refusing(t)})
	ask := adminOf(t, n)
	for _, name := range []string{"a-x", "a-y"} {
		increment(t, n, name)
	}
	if err := n.AwaitQuiet(t.Context()); err != nil {
		t.Fatal(err)
	}
	list := func() []*adminv1.ParkedEffect {
		t.Helper()
		res, err := ask.ListParked(t.Context(), &adminv1.ListParkedRequest{Refused: true})
		if err != nil {
			t.Fatal(err)
		}
		if res.GetTotal() != int64(len(res.GetEffects())) || res.GetRefused() != res.GetTotal() {
			t.Errorf("%d effects are listed of %d, and %d are refused", len(res.GetEffects()), res.GetTotal(), res.GetRefused())
		}
		return res.GetEffects()
	}
	eventually(t, "two refused effects are counted", func() bool { return n.manager.CountRefused() == 2 })
	refused := list()
	if len(refused) != 2 {
		t.Fatalf("%d refused effects are listed, want 2", len(refused))
	}
	byEntity := map[string]*adminv1.ParkedEffect{}
	for _, e := range refused {
		byEntity[e.GetFrom()] = e
	}
	x := byEntity["counter/a-x"]
	if x.GetMethod() != "Increment" || x.GetError() != "refused with FailedPrecondition: b-x is closed" ||
		x.GetPayload().GetJson() != `{"counterId":"b-x"}` {
		t.Errorf("the refusal of a-x is listed as %v", x)
	}
	parked, err := ask.ListParked(t.Context(), &adminv1.ListParkedRequest{})
	if err != nil || len(parked.GetEffects()) != 0 || parked.GetRefused() != 2 {
		t.Errorf("parked: %v, %v; want none, and that two are refused", parked, err)
	}

	stream, err := ask.History(t.Context(), &adminv1.HistoryRequest{Type: "counter", Id: "a-x"})
	if err != nil {
		t.Fatal(err)
	}
	records := all(t, stream.Recv)
	last := records[len(records)-1]
	if last.GetKind() != "refused" {
		t.Errorf("the last record of a-x is %v", last)
	}
	mustContain(t, "the history", last.GetNote(), "counter.v1.CounterService/Increment refused with FailedPrecondition: b-x is closed")

	for name, drop := range map[string]bool{"counter/a-x": true, "counter/a-y": false} {
		e := byEntity[name]
		r := &adminv1.ResolveParkedRequest{Partition: e.GetPartition(), Offset: e.GetOffset(), Drop: drop, Refused: true}
		if _, err := ask.ResolveParked(t.Context(), r); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := ask.ResolveParked(t.Context(), r); status.Code(err) != codes.NotFound {
			t.Errorf("%s: resolved twice: %v", name, err)
		}
	}
	if err := n.AwaitQuiet(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "one refused effect is counted", func() bool { return n.manager.CountRefused() == 1 })
	again := list()
	if len(again) != 1 || again[0].GetFrom() != "counter/a-y" ||
		again[0].GetOffset() <= byEntity["counter/a-y"].GetOffset() {
		t.Errorf("listed afterwards: %v; want the one that was sent again and refused again", again)
	}
}

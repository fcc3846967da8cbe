package host_test

import (
	"context"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/host"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/action"
)

// outcomeFunction is a function of this process that answers each command and each call with the
// same outcome.
type outcomeFunction struct {
	localFunction
	outcome entities.Outcome
}

func (f *outcomeFunction) OpenEntity(string, string) (host.LocalEntity, error) {
	return &outcomeEntity{localEntity{words: []string{"x"}}, f.outcome}, nil
}

func (f *outcomeFunction) Act(context.Context, entities.Invocation) (*entities.Outcome, error) {
	return &f.outcome, nil
}

func (f *outcomeFunction) ActStream(ctx context.Context, _ *entities.Stream,
	on func(context.Context, *entities.Outcome) error,
) error {
	return on(ctx, &f.outcome)
}

type outcomeEntity struct {
	localEntity
	outcome entities.Outcome
}

func (e *outcomeEntity) Handle(context.Context, entities.Invocation) (*entities.Outcome, error) {
	out := e.outcome
	return &out, nil
}

// TestARefusalChangesNothing: of an outcome that refuses its command, the refusal is left, and a
// restart where the function's memory may be ahead of what is stored.
func TestARefusalChangesNothing(t *testing.T) {
	no := entities.Errorf(entities.FunctionRefused, entities.Refused, "no")
	word := textPayload("x")
	target := entities.Target{Service: "t.Carts", Method: "Add", Payload: textPayload(cartKey.ID)}
	for what, tc := range map[string]struct {
		outcome           entities.Outcome
		restarts, reports bool
	}{
		"nothing":           {entities.Outcome{}, false, false},
		"its own restart":   {entities.Outcome{Restart: true}, true, false},
		"events":            {entities.Outcome{Events: []entities.Payload{word}}, true, true},
		"garbage events":    {entities.Outcome{Events: []entities.Payload{{}}}, true, true},
		"a snapshot":        {entities.Outcome{Events: []entities.Payload{word}, Snapshot: &word}, true, true},
		"a new value":       {entities.Outcome{StateAction: entities.StateUpdated, State: word}, true, true},
		"a deletion":        {entities.Outcome{StateAction: entities.StateDeleted}, true, true},
		"effects":           {entities.Outcome{Effects: []entities.SideEffect{{Target: target}}}, false, true},
		"a reply":           {entities.Outcome{Reply: &entities.Reply{Payload: word}}, false, true},
		"a forward":         {entities.Outcome{Forward: &target}, false, true},
		"timers":            {entities.Outcome{Timers: []entities.TimerChange{{Name: "t", Target: target}}}, false, true},
		"restart and value": {entities.Outcome{Restart: true, StateAction: entities.StateDeleted}, true, true},
	} {
		t.Run(what, func(t *testing.T) {
			tc.outcome.Failure = no
			var warnings []string
			p := newInProcess(t, &outcomeFunction{localFunction{spec: newSpec(t)}, tc.outcome}, host.Hooks{
				OnWarning: func(w string) { warnings = append(warnings, w) },
			})
			s, err := p.Open(t.Context(), p.Catalog().Service("t.Carts"), cartKey, nothingStored)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close(t.Context())
			for range 2 {
				out, err := s.Handle(t.Context(), invocation("t.Carts", "Add", cartKey, "x"))
				if err != nil {
					t.Fatal(err)
				}
				want := `failure "no", code 0, refused`
				if tc.restarts {
					want += "; restart"
				}
				if got := describeOutcome(out); got != want || out.Reply != nil || out.Forward != nil ||
					len(out.Effects)+len(out.Timers) > 0 || out.Wrote() {
					t.Errorf("the engine is told %s: %+v, want %s", got, out, want)
				}
			}
			if told := strings.Join(warnings, "\n"); len(warnings) > 1 || tc.reports != strings.Contains(told, "/t.Carts/Add refused a command") {
				t.Errorf("the operator reads %q, want one report: %v", warnings, tc.reports)
			}
		})
	}
}

// TestARefusalOfAnActionWithEffects: an action's effects are sent beside its refusal, as the
// protocol says, so the caller is not told that nothing was stored.
func TestARefusalOfAnActionWithEffects(t *testing.T) {
	effect := entities.SideEffect{Target: entities.Target{
		Service: "t.Carts", Method: "Add",
		Payload: textPayload(cartKey.ID),
	}}
	p := newInProcess(t, &outcomeFunction{localFunction{spec: newSpec(t)}, entities.Outcome{
		Failure: entities.Errorf(entities.FunctionRefused, entities.Refused, "no"), Effects: []entities.SideEffect{effect},
	}}, host.Hooks{})
	out, err := p.Act(t.Context(), p.Catalog().Service("t.Acts").Method("Do"), invocation("t.Acts", "Do", entities.Key{}, "x"))
	if err != nil || len(out.Effects) != 1 {
		t.Fatalf("in process: got %+v, %v", out, err)
	}
	wantError(t, out.Failure, entities.FunctionRefused, entities.Unknown, "no")
	s := streamOf("Out", nil)
	err = p.ActStream(t.Context(), p.Catalog().Service("t.Acts").Method("Out"), s,
		func(context.Context, *entities.Outcome) error { return nil })
	wantError(t, err, entities.FunctionRefused, entities.Unknown, "no")

	f, h, _, _ := actionHost(t)
	f.actions.unary = func(context.Context, *action.ActionCommand) (*action.ActionResponse, error) {
		r := refused("no")
		r.SideEffects = []*cloudstate.SideEffect{{ServiceName: "t.Carts", CommandName: "Add", Payload: textAny(cartKey.ID)}}
		return r, nil
	}
	out, err = h.Act(t.Context(), invocation("t.Acts", "Do", entities.Key{}, "x"))
	if err != nil || len(out.Effects) != 1 {
		t.Fatalf("remote: got %+v, %v", out, err)
	}
	wantError(t, out.Failure, entities.FunctionRefused, entities.Unknown, "no")
}

package host_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/entities/host"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

var errCrash = errors.New("it crashed")

// localFunction is a function of this process. Its entities are lists of words; the words "panic",
// "error" and the like make it do so.
type localFunction struct {
	spec *cloudstate.EntitySpec
	// deaf holds the calls of actions with the word "deaf", whatever their contexts say.
	deaf chan struct{}
}

func (f *localFunction) Spec() *cloudstate.EntitySpec { return f.spec }

func (f *localFunction) OpenEntity(service, id string) (host.LocalEntity, error) {
	return &localEntity{words: []string{service + "/" + id}}, misbehave(id)
}

func (f *localFunction) Act(ctx context.Context, inv entities.Invocation) (*entities.Outcome, error) {
	word := valueText(inv.Payload.Value)
	switch word {
	case "wait":
		<-ctx.Done()
		return nil, fmt.Errorf("it ended: %w", ctx.Err())
	case "deaf":
		<-f.deaf
	}
	return &entities.Outcome{Reply: &entities.Reply{Payload: textPayload(word)}}, misbehave(word)
}

func (f *localFunction) ActStream(ctx context.Context, s *entities.Stream,
	on func(context.Context, *entities.Outcome) error,
) error {
	word := valueText(s.Payload.Value)
	switch word {
	case "wait":
		<-ctx.Done()
		return fmt.Errorf("it ended: %w", ctx.Err())
	case "deaf":
		<-f.deaf
	}
	for i := range 2 {
		out := &entities.Outcome{Reply: &entities.Reply{Payload: textPayload(fmt.Sprint(word, i))}}
		if word == "refuse" {
			out = &entities.Outcome{Failure: entities.Errorf(entities.FunctionRefused, entities.Refused, "no")}
		}
		if err := on(ctx, out); err != nil {
			return fmt.Errorf("ended: %w", err)
		}
	}
	return misbehave(word)
}

func misbehave(word string) error {
	switch word {
	case "panic":
		panic("oh no")
	case "error":
		return errCrash
	case "refusal":
		return &entities.Error{Reason: entities.FunctionRefused, Outcome: entities.Refused, Message: "no"}
	}
	return nil
}

type localEntity struct{ words []string }

func (e *localEntity) Load(state *entities.Payload, _ uint64) error {
	if state != nil {
		e.words = append(e.words, valueText(state.Value))
	}
	return misbehave(e.words[len(e.words)-1])
}

func (e *localEntity) Apply(event entities.Event) error {
	word := valueText(event.Payload.Value)
	e.words = append(e.words, fmt.Sprint(event.Sequence, word))
	return misbehave(word)
}

func (e *localEntity) Handle(ctx context.Context, inv entities.Invocation) (*entities.Outcome, error) {
	word := valueText(inv.Payload.Value)
	switch word {
	case "wait":
		<-ctx.Done()
		return nil, fmt.Errorf("it ended: %w", ctx.Err())
	case "nothing":
		return nil, nil
	case "garbage":
		return &entities.Outcome{Events: []entities.Payload{{}}}, nil
	case "restart":
		return &entities.Outcome{Restart: true, Failure: entities.Errorf(entities.FunctionRefused, entities.Refused, "no")},
			nil
	}
	return &entities.Outcome{Reply: &entities.Reply{Payload: textPayload(strings.Join(e.words, " "))}}, misbehave(word)
}

func (e *localEntity) Size() int { return len(e.words) }

func history(words ...string) func(func(entities.Event) error) error {
	return func(yield func(entities.Event) error) error {
		for i, w := range words {
			if w == "store" {
				return errors.New("the store is broken")
			}
			if err := yield(entities.Event{Sequence: uint64(i) + 6, Payload: textPayload(w)}); err != nil {
				return fmt.Errorf("event: %w", err)
			}
		}
		return nil
	}
}

func localHost(t *testing.T) (*host.Host, *host.InProcess, *[]string) {
	t.Helper()
	var faults []string
	p := newInProcess(t, &localFunction{spec: newSpec(t)},
		host.Hooks{
			OnSessionFault: func(key entities.Key, err *entities.Error) {
				faults = append(faults, fmt.Sprintf("%s: %s (%s): %v %s", key, err, err.Reference, err.Cause, host.Stack(err)))
			},
			OnActionFault: func(method string, err *entities.Error) {
				faults = append(faults, fmt.Sprintf("%s: %s (%s): %v %s", method, err, err.Reference, err.Cause, host.Stack(err)))
			},
		})
	h := host.New(host.Settings{})
	set(t, h, p)
	return h, p, &faults
}

func TestLocalSession(t *testing.T) {
	h, p, faults := localHost(t)
	state, five := textPayload("10"), textPayload("five")
	for _, tc := range []struct {
		service, method string
		loaded          entities.Loaded
		want            string
	}{
		{"t.Carts", "Add", entities.Loaded{}, "t.Carts/c1"},
		{"t.Carts", "Add", entities.Loaded{State: &five, StateSequence: 5, Events: history("a", "b")}, "t.Carts/c1 five 6a 7b"},
		{"t.Prices", "Set", entities.Loaded{State: &state}, "t.Prices/c1 10"},
	} {
		s, err := h.Open(t.Context(), tc.service, cartKey, func(context.Context) (entities.Loaded, error) {
			return tc.loaded, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Handle(t.Context(), invocation(tc.service, tc.method, cartKey, "x"))
		if err != nil {
			t.Fatal(err)
		}
		if got := valueText(out.Reply.Payload.Value); got != tc.want {
			t.Errorf("the entity is %q, want %q", got, tc.want)
		}
		if s.Size() != len(strings.Fields(tc.want)) || s.Ended() != nil {
			t.Errorf("size %d", s.Size())
		}
		s.Close(t.Context())
	}
	if stats := p.Stats(); stats.SessionsOpened != 3 || stats.SessionsOpen != 0 || stats.Commands != 3 ||
		stats.EventsReplayed != 2 || len(*faults) != 0 {
		t.Errorf("stats %+v, faults %q", stats, *faults)
	}
}

// A crash ends the entity's session; the caller does not learn its reason, and the operator does.
func TestLocalCrashes(t *testing.T) {
	for word, reason := range map[string]string{
		"panic":   "panic: oh no",
		"error":   "it crashed",
		"nothing": "no outcome",
		"garbage": "event 1 of 1 has no type URL",
	} {
		t.Run(word, func(t *testing.T) {
			h, p, faults := localHost(t)
			s, err := h.Open(t.Context(), "t.Carts", cartKey, nothingStored)
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Handle(t.Context(), invocation("t.Carts", "Add", cartKey, word))
			wantError(t, err, entities.FunctionFailed, entities.NotApplied)
			if err.Error() != "Unexpected entity failure" {
				t.Errorf("the caller reads %q", err)
			}
			if len(*faults) != 1 || !strings.Contains((*faults)[0], reason) || !strings.Contains((*faults)[0], "t.Carts/Add on cart/c1") {
				t.Errorf("the operator reads %q", *faults)
			}
			_, isPanic := errors.AsType[*host.PanicError](err)
			if hasStack := strings.Contains((*faults)[0], "misbehave"); isPanic != (word == "panic") || hasStack != isPanic {
				t.Errorf("panic %v, stack %v", isPanic, hasStack)
			}
			reference := entities.AsError(err).Reference
			if reference == "" || !strings.Contains((*faults)[0], reference) {
				t.Errorf("the caller's reference is %q, the operator reads %q", reference, *faults)
			}
			_, err = s.Handle(t.Context(), invocation("t.Carts", "Add", cartKey, "x"))
			wantError(t, err, entities.FunctionFailed, entities.NotApplied, "Entity terminated")
			if e := entities.AsError(err); e.Reference != reference {
				t.Errorf("what follows has the reference %q, want %q", e.Reference, reference)
			}
			s.Close(t.Context())
			if stats := p.Stats(); stats.SessionsOpen != 0 || stats.Failures != 1 {
				t.Errorf("stats %+v", stats)
			}
		})
	}
}

// Crashes while an entity is opened are the function's; errors of the loader are the engine's.
func TestLocalOpenErrors(t *testing.T) {
	h, p, faults := localHost(t)
	open := func(id string, loaded entities.Loaded) error {
		_, err := h.Open(t.Context(), "t.Carts", entities.Key{Type: "cart", ID: id},
			func(context.Context) (entities.Loaded, error) { return loaded, nil })
		return err
	}
	state := textPayload("error")
	for _, err := range []error{
		open("panic", entities.Loaded{}),
		open("error", entities.Loaded{}),
		open("c1", entities.Loaded{State: &state}),
		open("c1", entities.Loaded{Events: history("a", "error")}),
		open("c1", entities.Loaded{Events: history("a", "panic")}),
	} {
		wantError(t, err, entities.FunctionFailed, entities.NotApplied, "Unexpected entity failure")
	}
	if len(*faults) != 5 || !strings.Contains((*faults)[3], "event 7: it crashed") {
		t.Errorf("faults %q", *faults)
	}
	err := open("c1", entities.Loaded{Events: history("a", "store")})
	if _, ours := errors.AsType[*entities.Error](err); ours || err == nil {
		t.Errorf("the loader's error became %v", err)
	}
	if p.Stats().SessionsOpen != 0 || len(*faults) != 5 {
		t.Errorf("stats %+v, faults %q", p.Stats(), *faults)
	}
}

func TestLocalRestart(t *testing.T) {
	h, p, _ := localHost(t)
	s, err := h.Open(t.Context(), "t.Carts", cartKey, nothingStored)
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Handle(t.Context(), invocation("t.Carts", "Add", cartKey, "restart"))
	if err != nil || !out.Restart {
		t.Errorf("got %+v, %v", out, err)
	}
	s.Close(t.Context())
	if stats := p.Stats(); stats.Restarts != 1 || stats.Refusals != 1 {
		t.Errorf("stats %+v", stats)
	}
}

// TestLocalActions: on the code before, an action that crashed left nothing in the log to which its
// caller's error pointed.
func TestLocalActions(t *testing.T) {
	h, p, faults := localHost(t)
	act := func(word string) (*entities.Outcome, error) {
		return h.Act(t.Context(), invocation("t.Acts", "Do", entities.Key{}, word))
	}
	if out, err := act("x"); err != nil || valueText(out.Reply.Payload.Value) != "x" {
		t.Errorf("got %+v, %v", out, err)
	}
	for _, word := range []string{"panic", "error"} {
		_, err := act(word)
		wantError(t, err, entities.FunctionFailed, entities.Unknown, "/t.Acts/Do: the action crashed")
		reference, said := entities.AsError(err).Reference, strings.Join(*faults, "\n")
		if reference == "" || !strings.Contains(said, reference) || strings.Contains(said, "misbehave") != (word == "panic") {
			t.Errorf("%s: the caller's reference is %q, the operator reads %q", word, reference, said)
		}
		*faults = nil
	}
	_, err := act("refusal")
	wantError(t, err, entities.FunctionRefused, entities.Refused, "no")
	if stats := p.Stats(); stats.Actions != 4 || stats.Failures != 3 {
		t.Errorf("stats %+v", stats)
	}
}

func TestLocalStreams(t *testing.T) {
	h, _, _ := localHost(t)
	act := func(word string, on host.OutcomeFunc) error {
		s := streamOf("Out", nil)
		s.Payload = textPayload(word)
		return h.ActStream(t.Context(), s, on)
	}
	var outcomes []string
	if err := act("x", collect(&outcomes)); err != nil || fmt.Sprint(outcomes) != `[reply "x0" reply "x1"]` {
		t.Errorf("outcomes %v, error %v", outcomes, err)
	}
	wantError(t, act("panic", collect(&outcomes)), entities.FunctionFailed, entities.Unknown, "the action crashed")
	wantError(t, act("refuse", collect(&outcomes)), entities.FunctionRefused, entities.Refused, "no")
	stop := errors.New("the caller's connection is gone")
	if err := act("x", func(context.Context, *entities.Outcome) error { return stop }); err != stop { //nolint:errorlint // exactly this one
		t.Errorf("got %v", err)
	}
}

func TestLocalRejection(t *testing.T) {
	spec := newSpec(t)
	spec.Entities[0].EntityType = "teapot"
	_, err := host.NewInProcess(&localFunction{spec: spec}, host.Options{}, discovery.Options{})
	if _, ok := errors.AsType[*discovery.RejectedError](err); !ok {
		t.Errorf("got %v", err)
	}
}

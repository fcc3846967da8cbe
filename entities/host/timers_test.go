package host_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/host"
	"github.com/millrace-io/millrace/internal/schedule"
)

// settingFunction is a function of this process whose entities set timers.
type settingFunction struct {
	localFunction
	timers []entities.TimerChange
}

func (f *settingFunction) OpenEntity(string, string) (host.LocalEntity, error) {
	return &settingEntity{localEntity: localEntity{words: []string{"x"}}, timers: f.timers}, nil
}

type settingEntity struct {
	localEntity
	timers []entities.TimerChange
}

func (e *settingEntity) Handle(context.Context, entities.Invocation) (*entities.Outcome, error) {
	return &entities.Outcome{Timers: e.timers}, nil
}

// TestLocalTimers: a function in this process is held to the same rules as a remote one.
func TestLocalTimers(t *testing.T) {
	for why, change := range map[string]func(*entities.TimerChange){
		"":                                       func(*entities.TimerChange) {},
		"needs a name":                           func(c *entities.TimerChange) { c.Name = "" },
		"129 bytes":                              func(c *entities.TimerChange) { c.Name = strings.Repeat("t", 129) },
		"not valid UTF-8":                        func(c *entities.TimerChange) { c.Name = "\xff" },
		"before the command":                     func(c *entities.TimerChange) { c.After = -time.Second },
		"in UTC":                                 func(c *entities.TimerChange) { c.Schedule = "TZ=UTC" },
		"for service t.Prices":                   func(c *entities.TimerChange) { c.Target.Service = "t.Prices" },
		"t.Carts has no method Set":              func(c *entities.TimerChange) { c.Target.Method = "Set" },
		"takes a type.googleapis.com/t.Text":     func(c *entities.TimerChange) { c.Target.Payload.TypeURL = "type.googleapis.com/t.Other" },
		"not a valid t.Text":                     func(c *entities.TimerChange) { c.Target.Payload.Value = []byte{0x0a, 9} },
		"the entity key text of t.Text is empty": func(c *entities.TimerChange) { c.Target.Payload = textPayload("") },
		"it is for cart/c2":                      func(c *entities.TimerChange) { c.Target.Payload = textPayload("c2") },
	} {
		timer := entities.TimerChange{
			Name: "t", After: time.Second,
			Target: entities.Target{Service: "t.Carts", Method: "Add", Payload: textPayload(cartKey.ID)},
		}
		change(&timer)
		wantTimers(t, []entities.TimerChange{timer}, why)
	}
	cancel := make([]entities.TimerChange, schedule.MaxChanges+1)
	for i := range cancel {
		cancel[i] = entities.TimerChange{Name: fmt.Sprint(i), Cancel: true}
	}
	wantTimers(t, cancel[1:], "")
	wantTimers(t, cancel, "too many changes of timers: 101")
}

// wantTimers lets an entity set timers; why is a part of what the operator reads, "" when they are
// accepted.
func wantTimers(t *testing.T, timers []entities.TimerChange, why string) {
	t.Helper()
	var fault string
	p := newInProcess(t, &settingFunction{localFunction: localFunction{spec: newSpec(t)}, timers: timers}, host.Hooks{
		OnSessionFault: func(_ entities.Key, err *entities.Error) { fault = err.Cause.Error() },
	})
	s, err := p.Open(t.Context(), p.Catalog().Service("t.Carts"), cartKey, nothingStored)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(t.Context())
	out, err := s.Handle(t.Context(), invocation("t.Carts", "Add", cartKey, "x"))
	if why == "" {
		if err != nil || len(out.Timers) != len(timers) {
			t.Errorf("got %+v, %v (%s), want %d timers", out, err, fault, len(timers))
		}
		return
	}
	wantError(t, err, entities.FunctionFailed, entities.NotApplied)
	if !strings.Contains(fault, why) {
		t.Errorf("the operator reads %q, want %q", fault, why)
	}
}

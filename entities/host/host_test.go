package host_test

import (
	"context"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/entities/host"
)

// functions is what the engine wants of a host.
type functions interface {
	Open(ctx context.Context, service string, key entities.Key, load entities.Loader) (entities.Session, error)
	Act(ctx context.Context, inv entities.Invocation) (*entities.Outcome, error)
	ActStream(ctx context.Context, s *entities.Stream, on func(context.Context, *entities.Outcome) error) error
	Resolve(t entities.Target) (*entities.Command, error)
}

var (
	_ functions     = (*host.Host)(nil)
	_ host.Function = (*host.Remote)(nil)
	_ host.Function = (*host.InProcess)(nil)
)

// A host gives a function only what its catalog has.
func TestHostRefusesWhatIsNotServed(t *testing.T) {
	_, h, _, _ := actionHost(t)
	open := func(service string) error {
		_, err := h.Open(t.Context(), service, cartKey, nothingStored)
		return err
	}
	act := func(service, method string) error {
		_, err := h.Act(t.Context(), invocation(service, method, entities.Key{}, ""))
		return err
	}
	stream := func(service, method string) error {
		return h.ActStream(t.Context(), &entities.Stream{Command: invocation(service, method, entities.Key{}, "").Command}, nil)
	}
	wantError(t, open("t.Nothing"), entities.UnknownMethod, entities.NotApplied, "t.Nothing")
	wantError(t, open("t.Rooms"), entities.NotSupported, entities.NotApplied, "t.Rooms: replicated entities are not supported yet by this version")
	wantError(t, open("t.Acts"), entities.Internal, entities.NotApplied, "t.Acts")
	wantError(t, act("t.Nothing", "Do"), entities.UnknownMethod, entities.NotApplied, "t.Nothing")
	wantError(t, act("t.Acts", "Nothing"), entities.UnknownMethod, entities.NotApplied, "Nothing")
	wantError(t, act("t.Carts", "Add"), entities.Internal, entities.NotApplied, "t.Carts")
	wantError(t, act("t.Acts", "Out"), entities.Internal, entities.NotApplied, "streams")
	wantError(t, stream("t.Nothing", "Do"), entities.UnknownMethod, entities.NotApplied, "t.Nothing")
	wantError(t, stream("t.Acts", "Nothing"), entities.UnknownMethod, entities.NotApplied, "Nothing")
	wantError(t, stream("t.Acts", "Do"), entities.Internal, entities.NotApplied, "unary")
}

// Targets become commands; what is wrong with one is told to the function.
func TestResolve(t *testing.T) {
	f, h, remote, _ := actionHost(t)
	cmd, err := h.Resolve(entities.Target{Service: "t.Carts", Method: "Add", Payload: textPayload("c7"), Metadata: entities.Metadata{{Key: "k"}}})
	if err != nil {
		t.Fatal(err)
	}
	if cmd.Key != (entities.Key{Type: "cart", ID: "c7"}) || cmd.Service != "t.Carts" || cmd.Method != "Add" || len(cmd.Metadata) != 1 {
		t.Errorf("got %+v", cmd)
	}
	for _, tc := range []struct {
		target entities.Target
		reason entities.Reason
	}{
		{entities.Target{Service: "t.Nothing", Method: "Add"}, entities.UnknownMethod},
		{entities.Target{Service: "t.Carts", Method: "Nothing"}, entities.UnknownMethod},
		{entities.Target{Service: "t.Carts", Method: "Add"}, entities.InvalidCommand},
	} {
		_, err := h.Resolve(tc.target)
		wantError(t, err, tc.reason, entities.NotApplied)
		take(t, "the report", f.heard)
	}
	told := strings.Join(f.reports(), "\n")
	if !strings.Contains(told, "t.Nothing/Add") || !strings.Contains(told, "t.Carts/Nothing") || !strings.Contains(told, "is empty") {
		t.Errorf("the function was told %q", told)
	}
	if remote.Stats().Warnings != 3 {
		t.Errorf("stats %+v", remote.Stats())
	}
}

// A function that comes is found by those who wait, and one that is replaced keeps its sessions until it is closed.
func TestReplace(t *testing.T) {
	h := host.New(0)
	opened := make(chan error, 1)
	// Ends when the function has come.
	go func() {
		_, err := h.Open(t.Context(), "t.Carts", cartKey, nothingStored)
		opened <- err
	}()
	first := newInProcess(t, &localFunction{spec: newSpec(t)}, host.Hooks{})
	if old := h.Replace(first); old != nil {
		t.Errorf("there was %v before the first function", old)
	}
	if err := take(t, "the session", opened); err != nil {
		t.Fatal(err)
	}
	if h.Catalog() != first.Catalog() {
		t.Error("the catalog is not the function's")
	}
	session, err := h.Open(t.Context(), "t.Carts", cartKey, nothingStored)
	if err != nil {
		t.Fatal(err)
	}
	spec := newSpec(t)
	spec.Entities = spec.Entities[1:]
	second := newInProcess(t, &localFunction{spec: spec}, host.Hooks{})
	if old := h.Replace(second); old != first {
		t.Errorf("Replace returned %v", old)
	}
	if _, err := session.Handle(t.Context(), invocation("t.Carts", "Add", cartKey, "x")); err != nil {
		t.Errorf("an open session: %v", err)
	}
	_, err = h.Open(t.Context(), "t.Carts", cartKey, nothingStored)
	wantError(t, err, entities.UnknownMethod, entities.NotApplied)
}

func newInProcess(t *testing.T, local host.Local, hooks host.Hooks) *host.InProcess {
	t.Helper()
	p, err := host.NewInProcess(local, host.Options{MaxEvents: 3, Hooks: hooks}, discovery.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

package host_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/entities/host"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
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

// A host passes a function only what its catalog has.
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
		return h.ActStream(t.Context(), &entities.Stream{Command: invocation(service, method, entities.Key{}, "").Command},
			nil)
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

// Targets become commands; what is wrong with one is reported to the function.
func TestResolve(t *testing.T) {
	f, h, remote, _ := actionHost(t)
	cmd, err := h.Resolve(entities.Target{
		Service: "t.Carts", Method: "Add", Payload: textPayload("c7"),
		Metadata: entities.Metadata{{Key: "k"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if cmd.Key != (entities.Key{Type: "cart", ID: "c7"}) || cmd.Service != "t.Carts" || cmd.Method != "Add" ||
		len(cmd.Metadata) != 1 {
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
		_, err = h.Receive(tc.target)
		wantError(t, err, tc.reason, entities.NotApplied)
	}
	told := strings.Join(f.reports(), "\n")
	if !strings.Contains(told, "t.Nothing/Add") || !strings.Contains(told, "t.Carts/Nothing") || !strings.Contains(told, "is empty") {
		t.Errorf("the function was told %q", told)
	}
	if remote.Stats().Warnings != 3 {
		t.Errorf("stats %+v", remote.Stats())
	}
}

// A function that is attached is found by waiting callers, and one that is replaced keeps its
// sessions until it is closed.
func TestReplace(t *testing.T) {
	h := host.New(host.Settings{})
	opened := make(chan error, 1)
	// Ends when the function is attached.
	go func() {
		_, err := h.Open(t.Context(), "t.Carts", cartKey, nothingStored)
		opened <- err
	}()
	first := newInProcess(t, &localFunction{spec: newSpec(t)}, host.Hooks{})
	if old, err := h.Set(host.User, first, nil); old != nil || err != nil {
		t.Errorf("there was %v before the first function, error %v", old, err)
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
	if old, err := h.Set(host.User, second, nil); old != first || err != nil {
		t.Errorf("Set returned %v, error %v", old, err)
	}
	if _, err := session.Handle(t.Context(), invocation("t.Carts", "Add", cartKey, "x")); err != nil {
		t.Errorf("an open session: %v", err)
	}
	_, err = h.Open(t.Context(), "t.Carts", cartKey, nothingStored)
	wantError(t, err, entities.UnknownMethod, entities.NotApplied)
}

func newInProcess(t *testing.T, local host.Local, hooks host.Hooks) *host.InProcess {
	t.Helper()
	p, err := host.NewInProcess(local, host.Options{MaxCommitRecords: 3, Hooks: hooks}, discovery.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func set(t testing.TB, h *host.Host, f host.Function) {
	t.Helper()
	if _, err := h.Set(host.User, f, nil); err != nil {
		t.Fatal(err)
	}
}

// own is a function of the runtime with one action.
type own struct {
	host.Local
	service string
}

// Spec declares the service, in a file of its own.
func (o *own) Spec() *cloudstate.EntitySpec {
	name := protoreflect.FullName(o.service)
	file := &descriptorpb.FileDescriptorProto{
		Name: proto.String(o.service + ".proto"), Package: proto.String(string(name.Parent())),
		Syntax:     proto.String("proto3"),
		Dependency: []string{"google/protobuf/empty.proto"},
		Service: []*descriptorpb.ServiceDescriptorProto{{
			Name: proto.String(string(name.Name())),
			Method: []*descriptorpb.MethodDescriptorProto{
				{Name: proto.String("Do"), InputType: proto.String(".google.protobuf.Empty"), OutputType: proto.String(".google.protobuf.Empty")},
			},
		}},
	}
	set, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{file}})
	if err != nil {
		panic(err)
	}
	return &cloudstate.EntitySpec{
		Proto: set, ServiceInfo: &cloudstate.ServiceInfo{ProtocolMinorVersion: 2},
		Entities: []*cloudstate.Entity{{EntityType: entities.Action.Spec().Protocol, ServiceName: o.service}},
	}
}

func (o *own) Act(context.Context, entities.Invocation) (*entities.Outcome, error) {
	return &entities.Outcome{Reply: &entities.Reply{Payload: textPayload(o.service)}}, nil
}

// A service's name says which function a command is for.
func TestSeveralFunctions(t *testing.T) {
	h := host.New(host.Settings{FunctionWait: time.Hour})
	add := func(owner, service string) error {
		f, err := host.NewInProcess(&own{service: service}, host.Options{}, discovery.Options{Runtime: true})
		if err != nil {
			t.Fatal(err)
		}
		_, err = h.Set(owner, f, nil)
		return err
	}
	act := func(service string) string {
		out, err := h.Act(t.Context(), invocation(service, "Do", entities.Key{}, ""))
		if err != nil {
			return err.Error()
		}
		return valueText(out.Reply.Payload.Value)
	}
	if err := add("sagas", "millrace.sagas.Runs"); err != nil {
		t.Fatal(err)
	}
	if got := act("millrace.sagas.Runs"); got != "millrace.sagas.Runs" {
		t.Errorf("before the user's function came, the runtime's answered %q", got)
	}
	if h.Catalog() != nil {
		t.Error("there is a catalog before the user's function is there")
	}
	for name, resolve := range map[string]func(entities.Target) (*entities.Command, error){"Resolve": h.Resolve, "Receive": h.Receive} {
		_, err := resolve(entities.Target{Service: "t.Carts", Method: "Do"})
		if e, ok := errors.AsType[*entities.Error](err); !ok || e.Reason != entities.Unavailable {
			t.Errorf("%s of what the user's function will serve: %v; an effect would be refused for good", name, err)
		}
	}
	var accepted *discovery.Catalog
	user := newInProcess(t, &localFunction{spec: newSpec(t)}, host.Hooks{})
	if _, err := h.Set(host.User, user, func(c *discovery.Catalog) error { accepted = c; return nil }); err != nil {
		t.Fatal(err)
	}
	if c := h.Catalog(); c != accepted || c.Service("t.Carts") == nil || c.Service("millrace.sagas.Runs") == nil {
		t.Errorf("the catalog has %d services", len(c.Services()))
	}
	if public := h.Catalog().Public(); public.Service("millrace.sagas.Runs") != nil || public.Method("/millrace.sagas.Runs/Do") != nil || public.Service("t.Carts") == nil {
		t.Error("the public catalog is not that of the user's services")
	}
	if err := add("rows", "millrace.query.orders.OrdersQuery"); err != nil {
		t.Fatal(err)
	}
	if c := h.Catalog(); c.Public().Service("millrace.query.orders.OrdersQuery") == nil || c.User().Service("millrace.query.orders.OrdersQuery") != nil || c.User().Service("t.Carts") == nil {
		t.Error("a query service is public, and not the user's")
	}
	if err := add("queries", "shop.Queries"); err != nil {
		t.Fatal(err)
	}
	if got := act("shop.Queries") + " " + act("millrace.sagas.Runs"); got != "shop.Queries millrace.sagas.Runs" {
		t.Errorf("the functions answered %q", got)
	}
	internal := entities.Target{
		Service: "millrace.sagas.Runs", Method: "Do", Payload: entities.Payload{TypeURL: "type.googleapis.com/google.protobuf.Empty"},
	}
	if _, err := h.Resolve(internal); err == nil || !strings.Contains(err.Error(), "is not served") {
		t.Errorf("a function may call what only the runtime calls: %v", err)
	}
	if _, err := h.Receive(internal); err != nil {
		t.Errorf("the runtime itself: %v", err)
	}
	if cmd, err := h.Resolve(entities.Target{Service: "shop.Queries", Method: "Do", Payload: entities.Payload{TypeURL: "type.googleapis.com/google.protobuf.Empty"}}); err != nil || cmd.Service != "shop.Queries" {
		t.Errorf("an effect on the runtime's service became %v, error %v", cmd, err)
	}
	before := h.Catalog()
	if err := add("more", "t.Carts"); err == nil ||
		!strings.Contains(err.Error(), "t.Carts is served by two functions") || h.Catalog() != before {
		t.Errorf("two functions serve t.Carts: error %v", err)
	}
	refusal := errors.New("no")
	if _, err := h.Set(host.User, user, func(*discovery.Catalog) error {
		return refusal
	}); !errors.Is(err, refusal) || h.Catalog() != before {
		t.Errorf("a catalog that was refused: error %v", err)
	}
	refuse := func(*discovery.Catalog) error { return refusal }
	if _, err := h.Remove("queries", refuse); !errors.Is(err, refusal) || h.Catalog() != before {
		t.Errorf("a removal that was refused: error %v", err)
	}
	for i := range 2 {
		old, err := h.Remove("queries", nil)
		if err != nil || (old != nil) != (i == 0) || h.Catalog().Service("shop.Queries") != nil {
			t.Errorf("the function is not removed: error %v", err)
		}
	}
	if got := act("shop.Queries"); !strings.Contains(got, "shop.Queries is not served") {
		t.Errorf("a function that was removed answered %q", got)
	}
}

// Names of the runtime are refused from a user's function.
func TestReservedNames(t *testing.T) {
	_, err := host.NewInProcess(&own{service: "millrace.sagas.Runs"}, host.Options{}, discovery.Options{})
	if err == nil || !strings.Contains(err.Error(), "belongs to the runtime") {
		t.Errorf("error %v", err)
	}
}

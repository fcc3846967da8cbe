package admin

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/definitions"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/projections"
	"github.com/millrace-io/millrace/projections/definition"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
	definitionsv1 "github.com/millrace-io/millrace/proto/gen/millrace/definitions/v1"
	"github.com/millrace-io/millrace/sdk"
)

// runtime hosts the entities of the definitions in memory: their events and values by id.
type runtime struct {
	events map[string][]sdk.Payload
	values map[string]*sdk.Payload
}

// Call runs a command.
func (r *runtime) Call(ctx context.Context, service, method string, request []byte) ([]byte, error) {
	for _, s := range definitions.Services() {
		if string(s.Spec().Service.FullName()) == service {
			id := definitions.EntityID
			if s.Spec().PersistenceID == definitions.BlobType {
				in := &definitionsv1.GetRequest{}
				if err := proto.Unmarshal(request, in); err != nil {
					return nil, err
				}
				id = in.GetSha256()
			}
			inv := sdk.Invocation{Method: method, Payload: sdk.Payload{Value: request}, Time: time.Unix(1, 0)}
			return r.handle(ctx, s, id, inv)
		}
	}
	return nil, entities.Errorf(entities.UnknownMethod, entities.NotApplied, "no service %s", service)
}

func (r *runtime) handle(ctx context.Context, s *sdk.Service, id string, inv sdk.Invocation) ([]byte, error) {
	e, err := s.NewEntity(id)
	if err == nil {
		err = e.Load(r.values[id], 0)
	}
	for i, event := range r.events[id] {
		if err == nil {
			err = e.Apply(uint64(i+1), event)
		}
	}
	if err != nil {
		return nil, err
	}
	d, err := e.Handle(ctx, inv)
	if err != nil {
		return nil, err
	}
	if d.Refusal != nil {
		return nil, &entities.Error{
			Reason: entities.FunctionRefused, Code: uint32(d.Refusal.Code), Message: d.Refusal.Message,
			Outcome: entities.Refused,
		}
	}
	r.events[id] = append(r.events[id], d.Events...)
	if d.StateAction == sdk.StateUpdated {
		r.values[id] = &d.State
	}
	return d.Reply.Value, nil
}

// defining is a process with definitions.
type defining struct {
	process
	readSide *ReadSide
}

// ReadSide returns what the test sets.
func (p defining) ReadSide() *ReadSide { return p.readSide }

// carts is a file with one projection of a version.
func carts(version string) []*adminv1.DefinitionFile {
	text := strings.ReplaceAll(`apiVersion: millrace/v1
kind: Projection
metadata: {name: carts, version: VERSION}
spec:
  row: {cart_id: string, last: string}
  key: [cart_id]
  from: [{entity: cart, events: {ItemAdded: {set: {last: '${event.item.item_id}'}}}, ignore: [ItemRemoved, CheckedOut]}]
`, "VERSION", version)
	return []*adminv1.DefinitionFile{{Name: "carts.yaml", Text: []byte(text)}}
}

// TestDefinitions applies, lists, promotes, rolls back and drops, and looks at what each answers.
func TestDefinitions(t *testing.T) {
	p := serving(t)
	d := definitions.New(definitions.Options{
		Commands: &runtime{events: map[string][]sdk.Payload{}, values: map[string]*sdk.Payload{}},
		Schema:   func() (*definition.Schema, error) { return definition.SchemaOf(p.catalog) },
	})
	s, ctx := NewService(defining{p, &ReadSide{Definitions: d}}), t.Context()
	versions := func() string {
		t.Helper()
		res, err := s.ListDefinitions(ctx, &adminv1.ListDefinitionsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, v := range res.GetVersions() {
			all = append(all, v.GetKind()+" "+v.GetName()+" "+v.GetVersion()+" "+v.GetStage()+" "+v.GetFile())
		}
		return strings.Join(all, ", ")
	}
	apply := func(r *adminv1.ApplyDefinitionsRequest) *adminv1.ApplyDefinitionsResponse {
		t.Helper()
		res, err := s.ApplyDefinitions(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	expect := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}

	res := apply(&adminv1.ApplyDefinitionsRequest{Files: carts("0")})
	if problems := res.GetProblems(); len(problems) != 1 || problems[0].GetRule() != "D205" || problems[0].GetLine() != 3 {
		t.Errorf("problems %v", problems)
	}
	res = apply(&adminv1.ApplyDefinitionsRequest{Files: carts("1"), DryRun: true})
	expect("what would be applied", res.GetOutcomes()[0].GetResult(), "applied")
	expect("versions after a dry run", versions(), "")
	apply(&adminv1.ApplyDefinitionsRequest{Files: carts("1")})
	expect("versions", versions(), "Projection carts 1 building carts.yaml")
	again := apply(&adminv1.ApplyDefinitionsRequest{Files: carts("1")})
	expect("the same again", again.GetOutcomes()[0].GetResult(), "unchanged")

	_, err := s.PromoteDefinition(ctx, &adminv1.PromoteDefinitionRequest{Name: "carts", Version: "1"})
	expect("promotion of what is not ready", status.Code(err).String(), codes.FailedPrecondition.String())
	_, err = s.PromoteDefinition(ctx, &adminv1.PromoteDefinitionRequest{Name: "carts", Version: "9"})
	expect("promotion of what is not applied", status.Code(err).String(), codes.NotFound.String())
	for _, version := range []string{"1", "2"} {
		apply(&adminv1.ApplyDefinitionsRequest{Files: carts(version)})
		promoted, err := s.PromoteDefinition(ctx,
			&adminv1.PromoteDefinitionRequest{Name: "carts", Version: version, Force: true})
		if err != nil || promoted.GetMissing() == "" {
			t.Errorf("forced promotion of %s: %v (%v)", version, promoted, err)
		}
	}
	expect("versions", versions(), "Projection carts 1 kept carts.yaml, Projection carts 2 promoted carts.yaml")
	back, err := s.RollbackDefinition(ctx, &adminv1.RollbackDefinitionRequest{Name: "carts"})
	if err != nil {
		t.Fatal(err)
	}
	expect("rollback", back.GetFrom()+" to "+back.GetTo(), "2 to 1")
	_, err = s.DropDefinition(ctx, &adminv1.DropDefinitionRequest{Name: "cart"})
	expect("drop of another name", status.Code(err).String(), codes.NotFound.String())
	if _, err := s.DropDefinition(ctx, &adminv1.DropDefinitionRequest{Name: "carts", Version: "2"}); err != nil {
		t.Error(err)
	}
	expect("versions", versions(), "Projection carts 1 promoted carts.yaml")
	history, err := s.ListDefinitions(ctx, &adminv1.ListDefinitionsRequest{History: true})
	if err != nil || len(history.GetVersions()) != 0 || len(history.GetChanges()) < 6 {
		t.Errorf("history %v (%v)", history, err)
	}
}

// TestWithoutDefinitions: a process without them says whom to ask.
func TestWithoutDefinitions(t *testing.T) {
	_, err := NewService(serving(t)).ListDefinitions(t.Context(), &adminv1.ListDefinitionsRequest{})
	if status.Code(err) != codes.Unimplemented || !strings.Contains(status.Convert(err).Message(), "ask a worker") {
		t.Error(err)
	}
}

// TestProjectionStatus: each dataset of each partition has its line on the status page.
func TestProjectionStatus(t *testing.T) {
	at := time.Unix(7, 0)
	s := NewService(defining{serving(t), &ReadSide{Projections: func() []projections.Status {
		return []projections.Status{
			{
				Dataset: 1, Views: []string{"carts version 1"}, Promoted: true, Partition: materializer.Address{Partition: 3},
				State: projections.Live, Position: 10, End: 10, Rows: 4,
			},
			{
				Dataset: 2, Partition: materializer.Address{Partition: 3}, State: projections.Stopped, Position: 6, End: 10,
				Behind: 1500 * time.Millisecond, Parked: 1, Skipped: 2, Unmapped: 3, Incomplete: 1, Rate: 8, LastError: "disk full",
				LastErrorAt: at,
			},
		}
	}}})
	want := []*adminv1.ProjectionStatus{
		{
			Dataset: 1, Versions: []string{"carts version 1"}, Promoted: true, Partition: 3, State: "LIVE", Position: 10,
			EndOffset: 10, Rows: 4,
		},
		{
			Dataset: 2, Partition: 3, State: "STOPPED", Position: 6, EndOffset: 10, LagRecords: 4, LagSeconds: 1.5, Parked: 1,
			Skipped: 2, Unmapped: 3, Incomplete: 1, Rate: 8, LastError: "disk full", LastErrorTime: timestamppb.New(at),
		},
	}
	got := s.Page(t.Context()).GetProjections()
	if len(got) != 2 || !proto.Equal(got[0], want[0]) || !proto.Equal(got[1], want[1]) {
		t.Errorf("got %v, want %v", got, want)
	}
}

package definitions_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/examples/orders/orders"
	"github.com/millrace-io/millrace/internal/definitions"
	"github.com/millrace-io/millrace/internal/leaktest"
	"github.com/millrace-io/millrace/projections/definition"
	definitionsv1 "github.com/millrace-io/millrace/proto/gen/millrace/definitions/v1"
	"github.com/millrace-io/millrace/sdk"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// runtime hosts the runtime's entities in memory. What an entity decides is stored, and replayed
// into another one for the next command.
type runtime struct {
	t testing.TB

	mu     sync.Mutex
	now    time.Time
	events map[string][]sdk.Payload
	values map[string]*sdk.Payload
	// calls counts the commands by method. fail is what the next command of a method fails with,
	// before what happens before it.
	calls  map[string]int
	fail   map[string]error
	before map[string]func()
}

func newRuntime(t testing.TB) *runtime {
	t.Helper()
	if err := sdk.Check(definitions.Services()...); err != nil {
		t.Fatal(err)
	}
	return &runtime{
		t: t, now: time.Date(2026, time.November, 30, 12, 0, 0, 0, time.UTC), events: map[string][]sdk.Payload{},
		values: map[string]*sdk.Payload{}, calls: map[string]int{}, fail: map[string]error{},
		before: map[string]func(){},
	}
}

// open returns the entity of a service as it is stored.
func (r *runtime) open(s *sdk.Service, id string) (sdk.Entity, error) {
	e, err := s.NewEntity(id)
	if err != nil {
		return nil, err
	}
	if err := e.Load(r.values[id], 0); err != nil {
		return nil, err
	}
	for i, event := range r.events[id] {
		if err := e.Apply(uint64(i+1), event); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// Call runs a command.
func (r *runtime) Call(ctx context.Context, service, method string, request []byte) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	r.mu.Lock()
	first := r.before[method]
	delete(r.before, method)
	r.mu.Unlock()
	if first != nil {
		first()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls[method]++
	if err := r.fail[method]; err != nil {
		delete(r.fail, method)
		return nil, err
	}
	s, id := r.find(service, request)
	e, err := r.open(s, id)
	if err != nil {
		return nil, err
	}
	d, err := e.Handle(ctx, sdk.Invocation{
		Method: method, Payload: sdk.Payload{Value: request}, Principal: "ann", Time: r.now,
	})
	switch {
	case err != nil:
		return nil, err
	case d.Refusal != nil:
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

// count returns how often a method was called.
func (r *runtime) count(method string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls[method]
}

func (r *runtime) find(service string, request []byte) (*sdk.Service, string) {
	for _, s := range definitions.Services() {
		if string(s.Spec().Service.FullName()) != service {
			continue
		}
		if s.Spec().PersistenceID == definitions.EntityType {
			return s, definitions.EntityID
		}
		in := &definitionsv1.GetRequest{} // a blob's id is the first field of all its requests
		if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(request, in); err != nil {
			r.t.Error(err)
		}
		return s, in.GetSha256()
	}
	r.t.Errorf("no service %s", service)
	return nil, ""
}

// schema is that of examples/orders.
func schema() (*definition.Schema, error) {
	spec, err := sdk.EntitySpec(orders.Orders, orders.Customers)
	if err != nil {
		return nil, err
	}
	catalog, err := discovery.NewCatalog(spec, discovery.Options{})
	if err != nil {
		return nil, err
	}
	return definition.SchemaOf(catalog)
}

// files are definitions over the services of examples/orders, with texts replaced: old, new, and
// so on.
func files(t testing.TB, replace ...string) []definition.Source {
	t.Helper()
	var all []definition.Source
	for _, name := range []string{"customers.yaml", "orders.yaml"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, definition.Source{Name: name, Text: text})
	}
	for i := 0; i < len(replace); i += 2 {
		found := false
		for j := range all {
			now := strings.ReplaceAll(string(all[j].Text), replace[i], replace[i+1])
			found = found || now != string(all[j].Text)
			all[j].Text = []byte(now)
		}
		if !found {
			t.Fatalf("no file has %q", replace[i])
		}
	}
	return all
}

// ordersAt are the files with another version of orders, and other texts replaced.
func ordersAt(t testing.TB, version int, replace ...string) []definition.Source {
	t.Helper()
	return files(t, append([]string{
		"name: orders, version: 1", fmt.Sprintf("name: orders, version: %d", version),
	}, replace...)...)
}

func newDefinitions(r *runtime, more ...func(*definitions.Options)) *definitions.Definitions {
	o := definitions.Options{Commands: r, Schema: schema}
	for _, with := range more {
		with(&o)
	}
	return definitions.New(o)
}

// apply applies files that must be applied.
func apply(t testing.TB, d *definitions.Definitions, f []definition.Source, o definitions.ApplyOptions,
) *definitions.ApplyResult {
	t.Helper()
	result, err := d.Apply(t.Context(), f, o)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// view returns a version of a projection as a process knows it.
func view(t testing.TB, d *definitions.Definitions, name, version string) *definitions.View {
	t.Helper()
	r, _ := d.Current()
	for _, v := range r.Views {
		if v.Name == name && v.Version == version {
			return v
		}
	}
	t.Fatalf("no %s version %s: %s", name, version, shown(r))
	return nil
}

// shown is a revision in one line.
func shown(r *definitions.Revision) string {
	var b strings.Builder
	fmt.Fprintf(&b, "revision %d:", r.Number)
	for _, v := range r.Views {
		fmt.Fprintf(&b, " %s %s dataset %d indexes %v aggregates %v %v;", v.Name, v.Version, v.Dataset, v.Indexes,
			v.Aggregates, v.Stage)
	}
	for _, u := range r.Unsupported {
		fmt.Fprintf(&b, " unsupported %s %s: %s;", u.Name, u.Version, u.Reason)
	}
	return b.String()
}

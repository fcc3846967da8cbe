package definitions_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/definitions"
	"github.com/millrace-io/millrace/projections/definition"
	definitionsv1 "github.com/millrace-io/millrace/proto/gen/millrace/definitions/v1"
)

// carrier is a value in the definition of orders.
const carrier = "carrier: '${event.carrier}'"

// first is what the process knows after the first apply.
const first = "revision 3: customers 1 dataset 1 indexes [1] aggregates [] STAGE_BUILDING;" +
	" orders 1 dataset 2 indexes [1 2] aggregates [1] STAGE_BUILDING;"

func mustKnow(t *testing.T, d *definitions.Definitions, want string) {
	t.Helper()
	r, _ := d.Current()
	if got := shown(r); got != want {
		t.Errorf("known:\n got %s\nwant %s", got, want)
	}
}

func mustRefuse(t *testing.T, err error, code codes.Code, want string) {
	t.Helper()
	e, ok := errors.AsType[*entities.Error](err)
	if !ok || codes.Code(e.Code) != code || e.Message != want {
		t.Errorf("error %v, want the refusal %v: %s", err, code, want)
	}
}

// TestApply: definitions are applied, and are known in this process and, by what is stored, in
// another one that has no function.
func TestApply(t *testing.T) {
	r := newRuntime(t)
	d := newDefinitions(r)
	mustKnow(t, d, "revision 0:")
	result := apply(t, d, files(t), definitions.ApplyOptions{})
	if len(result.Outcomes) != 2 || result.Outcomes[0].Result != definitions.Applied || result.Revision != 3 {
		t.Fatalf("result %+v, want two that are applied, at revision 3", result)
	}
	mustKnow(t, d, first)
	if now, _ := d.Current(); len(now.PageKey) != 32 {
		t.Errorf("the key of page tokens has %d bytes, want 32", len(now.PageKey))
	}
	other := newDefinitions(r, func(o *definitions.Options) {
		o.Schema = func() (*definition.Schema, error) { return nil, errors.New("no function") }
	})
	_, err := other.Apply(t.Context(), files(t), definitions.ApplyOptions{})
	if want := "the definitions cannot be checked: no function"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if err := other.Drop(t.Context(), definitions.ID{Name: "orders", Version: "1"}); err != nil {
		t.Fatal(err)
	}
	mustKnow(t, other, "revision 4: customers 1 dataset 1 indexes [1] aggregates [] STAGE_BUILDING;")
}

// TestTheSameAgain: the same files, also in another notation, are nothing: no event, no blob.
func TestTheSameAgain(t *testing.T) {
	r := newRuntime(t)
	d := newDefinitions(r)
	apply(t, d, files(t), definitions.ApplyOptions{})
	puts := r.calls["Put"]
	for _, f := range [][]definition.Source{
		files(t),
		files(t, "# Customers by city.", "# Customers.", "key: [order_id]", "key:\n    - order_id\n"),
	} {
		for _, o := range apply(t, d, f, definitions.ApplyOptions{}).Outcomes {
			if o.Result != definitions.Unchanged {
				t.Errorf("%s: %v, want unchanged", o.Name, o.Result)
			}
		}
	}
	// One file with both is the same, too.
	both := files(t)
	text := string(both[0].Text) + "\n--- # the next one\n" + string(both[1].Text) + "\n---\n"
	one := []definition.Source{{Name: "all.yaml", Text: []byte(text)}}
	out := apply(t, d, one, definitions.ApplyOptions{}).Outcomes
	if len(out) != 2 || out[1].Result != definitions.Unchanged {
		t.Errorf("one file with both: %+v, want two that are unchanged", out)
	}
	mustKnow(t, d, first)
	if r.calls["Put"] != puts || r.calls["Apply"] != 1 {
		t.Errorf("%d blobs and %d commands, want %d and 1", r.calls["Put"], r.calls["Apply"], puts)
	}
}

// TestDocumentsOfOneFile: each definition is stored with its own document, so that it can be
// compiled without the others.
func TestDocumentsOfOneFile(t *testing.T) {
	both := files(t)
	text := string(both[1].Text) + "---\n" + string(both[0].Text)
	r := newRuntime(t)
	d := newDefinitions(r)
	apply(t, d, []definition.Source{{Name: "all.yaml", Text: []byte(text)}}, definitions.ApplyOptions{})
	mustKnow(t, d, "revision 3: customers 1 dataset 2 indexes [1] aggregates [] STAGE_BUILDING;"+
		" orders 1 dataset 1 indexes [1 2] aggregates [1] STAGE_BUILDING;")
}

// TestWhatIsWrongIsRefused with the texts that users see; nothing is stored.
func TestWhatIsWrongIsRefused(t *testing.T) {
	r := newRuntime(t)
	d := newDefinitions(r)
	apply(t, d, ordersAt(t, 4), definitions.ApplyOptions{})
	before, events := r.calls["Put"], len(r.events[definitions.EntityID])

	_, err := d.Apply(t.Context(), ordersAt(t, 4, carrier, "carrier: x"), definitions.ApplyOptions{})
	mustRefuse(t, err, codes.Aborted, "orders version 4 is applied with other content: raise metadata.version")
	_, err = d.Apply(t.Context(), ordersAt(t, 3), definitions.ApplyOptions{})
	mustRefuse(t, err, codes.FailedPrecondition,
		"orders version 3 is lower than version 4, which was applied: raise metadata.version above 4")
	_, err = d.Apply(t.Context(), ordersAt(t, 5, "row.customer_id ==", "row.customer =="), definitions.ApplyOptions{})
	if _, ok := errors.AsType[*definition.InvalidError](err); !ok || !strings.Contains(err.Error(), "orders.yaml:") {
		t.Errorf("error %v, want an invalid definition with its place", err)
	}
	// A method that callers have is gone.
	without := []string{"    CountByStatus: {aggregate: by_status}", ""}
	_, err = d.Apply(t.Context(), ordersAt(t, 5, without...), definitions.ApplyOptions{})
	if _, ok := errors.AsType[*definition.InvalidError](err); !ok || !strings.Contains(err.Error(), "CountByStatus") {
		t.Errorf("error %v, want one that names the method", err)
	}
	if r.calls["Put"] != before || len(r.events[definitions.EntityID]) != events {
		t.Error("what was refused stored something")
	}
	apply(t, d, ordersAt(t, 5, without...), definitions.ApplyOptions{BreakAPI: true})

	out := apply(t, d, ordersAt(t, 4), definitions.ApplyOptions{Lenient: true}).Outcomes[1]
	want := "orders version 4 is lower than version 5, which was applied: raise metadata.version above 5"
	if out.Result != definitions.Skipped || out.Warning != want {
		t.Errorf("outcome %+v, want it skipped: %s", out, want)
	}
}

// TestDryRun says what would be, and stores nothing.
func TestDryRun(t *testing.T) {
	r := newRuntime(t)
	d := newDefinitions(r)
	apply(t, d, files(t), definitions.ApplyOptions{})
	puts := r.calls["Put"]
	changed := ordersAt(t, 2, carrier, "carrier: x", "placed_at desc], include: all", "placed_at desc]")
	out := apply(t, d, changed, definitions.ApplyOptions{DryRun: true}).Outcomes[1]
	if out.Version != "2" || out.Result != definitions.Applied || out.Shares || out.Before != "1" {
		t.Errorf("outcome %+v, want version 2 applied with rows of its own, compared with 1", out)
	}
	for _, want := range []string{
		"the rows are built again, beside those of version 1, because:", "index by_customer was ",
	} {
		if !slices.ContainsFunc(out.Differences, func(l string) bool { return strings.HasPrefix(l, want) }) {
			t.Errorf("differences %q, want one that begins %q", out.Differences, want)
		}
	}
	mustKnow(t, d, first)
	if r.calls["Put"] != puts || r.calls["Apply"] != 1 {
		t.Error("a dry run stored something")
	}
	// Without another fold the rows are shared, and only the index gets a number.
	plain := ordersAt(t, 2, "placed_at desc], include: all", "placed_at desc]")
	out = apply(t, d, plain, definitions.ApplyOptions{}).Outcomes[1]
	if !out.Shares {
		t.Errorf("outcome %+v, want the rows to be shared", out)
	}
	if v := view(t, d, "orders", "2"); v.Dataset != 2 || !slices.Equal(v.Indexes, []uint16{3, 2}) {
		t.Errorf("dataset %d, indexes %v, want 2 and [3 2]", v.Dataset, v.Indexes)
	}
}

// TestAppliedMeanwhile: files are checked again if others were applied since they were checked.
func TestAppliedMeanwhile(t *testing.T) {
	r := newRuntime(t)
	one, two := newDefinitions(r), newDefinitions(r)
	r.before["Apply"] = func() { apply(t, two, files(t)[:1], definitions.ApplyOptions{}) }
	apply(t, one, files(t), definitions.ApplyOptions{})
	mustKnow(t, one, first)
	r.before["Apply"] = func() {
		apply(t, two, ordersAt(t, 2, carrier, "carrier: x"), definitions.ApplyOptions{})
	}
	_, err := one.Apply(t.Context(), ordersAt(t, 2, carrier, "carrier: z"), definitions.ApplyOptions{})
	mustRefuse(t, err, codes.Aborted, "orders version 2 is applied with other content: raise metadata.version")
}

// TestNothingIsAppliedWithoutItsBlobs: the command comes after everything that it names.
func TestNothingIsAppliedWithoutItsBlobs(t *testing.T) {
	r := newRuntime(t)
	d := newDefinitions(r)
	r.fail["Put"] = entities.Errorf(entities.Unavailable, entities.NotApplied, "no owner")
	_, err := d.Apply(t.Context(), files(t), definitions.ApplyOptions{})
	if err == nil || !strings.Contains(err.Error(), "no definition was applied: no owner") || r.calls["Apply"] != 0 {
		t.Errorf("error %v and %d commands, want none", err, r.calls["Apply"])
	}
	apply(t, d, files(t), definitions.ApplyOptions{})
	mustKnow(t, d, first)
}

// TestDev: in the profile dev a changed file without a new version is a version all the same.
func TestDev(t *testing.T) {
	r := newRuntime(t)
	d := newDefinitions(r, func(o *definitions.Options) { o.Dev = true })
	apply(t, d, files(t), definitions.ApplyOptions{})
	out := apply(t, d, files(t, "    CountByStatus: {aggregate: by_status}", ""), definitions.ApplyOptions{}).Outcomes
	if out[0].Result != definitions.Unchanged || out[1].Version != "1-dev.1" || !out[1].Shares {
		t.Errorf("outcomes %+v, want customers unchanged and orders 1-dev.1, which shares its rows", out)
	}
	out = apply(t, d, files(t, "    CountByStatus: {aggregate: by_status}", ""), definitions.ApplyOptions{}).Outcomes
	if out[1].Result != definitions.Unchanged || out[1].Version != "1-dev.1" {
		t.Errorf("outcomes %+v, want the same file to be unchanged", out)
	}
}

// TestCaptured: only what a definition needs is stored of the function's descriptors, without
// comments, and a descriptor set above a blob is cut into pieces.
func TestCaptured(t *testing.T) {
	r := newRuntime(t)
	d := newDefinitions(r)
	apply(t, d, files(t), definitions.ApplyOptions{})
	now, _ := d.Current()
	for _, def := range now.State().GetDefinitions() {
		var encoded []byte
		for _, sha := range def.GetVersions()[0].GetApplied().GetCaptured() {
			b := &definitionsv1.Blob{}
			if err := proto.Unmarshal(r.values[sha].Value, b); err != nil {
				t.Fatal(err)
			}
			encoded = append(encoded, b.GetContent()...)
		}
		captured := &definitionsv1.Captured{}
		if err := proto.Unmarshal(encoded, captured); err != nil {
			t.Fatal(err)
		}
		var types []string
		for _, e := range captured.GetEntityTypes() {
			types = append(types, e.GetName())
		}
		want := map[string][]string{"orders": {"order"}, "customers": {"customer"}}[def.GetName()]
		if !slices.Equal(types, want) {
			t.Errorf("%s has the entity types %q, want %q", def.GetName(), types, want)
		}
		for _, f := range captured.GetFiles().GetFile() {
			if f.GetSourceCodeInfo() != nil {
				t.Errorf("%s is stored with comments", f.GetName())
			}
			if f.GetName() == "millrace/projection/v1/projection.proto" {
				t.Errorf("%s is stored, and %s does not need it", f.GetName(), def.GetName())
			}
		}
	}
}

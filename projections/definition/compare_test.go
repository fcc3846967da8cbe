package definition

import (
	"slices"
	"strings"
	"testing"
)

// versionOf is a projection with a version and what its spec has otherwise than baseSpec.
func versionOf(version string, overrides string) Source {
	text := strings.Replace(specOf(overrides), "version: 2", "version: "+version, 1)
	return Source{Name: "f.yaml", Text: []byte(text)}
}

const before = `row: {order_id: string, status: Status, cents: int64, note: optional string}
from: [{entity: order, events: {OrderPlaced: {set: {cents: 1}}}}]
indexes: [{name: by_status, fields: [status]}]
aggregates: [{name: sums, groupBy: [status], count: orders, sum: {cents: cents}}]
queries:
  ListByStatus: {params: {status: Status}, where: row.status == params.status, watch: true, count: true}
  Sums: {aggregate: sums}
`

// TestIncompatibleVersions applies versions whose callers could not go on, and others.
func TestIncompatibleVersions(t *testing.T) {
	schema := shopSchema(t)
	applied := Check([]Source{versionOf("1", before)}, Options{Schema: schema})
	if err := applied.Report.Err(); err != nil {
		t.Fatal(err)
	}
	replace := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(before) }
	for name, c := range map[string]struct {
		after string
		want  []string // what is refused
	}{
		"the same":      {before, nil},
		"new field":     {replace("optional string}", "optional string, due: {type: timestamp, number: 9}}"), nil},
		"new query":     {before + "  ListAll: {}\n", nil},
		"new sum":       {replace("sum: {cents: cents}", "sum: {cents: cents, all: cents}"), nil},
		"new parameter": {replace("{status: Status}", "{status: Status, more: {type: string, number: 7}}"), nil},
		"field removed": {replace(", note: optional string", ""), []string{"the field OrdersRow.note is gone"}},
		"field retyped": {
			replace("cents: int64", "cents: int32"), []string{"the field OrdersRow.cents was int64 and is int32"},
		},
		"field renumbered": {
			replace("cents: int64,", "cents: {type: int64, number: 9},"),
			[]string{"the field OrdersRow.cents had the number 3 and has 9"},
		},
		"no longer optional": {
			replace("optional string", "string"), []string{"the field OrdersRow.note was optional string and is string"},
		},
		"query removed": {
			replace("  Sums: {aggregate: sums}\n", ""),
			[]string{"the message SumsRequest is gone", "the message SumsGroup is gone", "the message SumsResponse is gone", "the method Sums is gone"},
		},
		"path changed": {
			replace("count: true}", "count: true, http: /v1/open}"), []string{
				"the method ListByStatus was at /v1/orders:listByStatus and is at /v1/open",
				"the method CountByStatus was at /v1/orders:countByStatus and is at /v1/open:count",
				"the method WatchByStatus was at /v1/orders:watchByStatus and is at /v1/open:watch",
			},
		},
		"service renamed": {before + "service: Orders\n", []string{"the service OrdersQuery is gone"}},
		"parameter retyped": {
			replace("{status: Status}", "{status: int32}"), []string{
				"the field ListByStatusRequest.status was millrace.query.orders.Status and is int32",
				"the field CountByStatusRequest.status was millrace.query.orders.Status and is int32",
				"the field WatchByStatusRequest.status was millrace.query.orders.Status and is int32",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			opts := Options{Schema: schema, Applied: applied.Definitions}
			var got []string
			for _, p := range problemsOf(Check([]Source{versionOf("2", c.after)}, opts).Report) {
				text, found := strings.CutPrefix(p.String(), "f.yaml:1:1: P501: callers of version 1 could not go on: ")
				text, fix := strings.CutSuffix(text, ": keep it, or apply with --break-api")
				if !found || !fix {
					t.Errorf("another problem: %s", p)
				}
				got = append(got, text)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("refused %q, want %q", got, c.want)
			}
			opts.BreakAPI = true
			if err := Check([]Source{versionOf("2", c.after)}, opts).Report.Err(); err != nil {
				t.Errorf("with BreakAPI: %v", err)
			}
		})
	}
}

// TestDifferences says in words what a version changes.
func TestDifferences(t *testing.T) {
	schema := shopSchema(t)
	one := func(text string) *Projection {
		t.Helper()
		set := Check([]Source{versionOf("3", text)}, Options{Schema: schema})
		if err := set.Report.Err(); err != nil {
			t.Fatal(err)
		}
		return set.Definitions[0].(*Projection)
	}
	applied := one(before)
	replace := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(before) }
	for name, c := range map[string]struct {
		after string
		want  []string
	}{
		"the same":       {before, nil},
		"another layout": {"# the same\n" + replace("set: {cents: 1}", "set: {cents:  1 }"), nil},
		"another fold": {replace("set: {cents: 1}", "set: {cents: 2}"), []string{
			"the rows are built again, beside those of version 3, because:",
			`- source order shop.v1.OrderPlaced was set cents="1" and is set cents="2"`,
		}},
		"another row": {replace("optional string}", "optional string, due: {type: timestamp, number: 9}}"), []string{
			"the rows are built again, beside those of version 3, because:",
			"- field millrace.query.orders.OrdersRow.due is new",
			"API: the field OrdersRow.due is new",
		}},
		"another policy": {before + "onError: stop\nstrict: true\nvisible: row.cents > 0\n", []string{
			"the rows are built again, beside those of version 3, because:",
			"- visible was nothing and is row.cents > 0",
			"- onError was park-key and is stop",
			"- strict was false and is true",
		}},
		"another index": {replace("fields: [status]}", "fields: [status, cents desc]}"), []string{
			"index by_status was (status) and is (status, cents desc): it is built from the rows, and the version waits for that",
		}},
		"another aggregate": {replace("count: orders, ", ""), []string{
			"aggregate sums was by status count orders sum cents of cents and is by status sum cents of cents: it is built from the rows, and the version waits for that",
			"API: the field SumsGroup.orders is gone: callers of version 3 could not go on",
		}},
		"another query": {before + "  ListAll: {page: {max: 10}, allow: caller.sub == 'x'}\nrollout: {promote: manual}\n", []string{
			"query ListAll is new",
			"rollout was build log, promote auto, sample 0, maxDiff -1, keep 24h0m0s and is build log, promote manual, sample 0, maxDiff -1, keep 24h0m0s",
			"API: the message ListAllRequest is new", "API: the message ListAllResponse is new", "API: the method ListAll is new",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			got := one(c.after).Differences(applied)
			for i := range got { // details of fields are in the fold hash's own words
				got[i], _, _ = strings.Cut(got[i], " 9 google")
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("differences\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// TestFoldHash compares hashes of specs that mean the same rows, and others.
func TestFoldHash(t *testing.T) {
	const base = `maxItems: {OrderPlaced.lines: 50}
from:
- {entity: order, events: {OrderPlaced: {set: {note: 'a ${event.note}', total_cents: '${event.total_cents + 1}'}}, OrderShipped: {update: {status: SHIPPED}}}, ignore: [OrderViewed]}
- {entity: payment, state: {set: {paid_cents: '${state.paid_cents}'}}}
`
	hash := func(text string, more map[string]string) string {
		t.Helper()
		set := Check([]Source{versionOf("1", text)}, Options{Schema: schemaOf(t, more)})
		if err := set.Report.Err(); err != nil {
			t.Fatal(err)
		}
		return set.Definitions[0].(*Projection).FoldHash()
	}
	want := hash(base, nil)
	for name, text := range map[string]string{
		"version of the file":     strings.Replace(base, "maxItems", "# x\nmaxItems", 1),
		"spaces in an expression": strings.Replace(base, "event.total_cents + 1", " event.total_cents+1 ", 1),
		"order of sources": `maxItems: {OrderPlaced.lines: 50}
from:
- {entity: payment, state: {type: shop.v1.Payment, set: {paid_cents: '${state.paid_cents}'}}}
- {entity: order, ignore: [OrderViewed], events: {OrderShipped: {update: {status: SHIPPED}}, shop.v1.OrderPlaced: {set: {total_cents: '${event.total_cents + 1}', note: 'a ${event.note}'}}}}
`,
		"indexes and queries": base + "indexes: [{name: by_status, fields: [status]}]\nqueries: {ListAll: {}}\nrollout: {promote: manual}\n",
	} {
		if got := hash(text, nil); got != want {
			t.Errorf("%s: the hash differs", name)
		}
	}
	if hash(base, legacyFiles()) != want {
		t.Error("other messages: the hash differs")
	}
	seen := map[string]string{want: "base"}
	for name, text := range map[string]string{
		"literal":  strings.Replace(base, "'a ${", "'b ${", 1),
		"action":   strings.Replace(base, "update:", "set:", 1),
		"ignored":  strings.Replace(base, "[OrderViewed]", "[OrderDeleted]", 1),
		"visible":  base + "visible: row.express\n",
		"onError":  base + "onError: skip\n",
		"strict":   base + "strict: true\n",
		"operator": strings.Replace(base, "cents + 1", "cents - 1", 1),
		"cleared":  strings.Replace(base, "status: SHIPPED", "status: null", 1),
		"row":      strings.Replace(base, "maxItems", "row: {order_id: string, note: string, total_cents: int64, status: Status, paid_cents: int64}\nmaxItems", 1),
		"number":   strings.Replace(base, "maxItems", "row: {order_id: string, note: string, total_cents: int64, status: Status, paid_cents: {type: int64, number: 9}}\nmaxItems", 1),
		"presence": strings.Replace(base, "maxItems", "row: {order_id: string, note: optional string, total_cents: int64, status: Status, paid_cents: int64}\nmaxItems", 1),
	} {
		got := hash(text, nil)
		if other := seen[got]; other != "" {
			t.Errorf("%s: the hash is that of %s", name, other)
		}
		seen[got] = name
	}
}

// TestLookupsOfAppliedProjections applies a version that lacks a field which another projection,
// that is applied, looks up; with a version of that one beside it, it is allowed.
func TestLookupsOfAppliedProjections(t *testing.T) {
	schema := shopSchema(t)
	of := func(name, overrides string) Source {
		text := strings.Replace(specOf(overrides), "name: orders", "name: "+name, 1)
		return Source{Name: name + ".yaml", Text: []byte(text)}
	}
	const lookup = "lookup: [{projection: orders, by: customer_id, fields: {customer_name: note}}]\n"
	const orders = "row: {order_id: string, customer_id: string, note: string}\n"
	applied := Check([]Source{of("orders", orders), of("shops", lookup)}, Options{Schema: schema})
	if err := applied.Report.Err(); err != nil {
		t.Fatal(err)
	}
	opts := Options{Schema: schema, Applied: applied.Definitions, BreakAPI: true}
	const want = "P313 spec.row: shops looks up note here, as string: keep the field, or apply a version of shops without it " +
		"in the same directory"
	for name, row := range map[string]string{
		"gone":    "row: {order_id: string, customer_id: string}\n",
		"retyped": "row: {order_id: string, customer_id: string, note: int64}\n",
	} {
		problems := Check([]Source{of("orders", row)}, opts).Report.Problems()
		if len(problems) != 1 || !strings.HasSuffix(problems[0].String(), want) {
			t.Errorf("%s: problems %v, want %s", name, problems, want)
		}
		if err := Check([]Source{of("orders", row), of("shops", "")}, opts).Report.Err(); err != nil {
			t.Errorf("%s, with shops: %v", name, err)
		}
	}
}

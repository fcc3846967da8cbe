package orders_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/examples/orders/orders"
	"github.com/millrace-io/millrace/internal/app/inprocess"
	"github.com/millrace-io/millrace/projections/definition"
)

// TestDefinitions checks the files of the folder definitions against what the services declare, as
// `apply` does, and wants the indexes that serve each query.
func TestDefinitions(t *testing.T) {
	set := definition.Check(definitionFiles(t), definition.Options{Schema: schema(t)})
	for _, p := range set.Report.Problems() {
		t.Error(p)
	}
	if t.Failed() {
		return
	}
	var got []string
	for _, d := range set.Definitions {
		p, ok := d.(*definition.Projection)
		if !ok {
			t.Fatalf("%v is no projection", d.Head())
		}
		for _, q := range p.Queries {
			if q.Aggregate != nil {
				got = append(got, p.Head().Name+"."+q.Name+": "+q.Aggregate.Name)
			}
			for _, plan := range q.Plans {
				got = append(got, p.Head().Name+"."+q.Name+": "+plan.String())
			}
		}
	}
	want := []string{
		"customers.ListByCity: by_city; prefix row.city == params.city; order name",
		"customers.ListByCity: by_city backwards; prefix row.city == params.city; order name desc",
		"orders.ListByCustomer: by_customer; prefix row.customer_id == params.customer_id; order placed_at desc",
		"orders.ListByCustomer: by_customer backwards; prefix row.customer_id == params.customer_id; order placed_at",
		"orders.ListOpen: open_only; order placed_at",
		"orders.ListOpen: open_only backwards; order placed_at desc",
		"orders.CountByStatus: by_status",
	}
	if !slices.Equal(got, want) {
		t.Errorf("plans\n%q, want\n%q", got, want)
	}
}

// TestAQueryNeedsAnIndex takes an index away: the check names the query, and the index to add.
func TestAQueryNeedsAnIndex(t *testing.T) {
	files := definitionFiles(t)
	for i, f := range files {
		var kept []string
		for line := range strings.Lines(string(f.Text)) {
			if !strings.Contains(line, "name: open_only") {
				kept = append(kept, line)
			}
		}
		files[i].Text = []byte(strings.Join(kept, ""))
	}
	var got []string
	for _, p := range definition.Check(files, definition.Options{Schema: schema(t)}).Report.Problems() {
		got = append(got, p.String())
	}
	if len(got) != 2 || !strings.Contains(got[0], "nothing is sorted in memory") ||
		!strings.Contains(got[0], "add the index {name: by_status_placed_at, fields: [status, placed_at]}") {
		t.Errorf("problems %q", got)
	}
}

// definitionFiles are the files beside the package, in the order of their names.
func definitionFiles(t *testing.T) []definition.Source {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("..", "definitions", "*.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no definitions (%v)", err)
	}
	var files []definition.Source
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, definition.Source{Name: filepath.Base(path), Text: text})
	}
	return files
}

// schema is what the services declare.
func schema(t *testing.T) *definition.Schema {
	t.Helper()
	function, err := inprocess.New(orders.Orders, orders.Customers)
	if err != nil {
		t.Fatal(err)
	}
	catalog, err := discovery.NewCatalog(function.Spec(), discovery.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := definition.SchemaOf(catalog)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

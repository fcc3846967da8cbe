package definition

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
)

// projections checks files and returns the projections by name. Problems fail the test.
func projections(t *testing.T, opts Options, files ...Source) map[string]*Projection {
	t.Helper()
	if opts.Schema == nil {
		opts.Schema = shopSchema(t)
	}
	set := Check(files, opts)
	for _, p := range problemsOf(set.Report) {
		t.Error(p)
	}
	byName := map[string]*Projection{}
	for _, d := range set.Definitions {
		if p, ok := d.(*Projection); ok {
			byName[p.Head().Name] = p
		}
	}
	return byName
}

// TestGeneratedServices compares the files that are generated for the examples, and compiles them.
func TestGeneratedServices(t *testing.T) {
	all := projections(t, Options{}, directory(t, "orders")...)
	if len(all) != 3 {
		t.Fatalf("%d projections, want customers, lines and orders", len(all))
	}
	for _, name := range sortedNames(all) {
		t.Run(name, func(t *testing.T) {
			got := ProtoSource(all[name].API())
			golden := filepath.Join("testdata", "api", name+".proto")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil || got != string(want) {
				t.Errorf("%s (%v): run go test -update and read the difference\n%s", golden, err, got)
			}
			sameAsCompiled(t, all[name].API(), got)
		})
	}
}

// sameAsCompiled compares a descriptor with that of its source.
func sameAsCompiled(t *testing.T, file *descriptorpb.FileDescriptorProto, source string) {
	t.Helper()
	common, err := os.ReadFile(filepath.Join("..", "..", "proto", "millrace", "projection", "v1", "query.proto"))
	if err != nil {
		t.Fatal(err)
	}
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
		Accessor: protocompile.SourceAccessorFromMap(map[string]string{
			file.GetName(): source, commonFile: string(common), httpFile: read(t, "../../proto/google/api/annotations.proto"),
			"google/api/http.proto": read(t, "../../proto/google/api/http.proto"),
		}),
	})}
	files, err := compiler.Compile(t.Context(), file.GetName())
	if err != nil {
		t.Fatal(err)
	}
	compiled := &descriptorpb.FileDescriptorProto{} // over the wire, so that options are known
	encoded, err := proto.Marshal(protodesc.ToFileDescriptorProto(files[0]))
	if err == nil {
		err = proto.Unmarshal(encoded, compiled)
	}
	if err != nil {
		t.Fatal(err)
	}
	generated := proto.CloneOf(file)
	for _, m := range slices.Concat(generated.GetMessageType(), compiled.GetMessageType()) {
		forgetJSONNames(m) // the compiler writes them for map entries too
	}
	if !proto.Equal(generated, compiled) {
		t.Errorf("the source is not what was generated:\n%s\n%s", prototext.Format(generated), prototext.Format(compiled))
	}
}

func forgetJSONNames(m *descriptorpb.DescriptorProto) {
	for _, f := range m.GetField() {
		f.JsonName = nil
	}
	for _, n := range m.GetNestedType() {
		forgetJSONNames(n)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestPlansOfTheExamples compares how the queries of the examples are served.
func TestPlansOfTheExamples(t *testing.T) {
	want := map[string][]string{
		"lines.ListOfOrder": {"key; prefix row.order_id == params.order_id; one partition"},
		"lines.ListOfSku": {
			"by_sku backwards; prefix row.sku == params.sku; order placed desc",
			"by_sku; prefix row.sku == params.sku; order placed",
		},
		"orders.ListByCustomer": {"by_customer; prefix row.customer_id == params.customer_id; order placed_at desc"},
	}
	all := projections(t, Options{}, directory(t, "orders")...)
	for _, name := range sortedNames(all) {
		for _, q := range all[name].Queries {
			var got []string
			for _, pl := range q.Plans {
				got = append(got, pl.String())
			}
			if !slices.Equal(got, want[name+"."+q.Name]) {
				t.Errorf("%s.%s: plans %q, want %q", name, q.Name, got, want[name+"."+q.Name])
			}
		}
	}
}

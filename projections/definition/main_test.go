package definition

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/millrace-io/millrace/internal/leaktest"
)

var update = flag.Bool("update", false, "write testdata/api anew")

func TestMain(m *testing.M) { leaktest.Main(m) }

// shop returns the descriptors of testdata/shop, and others given as text by path.
func shop(t testing.TB, more map[string]string) *descriptorpb.FileDescriptorSet {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", "shop", "v1", "shop.proto"))
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{
		"shop/v1/shop.proto": string(content), httpFile: read(t, "../../proto/google/api/annotations.proto"),
		"google/api/http.proto": read(t, "../../proto/google/api/http.proto"),
	}
	names := []string{"shop/v1/shop.proto"}
	for _, name := range sortedNames(more) {
		texts[name] = more[name]
		names = append(names, name)
	}
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
		Accessor: protocompile.SourceAccessorFromMap(texts),
	})}
	files, err := compiler.Compile(t.Context(), names...)
	if err != nil {
		t.Fatal(err)
	}
	set, seen := &descriptorpb.FileDescriptorSet{}, map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if seen[file.Path()] {
			return
		}
		seen[file.Path()] = true
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	}
	for _, file := range files {
		add(file)
	}
	again := &descriptorpb.FileDescriptorSet{} // as it comes over the wire
	encoded, err := proto.Marshal(set)
	if err == nil {
		err = proto.Unmarshal(encoded, again)
	}
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func shopSchema(t testing.TB) *Schema { return schemaOf(t, nil) }

func schemaOf(t testing.TB, more map[string]string) *Schema {
	t.Helper()
	s, err := NewSchema(shop(t, more), []EntityType{
		{Name: "order", Events: true, Service: "shop.v1.Orders"},
		{Name: "payment", Service: "shop.v1.Payments"},
		{Name: "customer", Events: true, Service: "shop.v1.Customers"},
		{Name: "parcel", Service: "shop.v1.Parcels"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// directory reads the files of a folder below testdata.
func directory(t testing.TB, name string) []Source {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", name, "*.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files in %s (%v)", name, err)
	}
	var files []Source
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, Source{Name: filepath.Base(path), Text: text})
	}
	return files
}

// problemsOf returns the problems of a report, without what this version does not do yet.
func problemsOf(r *Report) []*Problem {
	return slices.DeleteFunc(r.Problems(), func(p *Problem) bool { return p.Rule == notYet })
}

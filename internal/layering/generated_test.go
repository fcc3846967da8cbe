package layering

import (
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	_ "github.com/millrace-io/millrace/examples/counter/counter/v1"
	_ "github.com/millrace-io/millrace/examples/orders/orders/v1"
	_ "github.com/millrace-io/millrace/examples/pricing/pricing/v1"
	_ "github.com/millrace-io/millrace/examples/shoppingcart/shop/v1"
	_ "github.com/millrace-io/millrace/proto/gen/cloudstate"
	_ "github.com/millrace-io/millrace/proto/gen/cloudstate/action"
	_ "github.com/millrace-io/millrace/proto/gen/cloudstate/crdt"
	_ "github.com/millrace-io/millrace/proto/gen/cloudstate/eventsourced"
	_ "github.com/millrace-io/millrace/proto/gen/cloudstate/valueentity"
	_ "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
	_ "github.com/millrace-io/millrace/proto/gen/millrace/definitions/v1"
	_ "github.com/millrace-io/millrace/proto/gen/millrace/effect/v1"
	_ "github.com/millrace-io/millrace/proto/gen/millrace/peer/v1"
	_ "github.com/millrace-io/millrace/proto/gen/millrace/projection/v1"
	_ "github.com/millrace-io/millrace/proto/gen/millrace/record/v1"
	_ "github.com/millrace-io/millrace/proto/gen/millrace/rows/v1"
	_ "github.com/millrace-io/millrace/proto/gen/millrace/session/v1"
)

// protoFolders are the roots of proto imports, as in buf.yaml.
var protoFolders = []string{"proto", "examples/counter", "examples/orders", "examples/pricing", "examples/shoppingcart"}

// TestGeneratedCode compiles every proto file and compares it with the descriptor that the
// generated code carries, so that no tool is needed to see that `make generate` was forgotten.
// `make check-generated` compares the generated files byte by byte.
func TestGeneratedCode(t *testing.T) {
	repository := filepath.Join("..", "..")
	for name, want := range compileAll(t, repository) {
		if strings.HasPrefix(name, "google/") {
			continue // Google's own generated code
		}
		generated, err := protoregistry.GlobalFiles.FindFileByPath(name)
		if err != nil {
			t.Errorf("no generated code for %s: run make generate, and import its package above", name)
			continue
		}
		if got := protodesc.ToFileDescriptorProto(generated); !proto.Equal(normal(t, got), normal(t, want)) {
			t.Errorf("the generated code does not match %s: run make generate", name)
		}
	}
}

// compileAll returns the descriptors of all proto files by their import path.
func compileAll(t *testing.T, repository string) map[string]*descriptorpb.FileDescriptorProto {
	t.Helper()
	names, roots := map[string]bool{}, []string{}
	for _, folder := range protoFolders {
		folder = filepath.Join(repository, folder)
		roots = append(roots, folder)
		for _, name := range protoFiles(t, folder) {
			names[name] = true
		}
	}
	compiler := protocompile.Compiler{
		Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: roots}),
	}
	files, err := compiler.Compile(t.Context(), slices.Sorted(maps.Keys(names))...)
	if err != nil {
		t.Fatal(err)
	}
	compiled := map[string]*descriptorpb.FileDescriptorProto{}
	for _, f := range files {
		compiled[f.Path()] = protodesc.ToFileDescriptorProto(f)
	}
	return compiled
}

func protoFiles(t *testing.T, folder string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(folder, func(name string, _ os.DirEntry, err error) error {
		if err != nil || path.Ext(name) != ".proto" {
			return err
		}
		below, err := filepath.Rel(folder, name)
		names = append(names, filepath.ToSlash(below))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// normal gives a descriptor the form that it has after one trip over the wire, with all options
// known to Go.
func normal(t *testing.T, d *descriptorpb.FileDescriptorProto) *descriptorpb.FileDescriptorProto {
	t.Helper()
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	again := &descriptorpb.FileDescriptorProto{}
	if err := proto.Unmarshal(encoded, again); err != nil {
		t.Fatal(err)
	}
	again.SourceCodeInfo = nil // comments are not in generated descriptors
	return again
}

package discovery_test

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// protoTree is where the sources of the options lie that functions import.
const protoTree = "../../proto"

// compile builds the descriptor set of some sources with all imports, every file before those that
// it imports: the order in which real functions send them, and the wrong one.
func compile(t testing.TB, sources map[string]string) *descriptorpb.FileDescriptorSet {
	t.Helper()
	paths := make([]string, 0, len(sources))
	for path := range sources {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
		Accessor: func(path string) (io.ReadCloser, error) {
			if text, ok := sources[path]; ok {
				return io.NopCloser(strings.NewReader(text)), nil
			}
			return os.Open(filepath.Join(protoTree, path))
		},
	})}
	files, err := compiler.Compile(t.Context(), paths...)
	if err != nil {
		t.Fatalf("compile: %v", err)
	}
	set := new(descriptorpb.FileDescriptorSet)
	seen := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		file := protodesc.ToFileDescriptorProto(f)
		for _, m := range file.GetMessageType() {
			for _, field := range m.GetField() {
				field.JsonName = nil // some libraries leave it out
			}
		}
		set.File = append(set.File, file)
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
	}
	for _, f := range files {
		add(f)
	}
	return set
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

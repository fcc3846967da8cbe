package discovery

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/apipb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/sourcecontextpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/typepb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

// stockFiles are files that functions import and may leave out of what they send.
var stockFiles = stockByPath( //nolint:gochecknoglobals // a constant table
	anypb.File_google_protobuf_any_proto,
	apipb.File_google_protobuf_api_proto,
	descriptorpb.File_google_protobuf_descriptor_proto,
	durationpb.File_google_protobuf_duration_proto,
	emptypb.File_google_protobuf_empty_proto,
	fieldmaskpb.File_google_protobuf_field_mask_proto,
	sourcecontextpb.File_google_protobuf_source_context_proto,
	structpb.File_google_protobuf_struct_proto,
	timestamppb.File_google_protobuf_timestamp_proto,
	typepb.File_google_protobuf_type_proto,
	wrapperspb.File_google_protobuf_wrappers_proto,
	annotations.File_google_api_annotations_proto,
	annotations.File_google_api_http_proto,
	httpbody.File_google_api_httpbody_proto,
	cloudstate.File_cloudstate_entity_key_proto,
	cloudstate.File_cloudstate_legacy_entity_key_proto,
	cloudstate.File_cloudstate_eventing_proto,
)

// stockByPath is a table by the path under which other files import a file.
func stockByPath(files ...protoreflect.FileDescriptor) map[string]protoreflect.FileDescriptor {
	byPath := make(map[string]protoreflect.FileDescriptor, len(files))
	for _, f := range files {
		byPath[f.Path()] = f
	}
	return byPath
}

// optionTypes resolves the options that the catalog reads; all others stay unknown bytes. It is a
// registry of our own, so that what is decoded does not depend on the libraries that are linked
// into the process.
var optionTypes = optionRegistry( //nolint:gochecknoglobals // a constant table
	cloudstate.E_EntityKey, cloudstate.E_LegacyEntityKey, cloudstate.E_Eventing, annotations.E_Http,
)

func optionRegistry(extensions ...protoreflect.ExtensionType) *protoregistry.Types {
	types := new(protoregistry.Types)
	for _, x := range extensions {
		if err := types.RegisterExtension(x); err != nil {
			panic(err) // two options of ours have one number
		}
	}
	return types
}

// parseDescriptors decodes a serialized FileDescriptorSet in any order and completes it. Errors are
// sentences for the function's author.
func parseDescriptors(raw []byte) (*descriptorpb.FileDescriptorSet, *protoregistry.Files, error) {
	sent := new(descriptorpb.FileDescriptorSet)
	if err := (proto.UnmarshalOptions{Resolver: optionTypes}).Unmarshal(raw, sent); err != nil {
		return nil, nil, fmt.Errorf(
			"its descriptors are not a FileDescriptorSet (%w): send the output of protoc --include_imports --descriptor_set_out",
			err)
	}
	byPath, err := filesByPath(sent)
	if err != nil {
		return nil, nil, err
	}
	set, err := sortFiles(byPath)
	if err != nil {
		return nil, nil, err
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return nil, nil, fmt.Errorf(
			"its descriptors contradict each other (%w): rebuild them with protoc --include_imports", err)
	}
	return set, files, nil
}

// filesByPath admits a file twice, as long as both are equal: some build tools send a file once for
// each of its importers.
func filesByPath(set *descriptorpb.FileDescriptorSet) (map[string]*descriptorpb.FileDescriptorProto, error) {
	byPath := make(map[string]*descriptorpb.FileDescriptorProto, len(set.GetFile()))
	for _, f := range set.GetFile() {
		if other := byPath[f.GetName()]; other != nil && !proto.Equal(other, f) {
			return nil, fmt.Errorf(
				"its descriptors have two different files with the name %s: rename one of them", f.GetName())
		}
		byPath[f.GetName()] = f
	}
	return byPath, nil
}

// sorter puts every file after its imports; the order depends on paths only.
type sorter struct {
	byPath map[string]*descriptorpb.FileDescriptorProto
	done   map[string]bool
	set    *descriptorpb.FileDescriptorSet
}

// sortFiles returns the files that were sent, and the stock files that they import, in an order in
// which they can be registered. The order is the same for the same files, so that catalogs of two
// workers can be compared byte by byte.
func sortFiles(byPath map[string]*descriptorpb.FileDescriptorProto) (*descriptorpb.FileDescriptorSet, error) {
	paths := make([]string, 0, len(byPath))
	for path := range byPath {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	s := &sorter{byPath: byPath, done: map[string]bool{}, set: new(descriptorpb.FileDescriptorSet)}
	for _, path := range paths {
		if err := s.visit(path, nil); err != nil {
			return nil, err
		}
	}
	return s.set, nil
}

// visit appends the file with this path after its imports; trail holds the files by whose imports
// it was reached.
func (s *sorter) visit(path string, trail []string) error {
	if s.done[path] {
		return nil
	}
	if at := slices.Index(trail, path); at >= 0 {
		return fmt.Errorf("its descriptors import each other in a cycle, %s: remove one import",
			strings.Join(append(trail[at:], path), " -> "))
	}
	file, err := s.find(path)
	if err != nil {
		if len(trail) == 0 {
			return err
		}
		return fmt.Errorf(
			"file %s imports %s, which is missing from its descriptors: build them with protoc --include_imports",
			trail[len(trail)-1], path)
	}
	trail = append(trail, path)
	for _, dep := range file.GetDependency() {
		if err := s.visit(dep, trail); err != nil {
			return err
		}
	}
	s.done[path] = true
	s.set.File = append(s.set.File, file)
	return nil
}

var errNoFile = errors.New("no such file")

// find prefers what the function sent over what we have in stock.
func (s *sorter) find(path string) (*descriptorpb.FileDescriptorProto, error) {
	if f := s.byPath[path]; f != nil {
		return f, nil
	}
	if f := stockFiles[path]; f != nil {
		return protodesc.ToFileDescriptorProto(f), nil
	}
	return nil, errNoFile
}

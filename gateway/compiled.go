package gateway

import (
	"bytes"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/millrace-io/millrace/entities/discovery"
)

// compiledIn returns the types of a catalog's requests and replies that this program has compiled
// in, as it has those of functions in process. They are decoded and printed faster than dynamic
// messages. A type counts only if its file, with all that the file imports, is the catalog's: a
// function may have another version of it.
func compiledIn(catalog *discovery.Catalog) map[protoreflect.MessageDescriptor]protoreflect.MessageType {
	same := sameFiles(catalog)
	types := map[protoreflect.MessageDescriptor]protoreflect.MessageType{}
	for _, service := range catalog.Services() {
		for _, m := range service.Methods {
			for _, md := range []protoreflect.MessageDescriptor{m.Input, m.Output} {
				found, err := protoregistry.GlobalTypes.FindMessageByName(md.FullName())
				if err == nil && same[md.ParentFile().Path()] && same[found.Descriptor().ParentFile().Path()] {
					types[md] = found
				}
			}
		}
	}
	return types
}

// sameFiles returns the paths of a catalog's files that are compiled in, in the same form and with
// the same imports.
func sameFiles(catalog *discovery.Catalog) map[string]bool {
	same := map[string]bool{}
	for _, sent := range catalog.FileDescriptorSet().GetFile() { // each after its imports
		fd, err := catalog.Files().FindFileByPath(sent.GetName())
		if err != nil {
			continue
		}
		linked, err := protoregistry.GlobalFiles.FindFileByPath(sent.GetName())
		if err != nil || !bytes.Equal(encodedFile(fd), encodedFile(linked)) {
			continue
		}
		isSame := true
		for _, path := range sent.GetDependency() {
			isSame = isSame && same[path]
		}
		same[sent.GetName()] = isSame
	}
	return same
}

// encodedFile returns a file in a form that can be compared, without comments.
func encodedFile(fd protoreflect.FileDescriptor) []byte {
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(protodesc.ToFileDescriptorProto(fd))
	if err != nil { // impossible: a descriptor has its required fields
		return nil
	}
	return encoded
}

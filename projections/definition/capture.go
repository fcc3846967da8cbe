package definition

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// Captured is the part of a schema that a definition needs. NewSchema makes a schema of it by which
// the definition can be checked again when the function is another one.
type Captured struct {
	Files    *descriptorpb.FileDescriptorSet
	Entities []EntityType
}

// Capture returns the part of the schema that a definition needs: for a projection the files of
// its messages and services with all that they import, for another kind everything. Comments are
// left out. An expression may name a message of a file that nothing else needs: so who captures
// checks the definition against the part, and takes All if that fails.
func (s *Schema) Capture(d Definition) Captured {
	p, ok := d.(*Projection)
	if !ok {
		return s.All()
	}
	needed := map[string]bool{}
	var need func(protoreflect.FileDescriptor)
	need = func(file protoreflect.FileDescriptor) {
		if needed[file.Path()] {
			return
		}
		needed[file.Path()] = true
		for i := range file.Imports().Len() {
			need(file.Imports().Get(i).FileDescriptor)
		}
	}
	need(p.Row.ParentFile())
	var sources []EntityType
	for _, src := range p.Sources {
		sources = append(sources, src.Entity)
		handler, _, _ := strings.Cut(src.Handler, "/")
		for _, name := range append([]string{src.Entity.Service, handler}, src.Ignored...) {
			if found := s.resolve(name, ""); found != nil {
				need(found.ParentFile())
			}
		}
		for _, c := range src.clauses() {
			if c.Message != nil {
				need(c.Message.ParentFile())
			}
		}
	}
	return s.part(sources, func(path string) bool { return needed[capturedFolder+path] })
}

// All returns the whole schema.
func (s *Schema) All() Captured { return s.part(s.entities, func(string) bool { return true }) }

func (s *Schema) part(entities []EntityType, has func(path string) bool) Captured {
	c := Captured{Files: &descriptorpb.FileDescriptorSet{}, Entities: slices.Clone(entities)}
	for _, sent := range s.sent {
		if !has(sent.GetName()) {
			continue
		}
		file := proto.CloneOf(sent)
		file.SourceCodeInfo = nil
		c.Files.File = append(c.Files.File, file)
	}
	return c
}

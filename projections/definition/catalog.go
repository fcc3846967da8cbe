package definition

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/millrace-io/millrace/entities/discovery"
)

// SchemaOf returns the schema of what a catalog serves: its messages and services, and the entity
// types that this version can fold. What belongs to the runtime is not the function's: its entity
// types cannot be projected, and services that were generated for applied definitions take no name
// and no route from the same definition when it is checked again.
func SchemaOf(c *discovery.Catalog) (*Schema, error) {
	set := &descriptorpb.FileDescriptorSet{}
	for _, file := range c.FileDescriptorSet().GetFile() {
		if len(file.GetService()) > 0 && strings.HasPrefix(file.GetPackage()+".", "millrace.") {
			file = proto.CloneOf(file) // functions may import its messages
			file.Service = nil
		}
		set.File = append(set.File, file)
	}
	var sources []EntityType
	for _, t := range c.EntityTypes() {
		if spec := t.Kind.Spec(); spec.Served() && !discovery.IsReserved(t.Service) {
			sources = append(sources, EntityType{Name: t.Name, Events: spec.Events, Service: t.Service})
		}
	}
	return NewSchema(set, sources)
}

// Files returns those names of a folder's files that are definitions, sorted: YAML files but for
// hidden ones and the program's settings.
func Files(names []string) []string {
	const settings = "millrace.yaml"
	var found []string
	for _, name := range names {
		isYAML := strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml")
		if isYAML && !strings.HasPrefix(name, ".") && name != settings {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found
}

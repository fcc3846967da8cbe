package discovery

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

// IsReserved reports whether a service's full name belongs to the runtime: the package millrace and
// those below it, and names that begin with an underscore.
func IsReserved(service string) bool {
	return strings.HasPrefix(service, "millrace.") || strings.HasPrefix(service, "_")
}

// Compose returns the catalog of several functions as if they were one. The first is the user's:
// the whole has its options and its service info. Services, entity types and files must not
// contradict one another, and a file that every function may leave out counts as the first one has
// it. A single catalog is returned as it is. The error is a *RejectedError.
func Compose(parts ...*Catalog) (*Catalog, error) {
	if len(parts) == 1 {
		return parts[0], nil
	}
	whole := &cloudstate.EntitySpec{ServiceInfo: parts[0].info}
	set := &descriptorpb.FileDescriptorSet{}
	stock, served := map[string]bool{}, map[string]bool{}
	var wrong problems
	for _, part := range parts {
		whole.Entities = append(whole.Entities, part.spec.GetEntities()...)
		for _, s := range part.services {
			if served[s.Name] {
				wrong.addf("service %s is served by two functions: each service has one", s.Name)
			}
			served[s.Name] = true
		}
		for _, file := range part.set.GetFile() {
			if _, isStock := stockFiles[file.GetName()]; isStock {
				if stock[file.GetName()] {
					continue
				}
				stock[file.GetName()] = true
			}
			set.File = append(set.File, file)
		}
	}
	if err := wrong.err(); err != nil {
		return nil, err
	}
	var err error
	if whole.Proto, err = (proto.MarshalOptions{Deterministic: true}).Marshal(set); err != nil {
		return nil, &RejectedError{Problems: []string{err.Error()}}
	}
	options := parts[0].options
	options.Runtime, options.ProtocolCheck = true, false // each part was judged by its own
	return NewCatalog(whole, options)
}

// Public returns the catalog without the runtime's own services. Messages and files stay.
func (c *Catalog) Public() *Catalog {
	if !slices.ContainsFunc(c.services, (*Service).IsInternal) {
		return c
	}
	public := *c
	public.services = nil
	public.byName, public.byType = map[string]*Service{}, map[string]*Service{}
	public.byMethod = map[string]*Method{}
	for _, s := range c.services {
		if s.IsInternal() {
			continue
		}
		public.services = append(public.services, s)
		public.byName[s.Name] = s
		if c.byType[s.EntityType.Name] == s {
			public.byType[s.EntityType.Name] = s
		}
		for _, m := range s.Methods {
			public.byMethod[m.FullName] = m
		}
	}
	return &public
}

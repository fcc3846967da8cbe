package discovery

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

// The parts of a composed catalog have been accepted one by one. What is checked here is only
// what two of them can do to each other.

// IsReserved reports whether a service's full name belongs to the runtime: the package millrace and
// those below it, and names that begin with an underscore.
func IsReserved(service string) bool {
	return strings.HasPrefix(service, "millrace.") || strings.HasPrefix(service, "_")
}

// IsReservedType reports whether an entity type belongs to the runtime: names that begin with an
// underscore.
func IsReservedType(name string) bool { return strings.HasPrefix(name, "_") }

// QueryPackage has a package below it for each projection, with the service that the runtime makes
// of it. These are the services of the runtime that callers may call.
const QueryPackage = "millrace.query"

// IsInternal reports whether the service is the runtime's own, which only the runtime calls.
func (s *Service) IsInternal() bool {
	return IsReserved(s.Name) && !strings.HasPrefix(s.Name, QueryPackage+".")
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
			// Functions are built with different versions of these files, which may differ in comments
			// and options. Everything else must be equal where two parts have it.
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
	options.Runtime, options.ProtocolCheck = true, false // each part was checked by its own
	return NewCatalog(whole, options)
}

// Public returns the catalog without what only the runtime calls. Messages and files stay.
func (c *Catalog) Public() *Catalog {
	return c.only(func(s *Service) bool { return !s.IsInternal() })
}

// User returns the catalog without all that the runtime serves itself. Messages and files stay.
func (c *Catalog) User() *Catalog {
	return c.only(func(s *Service) bool { return !IsReserved(s.Name) })
}

func (c *Catalog) only(keep func(*Service) bool) *Catalog {
	if !slices.ContainsFunc(c.services, func(s *Service) bool { return !keep(s) }) {
		return c
	}
	some := *c // descriptors and types are shared: they never change
	some.services = nil
	some.byName, some.byType = map[string]*Service{}, map[string]*Service{}
	some.byMethod = map[string]*Method{}
	for _, s := range c.services {
		if !keep(s) {
			continue
		}
		some.services = append(some.services, s)
		some.byName[s.Name] = s
		if c.byType[s.EntityType.Name] == s {
			some.byType[s.EntityType.Name] = s
		}
		for _, m := range s.Methods {
			some.byMethod[m.FullName] = m
		}
	}
	return &some
}

package sdk

import (
	"fmt"
	"path"
	"runtime"
	"runtime/debug"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

// The version of the Cloudstate protocol that is spoken, and the path of the module as build
// information has it.
const (
	protocolMajor = 0
	protocolMinor = 2
	modulePath    = "github.com/millrace-io/millrace"
)

// EntitySpec describes services as discovery does, for runtimes. The error is that of Check.
func EntitySpec(services ...*Service) (*cloudstate.EntitySpec, error) {
	if err := Check(services...); err != nil {
		return nil, err
	}
	var files fileSet
	spec := &cloudstate.EntitySpec{ServiceInfo: serviceInfo()}
	for _, s := range services {
		files.add(s.descriptor.ParentFile())
		for _, file := range s.stored {
			files.add(file)
		}
		spec.Entities = append(spec.Entities, s.entity())
	}
	var err error
	if spec.Proto, err = marshal.Marshal(&files.set); err != nil {
		return nil, fmt.Errorf("sdk: encode the descriptors for discovery: %w", err)
	}
	return spec, nil
}

// entity declares the service.
func (s *Service) entity() *cloudstate.Entity {
	entity := &cloudstate.Entity{
		EntityType:    s.kind.spec().protocol(),
		ServiceName:   s.name(),
		PersistenceId: s.persistenceID,
	}
	if s.passivateAfter > 0 {
		entity.PassivationStrategy = &cloudstate.EntityPassivationStrategy{
			Strategy: &cloudstate.EntityPassivationStrategy_Timeout{
				Timeout: &cloudstate.TimeoutPassivationStrategy{Timeout: s.passivateAfter.Milliseconds()},
			},
		}
	}
	return entity
}

// serviceInfo describes this program.
func serviceInfo() *cloudstate.ServiceInfo {
	info := &cloudstate.ServiceInfo{
		ServiceRuntime:       runtime.Version(),
		SupportLibraryName:   "millrace-go",
		ProtocolMajorVersion: protocolMajor,
		ProtocolMinorVersion: protocolMinor,
		MillraceExtensions: []cloudstate.MillraceExtension{
			cloudstate.MillraceExtension_MILLRACE_COMMAND_CONTEXT,
			cloudstate.MillraceExtension_MILLRACE_FAILURE_CODE,
			cloudstate.MillraceExtension_MILLRACE_SHARED_STREAM,
		},
	}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return info
	}
	info.ServiceName = path.Base(build.Path)
	info.ServiceVersion = build.Main.Version
	if build.Main.Path == modulePath {
		info.SupportLibraryVersion = build.Main.Version
	}
	for _, dependency := range build.Deps {
		if dependency.Path == modulePath {
			info.SupportLibraryVersion = dependency.Version
		}
	}
	return info
}

// fileSet collects files with everything that they import, dependencies first.
type fileSet struct {
	set  descriptorpb.FileDescriptorSet
	seen map[string]bool
}

func (f *fileSet) add(file protoreflect.FileDescriptor) {
	if f.seen[file.Path()] {
		return
	}
	if f.seen == nil {
		f.seen = map[string]bool{}
	}
	f.seen[file.Path()] = true
	imports := file.Imports()
	for i := range imports.Len() {
		if dependency := imports.Get(i); !dependency.IsPlaceholder() {
			f.add(dependency.FileDescriptor)
		}
	}
	f.set.File = append(f.set.File, proto.CloneOf(protodesc.ToFileDescriptorProto(file)))
}

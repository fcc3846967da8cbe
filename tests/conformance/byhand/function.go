package byhand

import (
	"context"
	"log/slog"
	"runtime"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/action"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/crdt"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/eventsourced"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/valueentity"
	"github.com/millrace-io/millrace/tests/conformance/proto/actionmodel"
	"github.com/millrace-io/millrace/tests/conformance/proto/crdtmodel"
	"github.com/millrace-io/millrace/tests/conformance/proto/esmodel"
	"github.com/millrace-io/millrace/tests/conformance/proto/vemodel"
)

// passivateAfter is the timeout of the Configured services, in milliseconds.
const passivateAfter = 100

// Options choose between the behaviours of the SDKs.
type Options struct {
	// AppliesLate applies events only when the command has succeeded, so that no refusal needs a
	// restart.
	AppliesLate bool
}

// Register adds the function to a gRPC server.
func Register(r grpc.ServiceRegistrar, o Options) {
	RegisterDiscovery(r)
	eventsourced.RegisterEventSourcedServer(r, journals{options: o})
	valueentity.RegisterValueEntityServer(r, values{})
	action.RegisterActionProtocolServer(r, actions{})
}

// RegisterDiscovery adds only the answer to discovery, for a function of the same services that
// behaves in another way.
func RegisterDiscovery(r grpc.ServiceRegistrar) {
	cloudstate.RegisterEntityDiscoveryServer(r, discovery{})
}

type discovery struct {
	cloudstate.UnimplementedEntityDiscoveryServer
}

// Discover describes the function.
func (discovery) Discover(context.Context, *cloudstate.ProxyInfo) (*cloudstate.EntitySpec, error) {
	files, err := proto.Marshal(descriptors(esmodel.File_esmodel_eventsourced_proto,
		vemodel.File_vemodel_valueentity_proto,
		actionmodel.File_actionmodel_action_proto, crdtmodel.File_crdtmodel_crdt_proto))
	if err != nil {
		return nil, err
	}
	const (
		journal = "cloudstate.eventsourced.EventSourced"
		value   = "cloudstate.valueentity.ValueEntity"
		act     = "cloudstate.action.ActionProtocol"
	)
	replicated := crdt.Crdt_ServiceDesc.ServiceName
	return &cloudstate.EntitySpec{
		Proto: files,
		Entities: []*cloudstate.Entity{
			entity(act, actionmodel.ActionTwo_ServiceDesc.ServiceName, ""),
			entity(act, actionmodel.ActionTckModel_ServiceDesc.ServiceName, ""),
			entity(journal, esmodel.EventSourcedTckModel_ServiceDesc.ServiceName, "event-sourced-tck-model"),
			entity(journal, esmodel.EventSourcedTwo_ServiceDesc.ServiceName, "event-sourced-tck-model-two"),
			configured(journal, esmodel.EventSourcedConfigured_ServiceDesc.ServiceName, "event-sourced-configured"),
			entity(value, vemodel.ValueEntityTckModel_ServiceDesc.ServiceName, "value-entity-tck-model"),
			entity(value, vemodel.ValueEntityTwo_ServiceDesc.ServiceName, "value-entity-tck-model-two"),
			configured(value, vemodel.ValueEntityConfigured_ServiceDesc.ServiceName, "value-entity-configured"),
			entity(replicated, crdtmodel.CrdtTckModel_ServiceDesc.ServiceName, "crdt-tck-model"),
			entity(replicated, crdtmodel.CrdtTwo_ServiceDesc.ServiceName, "crdt-tck-model-two"),
			configured(replicated, crdtmodel.CrdtConfigured_ServiceDesc.ServiceName, "crdt-configured"),
		},
		ServiceInfo: &cloudstate.ServiceInfo{
			ServiceName: "acceptance", ServiceRuntime: runtime.Version(), SupportLibraryName: "none",
			ProtocolMajorVersion: 0, ProtocolMinorVersion: 2,
		},
	}, nil
}

// ReportError logs an error reported by the proxy.
func (discovery) ReportError(ctx context.Context, e *cloudstate.UserFunctionError) (*emptypb.Empty, error) {
	slog.ErrorContext(ctx, "error reported by the proxy", "error", e.GetMessage())
	return &emptypb.Empty{}, nil
}

func entity(protocol, service, persistenceID string) *cloudstate.Entity {
	return &cloudstate.Entity{EntityType: protocol, ServiceName: service, PersistenceId: persistenceID}
}

func configured(protocol, service, persistenceID string) *cloudstate.Entity {
	e := entity(protocol, service, persistenceID)
	e.PassivationStrategy = &cloudstate.EntityPassivationStrategy{Strategy: &cloudstate.EntityPassivationStrategy_Timeout{
		Timeout: &cloudstate.TimeoutPassivationStrategy{Timeout: passivateAfter},
	}}
	return e
}

// descriptors collects files with what they import, dependents first, as the Go SDK sends them.
func descriptors(roots ...protoreflect.FileDescriptor) *descriptorpb.FileDescriptorSet {
	set := &descriptorpb.FileDescriptorSet{}
	seen := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if seen[file.Path()] {
			return
		}
		seen[file.Path()] = true
		imports := file.Imports()
		for i := range imports.Len() {
			add(imports.Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	}
	for _, file := range roots {
		add(file)
	}
	slices.Reverse(set.File)
	return set
}

// payload wraps a message.
func payload(m proto.Message) *anypb.Any {
	wrapped, err := anypb.New(m)
	if err != nil {
		panic(err)
	}
	return wrapped
}

// answerWith, forwardTo and refuse return the three kinds of answers.
func answerWith(m proto.Message) *cloudstate.ClientAction {
	return &cloudstate.ClientAction{Action: &cloudstate.ClientAction_Reply{Reply: &cloudstate.Reply{Payload: payload(m)}}}
}

func forwardTo(service, method string, m proto.Message) *cloudstate.ClientAction {
	return &cloudstate.ClientAction{Action: &cloudstate.ClientAction_Forward{
		Forward: &cloudstate.Forward{ServiceName: service, CommandName: method, Payload: payload(m)},
	}}
}

func refuse(id int64, description string, restart bool) *cloudstate.ClientAction {
	return &cloudstate.ClientAction{Action: &cloudstate.ClientAction_Failure{
		Failure: &cloudstate.Failure{CommandId: id, Description: description, Restart: restart},
	}}
}

func sideEffect(service, method string, synchronous bool, m proto.Message) *cloudstate.SideEffect {
	return &cloudstate.SideEffect{ServiceName: service, CommandName: method, Payload: payload(m), Synchronous: synchronous}
}

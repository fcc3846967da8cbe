package conformance_test

import (
	"slices"
	"testing"

	alphapb "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
)

func reflectionCases() []conformanceCase {
	return []conformanceCase{
		{"reflection/verify that the proxy supports server reflection", verifyReflection},
	}
}

// verifyReflection: the list has reflection first and then the served services by name, whatever is
// asked; an unknown symbol is an empty answer; host and request are echoed.
func verifyReflection(t *testing.T, s *subject) {
	stream, err := alphapb.NewServerReflectionClient(s.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var services []string
	for _, e := range s.spec.GetEntities() {
		services = append(services, e.GetServiceName())
	}
	slices.Sort(services)
	list := &alphapb.ListServiceResponse{}
	for _, name := range append([]string{"grpc.reflection.v1alpha.ServerReflection"}, services...) {
		list.Service = append(list.Service, &alphapb.ServiceResponse{Name: name})
	}
	for _, about := range []string{"", "nonsense.blabla."} {
		question := &alphapb.ServerReflectionRequest{
			Host: s.public, MessageRequest: &alphapb.ServerReflectionRequest_ListServices{ListServices: about},
		}
		send(t, stream, question)
		got, err := stream.Recv()
		answered(t, got, err, &alphapb.ServerReflectionResponse{
			ValidHost: s.public, OriginalRequest: question,
			MessageResponse: &alphapb.ServerReflectionResponse_ListServicesResponse{ListServicesResponse: list},
		})
	}
	question := &alphapb.ServerReflectionRequest{
		Host: s.public, MessageRequest: &alphapb.ServerReflectionRequest_FileContainingSymbol{
			FileContainingSymbol: "nonsense.blabla.Void",
		},
	}
	send(t, stream, question)
	got, err := stream.Recv()
	answered(t, got, err, &alphapb.ServerReflectionResponse{
		ValidHost: s.public, OriginalRequest: question,
		MessageResponse: &alphapb.ServerReflectionResponse_FileDescriptorResponse{
			FileDescriptorResponse: &alphapb.FileDescriptorResponse{},
		},
	})
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	completed(t, stream)
}

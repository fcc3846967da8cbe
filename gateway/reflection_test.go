package gateway_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	alphapb "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/millrace-io/millrace/gateway"
)

// The old service answers as Cloudstate's proxy did: its own name first, one file, and an empty
// answer if nothing is found.
func TestReflectionAlphaIsCloudstates(t *testing.T) {
	w := newWorld(t, &dispatcher{}, nil)
	stream, err := alphapb.NewServerReflectionClient(w.dial()).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ ask, want string }{
		{`list_services: ""`, `list_services_response { service { name: "grpc.reflection.v1alpha.ServerReflection" } service { name: "shop.v1.CartService" } service { name: "shop.v1.StreamService" } }`},
		{`list_services: "nonsense.blabla."`, `list_services_response { service { name: "grpc.reflection.v1alpha.ServerReflection" } service { name: "shop.v1.CartService" } service { name: "shop.v1.StreamService" } }`},
		{`file_containing_symbol: "nonsense.blabla.Black"`, `file_descriptor_response {}`},
		{`file_by_filename: "nope.proto"`, `file_descriptor_response {}`},
		{`file_containing_extension { containing_type: "a.B" extension_number: 1 }`, `file_descriptor_response {}`},
		{`all_extension_numbers_of_type: "a.B"`, `file_descriptor_response {}`},
		{``, `file_descriptor_response {}`},
	} {
		request, want := &alphapb.ServerReflectionRequest{}, &alphapb.ServerReflectionResponse{}
		for text, msg := range map[string]proto.Message{`host: "h" ` + tc.ask: request, `valid_host: "h" ` + tc.want: want} {
			if err := prototext.Unmarshal([]byte(text), msg); err != nil {
				t.Fatal(err)
			}
		}
		want.OriginalRequest = request
		if err := stream.Send(request); err != nil {
			t.Fatal(err)
		}
		got, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(got, want) {
			t.Errorf("%s: got %v", tc.ask, got)
		}
	}
	for _, symbol := range []string{"shop.v1.CartService", "shop.v1.Cart", "grpc.reflection.v1alpha.ServerReflection"} {
		if err := stream.Send(
			&alphapb.ServerReflectionRequest{MessageRequest: &alphapb.ServerReflectionRequest_FileContainingSymbol{
				FileContainingSymbol: symbol,
			}}); err != nil {
			t.Fatal(err)
		}
		got, err := stream.Recv()
		if err != nil || len(got.GetFileDescriptorResponse().GetFileDescriptorProto()) != 1 {
			t.Errorf("%s: %v %v", symbol, got, err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err == nil {
		t.Error("the stream goes on")
	}
}

// The new service is enough to build the descriptors of everything that it lists, as tools do.
func TestReflectionV1IsComplete(t *testing.T) {
	w := newWorld(t, &dispatcher{}, nil)
	stream, err := reflectionpb.NewServerReflectionClient(w.dial()).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(text string) *reflectionpb.ServerReflectionResponse {
		t.Helper()
		request := &reflectionpb.ServerReflectionRequest{}
		if err := prototext.Unmarshal([]byte(text), request); err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(request); err != nil {
			t.Fatal(err)
		}
		got, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return got
	}

	var names []string
	set := &descriptorpb.FileDescriptorSet{}
	for _, service := range ask(`list_services: "*"`).GetListServicesResponse().GetService() {
		names = append(names, service.GetName())
		for _, file := range ask(`file_containing_symbol: "` + service.GetName() +
			`"`).GetFileDescriptorResponse().GetFileDescriptorProto() {
			fd := &descriptorpb.FileDescriptorProto{}
			if err := proto.Unmarshal(file, fd); err != nil {
				t.Fatal(err)
			}
			set.File = append(set.File, fd)
		}
	}
	const want = "grpc.health.v1.Health grpc.reflection.v1.ServerReflection grpc.reflection.v1alpha.ServerReflection shop.v1.CartService shop.v1.StreamService"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("listed %s", got)
	}
	seen := map[string]bool{}
	unique := &descriptorpb.FileDescriptorSet{}
	for _, fd := range set.GetFile() {
		if !seen[fd.GetName()] {
			seen[fd.GetName()] = true
			unique.File = append(unique.File, fd)
		}
	}
	files, err := protodesc.NewFiles(unique)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := files.FindDescriptorByName(protoreflect.FullName(cartService)); err != nil {
		t.Error(err)
	}

	if got := ask(`file_containing_symbol: "a.B"`).GetErrorResponse(); got.GetErrorCode() != int32(codes.NotFound) {
		t.Errorf("unknown symbol: %v", got)
	}
	if got := ask(`file_by_filename: "shop.proto"`).GetFileDescriptorResponse(); len(got.GetFileDescriptorProto()) == 0 {
		t.Error("shop.proto is not there")
	}
	numbers := ask(`all_extension_numbers_of_type: "google.protobuf.FieldOptions"`)
	if got := numbers.GetAllExtensionNumbersResponse(); got.GetExtensionNumber()[0] != 1080 {
		t.Errorf("extensions: %v", got)
	}
	file := ask(`file_containing_extension { containing_type: "google.protobuf.FieldOptions" extension_number: 1080 }`)
	if got := file.GetFileDescriptorResponse(); len(got.GetFileDescriptorProto()) == 0 {
		t.Error("no file with the extension")
	}
}

func TestReflectionCanBeLeftOut(t *testing.T) {
	w := newWorld(t, &dispatcher{}, func(o *gateway.Options) { o.Reflection = false })
	stream, err := reflectionpb.NewServerReflectionClient(w.dial()).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unimplemented {
		t.Error(err)
	}
}

// TestReflectionKnowsWhatItLists: each service that is listed, its methods, and their messages with
// all that these refer to. On the code before, the gateway's own services were known by name only.
func TestReflectionKnowsWhatItLists(t *testing.T) {
	w := newWorld(t, &dispatcher{}, nil)
	stream, err := reflectionpb.NewServerReflectionClient(w.dial()).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(q *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
		t.Helper()
		if err := stream.Send(q); err != nil {
			t.Fatal(err)
		}
		got, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	seen := map[protoreflect.FullName]bool{}
	symbol := func(name protoreflect.FullName) {
		t.Helper()
		q := &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: string(name)}
		got := ask(&reflectionpb.ServerReflectionRequest{MessageRequest: q})
		if len(got.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
			t.Errorf("%s: %v", name, got.GetErrorResponse())
		}
	}
	var message func(m protoreflect.MessageDescriptor)
	message = func(m protoreflect.MessageDescriptor) {
		if seen[m.FullName()] || m.IsMapEntry() {
			return
		}
		seen[m.FullName()] = true
		symbol(m.FullName())
		for i := range m.Fields().Len() {
			if next := m.Fields().Get(i).Message(); next != nil {
				message(next)
			}
			if next := m.Fields().Get(i).Enum(); next != nil {
				symbol(next.FullName())
			}
		}
	}
	list := ask(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
	}).GetListServicesResponse().GetService()
	for _, listed := range list {
		symbol(protoreflect.FullName(listed.GetName()))
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(listed.GetName()))
		if err != nil {
			continue // one of the function's, which has its tests above
		}
		file := ask(&reflectionpb.ServerReflectionRequest{
			MessageRequest: &reflectionpb.ServerReflectionRequest_FileByFilename{FileByFilename: d.ParentFile().Path()},
		})
		if file.GetErrorResponse() != nil {
			t.Errorf("%s: %v", d.ParentFile().Path(), file.GetErrorResponse())
		}
		methods := d.(protoreflect.ServiceDescriptor).Methods() //nolint:forcetypeassert // a service
		for i := range methods.Len() {
			symbol(methods.Get(i).FullName())
			message(methods.Get(i).Input())
			message(methods.Get(i).Output())
		}
	}
	if len(list) != 5 || len(seen) < 8 {
		t.Errorf("%d services, %d messages", len(list), len(seen))
	}
}

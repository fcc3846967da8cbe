package gateway

import (
	"cmp"
	"errors"
	"io"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	alphapb "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/millrace-io/millrace/entities/discovery"
)

// ownServices are the services of the gateway itself.
//
//nolint:gochecknoglobals // a constant table
var ownServices = []string{
	healthpb.Health_ServiceDesc.ServiceName,
	reflectionpb.ServerReflection_ServiceDesc.ServiceName,
	alphapb.ServerReflection_ServiceDesc.ServiceName,
}

func (s *Server) registerReflection(server *grpc.Server) {
	reflectionpb.RegisterServerReflectionServer(server, &reflectionV1{server: s})
	alphapb.RegisterServerReflectionServer(server, &reflectionAlpha{server: s})
}

// reflectionV1 is grpc.reflection.v1: it lists everything, answers with a file and all that it
// imports, and says NOT_FOUND. A stream has the catalog that was current when it began.
type reflectionV1 struct {
	reflectionpb.UnimplementedServerReflectionServer
	server *Server
}

// ServerReflectionInfo answers the requests of a stream.
func (r *reflectionV1) ServerReflectionInfo(stream reflectionpb.ServerReflection_ServerReflectionInfoServer) error {
	g, problem := r.server.await(stream.Context())
	if problem != nil {
		return writeGRPCError(stream, problem)
	}
	sent := map[string]bool{}
	for {
		question, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		answer := &reflectionpb.ServerReflectionResponse{ValidHost: question.GetHost(), OriginalRequest: question}
		if _, listing := question.GetMessageRequest().(*reflectionpb.ServerReflectionRequest_ListServices); listing {
			answer.MessageResponse = listServices(append(slices.Clone(ownServices), serviceNames(g.catalog)...), true)
		} else if err := reflectOn(answer, g.catalog,
			func(fd protoreflect.FileDescriptor) [][]byte { return withImports(fd, sent) }); err != nil {
			answer.MessageResponse = &reflectionpb.ServerReflectionResponse_ErrorResponse{
				ErrorResponse: &reflectionpb.ErrorResponse{ErrorCode: int32(codes.NotFound), ErrorMessage: err.Error()},
			}
		}
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
}

// reflectionAlpha is grpc.reflection.v1alpha as in Cloudstate's proxy: the list has itself and the
// function's services, in that order; an answer has one file; if nothing is found, it is empty.
type reflectionAlpha struct {
	alphapb.UnimplementedServerReflectionServer
	server *Server
}

// ServerReflectionInfo answers the requests of a stream.
func (r *reflectionAlpha) ServerReflectionInfo(stream alphapb.ServerReflection_ServerReflectionInfoServer) error {
	g, problem := r.server.await(stream.Context())
	if problem != nil {
		return writeGRPCError(stream, problem)
	}
	for {
		asked, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		question := &reflectionpb.ServerReflectionRequest{}
		if err := transcribe(asked, question); err != nil {
			return err
		}
		answer := &reflectionpb.ServerReflectionResponse{ValidHost: question.GetHost(), OriginalRequest: question}
		if _, listing := question.GetMessageRequest().(*reflectionpb.ServerReflectionRequest_ListServices); listing {
			own := alphapb.ServerReflection_ServiceDesc.ServiceName
			answer.MessageResponse = listServices(append([]string{own}, serviceNames(g.catalog)...), false)
		} else if err := reflectOn(answer, g.catalog, alone); err != nil {
			answer.MessageResponse = fileResponse(nil)
		}
		alpha := &alphapb.ServerReflectionResponse{}
		if err := transcribe(answer, alpha); err != nil {
			return err
		}
		if err := stream.Send(alpha); err != nil {
			return err
		}
	}
}

// transcribe converts a message between the two versions of the service, which are the same on the
// wire.
func transcribe(from, to proto.Message) error {
	encoded, err := proto.Marshal(from)
	if err != nil {
		return err
	}
	return proto.Unmarshal(encoded, to)
}

func serviceNames(catalog *discovery.Catalog) []string {
	names := make([]string, 0, len(catalog.Services()))
	for _, service := range catalog.Services() {
		names = append(names, service.Name)
	}
	return names
}

func listServices(names []string, sorted bool) *reflectionpb.ServerReflectionResponse_ListServicesResponse {
	if sorted {
		slices.Sort(names)
	}
	list := &reflectionpb.ListServiceResponse{}
	for _, name := range names {
		list.Service = append(list.Service, &reflectionpb.ServiceResponse{Name: name})
	}
	return &reflectionpb.ServerReflectionResponse_ListServicesResponse{ListServicesResponse: list}
}

func fileResponse(files [][]byte) *reflectionpb.ServerReflectionResponse_FileDescriptorResponse {
	return &reflectionpb.ServerReflectionResponse_FileDescriptorResponse{
		FileDescriptorResponse: &reflectionpb.FileDescriptorResponse{FileDescriptorProto: files},
	}
}

// reflectOn answers all requests except for the list. encode returns the files to send for a file.
// The error means not found.
func reflectOn(answer *reflectionpb.ServerReflectionResponse, catalog *discovery.Catalog,
	encode func(protoreflect.FileDescriptor) [][]byte,
) error {
	var fd protoreflect.FileDescriptor
	var err error
	switch q := answer.GetOriginalRequest().GetMessageRequest().(type) {
	case *reflectionpb.ServerReflectionRequest_FileByFilename:
		fd, err = findFile(catalog, q.FileByFilename)
	case *reflectionpb.ServerReflectionRequest_FileContainingSymbol:
		var found protoreflect.Descriptor
		if found, err = findSymbol(catalog, protoreflect.FullName(q.FileContainingSymbol)); err == nil {
			fd = found.ParentFile()
		}
	case *reflectionpb.ServerReflectionRequest_FileContainingExtension:
		var found protoreflect.ExtensionType
		found, err = catalog.Types().FindExtensionByNumber(
			protoreflect.FullName(q.FileContainingExtension.GetContainingType()),
			protoreflect.FieldNumber(q.FileContainingExtension.GetExtensionNumber()))
		if err == nil {
			fd = found.TypeDescriptor().ParentFile()
		}
	case *reflectionpb.ServerReflectionRequest_AllExtensionNumbersOfType:
		return extensionNumbers(answer, catalog, protoreflect.FullName(q.AllExtensionNumbersOfType))
	default:
		err = errors.New("the request is empty")
	}
	if err != nil {
		return err
	}
	answer.MessageResponse = fileResponse(encode(fd))
	return nil
}

// findFile looks in the function's files first: a function may bring a newer version of a file that
// this process has linked in, and its clients expect that one.
func findFile(catalog *discovery.Catalog, path string) (protoreflect.FileDescriptor, error) {
	fd, err := catalog.Files().FindFileByPath(path)
	if err != nil && isOwnFile(path) {
		return protoregistry.GlobalFiles.FindFileByPath(path)
	}
	return fd, err
}

func findSymbol(catalog *discovery.Catalog, name protoreflect.FullName) (protoreflect.Descriptor, error) {
	found, err := catalog.Files().FindDescriptorByName(name)
	if err != nil {
		own, ownErr := protoregistry.GlobalFiles.FindDescriptorByName(name)
		if ownErr == nil && isOwnFile(own.ParentFile().Path()) {
			return own, nil
		}
	}
	return found, err
}

// isOwnFile reports whether a file describes a service of the gateway itself. None of them imports
// another one.
func isOwnFile(path string) bool {
	return slices.ContainsFunc(ownServices, func(name string) bool {
		own, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
		return err == nil && own.ParentFile().Path() == path
	})
}

// extensionNumbers lists the extensions of a message in all files of the function, in order.
func extensionNumbers(answer *reflectionpb.ServerReflectionResponse, catalog *discovery.Catalog,
	message protoreflect.FullName,
) error {
	if found, err := catalog.Files().FindDescriptorByName(message); err != nil {
		return err
	} else if _, ok := found.(protoreflect.MessageDescriptor); !ok {
		return errors.New(string(message) + " is not a message")
	}
	var numbers []int32
	catalog.Files().RangeFiles(func(fd protoreflect.FileDescriptor) bool {
		numbers = appendExtensions(numbers, fd, message)
		return true
	})
	slices.SortFunc(numbers, cmp.Compare[int32])
	answer.MessageResponse = &reflectionpb.ServerReflectionResponse_AllExtensionNumbersResponse{
		AllExtensionNumbersResponse: &reflectionpb.ExtensionNumberResponse{
			BaseTypeName: string(message), ExtensionNumber: numbers,
		},
	}
	return nil
}

// appendExtensions collects the extensions of a message in a file or message.
func appendExtensions(numbers []int32, in interface {
	Extensions() protoreflect.ExtensionDescriptors
	Messages() protoreflect.MessageDescriptors
}, of protoreflect.FullName,
) []int32 {
	for i := range in.Extensions().Len() {
		if x := in.Extensions().Get(i); x.ContainingMessage().FullName() == of {
			numbers = append(numbers, int32(x.Number()))
		}
	}
	for i := range in.Messages().Len() {
		numbers = appendExtensions(numbers, in.Messages().Get(i), of)
	}
	return numbers
}

// alone encodes one file.
func alone(fd protoreflect.FileDescriptor) [][]byte {
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(protodesc.ToFileDescriptorProto(fd))
	if err != nil {
		return nil // a linked descriptor always encodes
	}
	return [][]byte{encoded}
}

// withImports encodes a file and what it imports, except for imports that this stream got before.
func withImports(fd protoreflect.FileDescriptor, sent map[string]bool) [][]byte {
	files := alone(fd)
	sent[fd.Path()] = true
	imports := fd.Imports()
	for i := range imports.Len() {
		if next := imports.Get(i).FileDescriptor; !next.IsPlaceholder() && !sent[next.Path()] {
			files = append(files, withImports(next, sent)...)
		}
	}
	return files
}

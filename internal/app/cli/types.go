package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// functionTypes are the types of what is served, by which requests are read and replies are shown,
// with their extensions and what an Any contains. It implements protojson's Resolver.
type functionTypes struct {
	files *protoregistry.Files
	*dynamicpb.Types
	// opaque are types of Any that are not known, or whose content is not of that type.
	opaque []string
}

// served asks a running process for its types.
func served(ctx context.Context, a adminv1.AdminServiceClient) (*functionTypes, error) {
	res, err := a.Descriptors(ctx, &adminv1.DescriptorsRequest{})
	if err != nil {
		return nil, err
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(res.GetFileDescriptorSet(), set); err != nil {
		return nil, fmt.Errorf("descriptors of the function: %w", err)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return nil, fmt.Errorf("descriptors of the function: %w", err)
	}
	return &functionTypes{files: files, Types: dynamicpb.NewTypes(files)}, nil
}

// method looks up package.Service/Method.
func (f *functionTypes) method(name string) (protoreflect.MethodDescriptor, error) {
	service, method, found := strings.Cut(strings.TrimPrefix(name, "/"), "/")
	if !found {
		return nil, usagef("%q: write the method as package.Service/Method", name)
	}
	d, err := f.files.FindDescriptorByName(protoreflect.FullName(service))
	sd, isService := d.(protoreflect.ServiceDescriptor)
	if err != nil || !isService {
		return nil, status.Errorf(codes.NotFound, "no service %s is served; see `millrace status`", service)
	}
	md := sd.Methods().ByName(protoreflect.Name(method))
	if md == nil {
		var names []string
		for i := range sd.Methods().Len() {
			names = append(names, string(sd.Methods().Get(i).Name()))
		}
		return nil, status.Errorf(codes.NotFound, "service %s has no method %s; it has %s", service, method,
			strings.Join(names, ", "))
	}
	return md, nil
}

// FindMessageByURL finds the type of what an Any contains: one of the function, else one of
// protobuf's own.
func (f *functionTypes) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	if slices.Contains(f.opaque, url) {
		return (*wrapperspb.BytesValue)(nil).ProtoReflect().Type(), nil
	}
	if t, err := f.Types.FindMessageByURL(url); err == nil {
		return t, nil
	}
	return protoregistry.GlobalTypes.FindMessageByURL(url)
}

// message encodes a message that is given as JSON.
func (f *functionTypes) message(of protoreflect.MessageDescriptor, text []byte) ([]byte, error) {
	msg := dynamicpb.NewMessage(of)
	if err := (protojson.UnmarshalOptions{Resolver: f}).Unmarshal(text, msg); err != nil {
		return nil, err
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(msg)
}

// json shows an encoded message as JSON. What it cannot show is there as base64, with its type; the
// warning says so.
func (f *functionTypes) json(of protoreflect.MessageDescriptor, encoded []byte) (text []byte, warning string) {
	msg := dynamicpb.NewMessage(of)
	err := proto.UnmarshalOptions{Resolver: f}.Unmarshal(encoded, msg)
	f.opaque = nil
	if err == nil {
		f.inspect(msg, false)
		if len(f.opaque) > 0 {
			f.inspect(msg, true)
			slices.Sort(f.opaque)
			warning = "not known here, or not of their type, and shown as base64: " + strings.Join(f.opaque, ", ")
		}
		if text, err = (protojson.MarshalOptions{EmitDefaultValues: true, Resolver: f}).Marshal(msg); err == nil {
			return text, warning
		}
	}
	text, _ = json.Marshal(map[string]string{ // of texts: it cannot fail
		"@type": "type.googleapis.com/" + string(of.FullName()), "value": base64.StdEncoding.EncodeToString(encoded),
	})
	return text, "the reply cannot be shown as JSON, and is there as base64: " + plain(err)
}

// inspect looks at every Any in a message, and at those in them. It notes types that cannot be
// shown; with wrap it makes the content of these a BytesValue, which JSON shows as base64.
func (f *functionTypes) inspect(m protoreflect.Message, wrap bool) {
	if m.Descriptor().FullName() == "google.protobuf.Any" {
		f.inspectAny(m, wrap)
		return
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					f.inspect(v.Message(), wrap)
					return true
				})
			}
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				f.inspect(v.List().Get(i).Message(), wrap)
			}
		default:
			f.inspect(v.Message(), wrap)
		}
		return true
	})
}

func (f *functionTypes) inspectAny(m protoreflect.Message, wrap bool) {
	fields := m.Descriptor().Fields()
	url, content := m.Get(fields.ByName("type_url")).String(), m.Get(fields.ByName("value")).Bytes()
	if url == "" {
		return
	}
	if slices.Contains(f.opaque, url) {
		if wrap {
			b, _ := proto.Marshal(wrapperspb.Bytes(content)) // bytes: it cannot fail
			m.Set(fields.ByName("value"), protoreflect.ValueOfBytes(b))
		}
		return
	}
	t, err := f.FindMessageByURL(url)
	if err != nil {
		f.opaque = append(f.opaque, url)
		return
	}
	inner := t.New()
	if (proto.UnmarshalOptions{Resolver: f, AllowPartial: true}).Unmarshal(content, inner.Interface()) != nil {
		f.opaque = append(f.opaque, url)
		return
	}
	f.inspect(inner, wrap)
	if wrap {
		if b, err := (proto.MarshalOptions{AllowPartial: true}).Marshal(inner.Interface()); err == nil {
			m.Set(fields.ByName("value"), protoreflect.ValueOfBytes(b))
		}
	}
}

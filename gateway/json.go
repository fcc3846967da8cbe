package gateway

import (
	"errors"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/gateway/httprule"
)

// maxJSONDepth bounds the nesting of a request.
const maxJSONDepth = 64

// typeResolver finds the types of a catalog, and compiled-in ones, such as error details.
type typeResolver struct {
	catalog *dynamicpb.Types
}

// orGlobal falls back to the types that are compiled in.
func orGlobal[T any](found T, err error, global func() (T, error)) (T, error) {
	if errors.Is(err, protoregistry.NotFound) {
		return global()
	}
	return found, err
}

// FindMessageByName implements protoregistry.MessageTypeResolver.
func (r *typeResolver) FindMessageByName(name protoreflect.FullName) (protoreflect.MessageType, error) {
	mt, err := r.catalog.FindMessageByName(name)
	return orGlobal(mt, err,
		func() (protoreflect.MessageType, error) { return protoregistry.GlobalTypes.FindMessageByName(name) })
}

// FindMessageByURL implements protoregistry.MessageTypeResolver.
func (r *typeResolver) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	mt, err := r.catalog.FindMessageByURL(url)
	return orGlobal(mt, err,
		func() (protoreflect.MessageType, error) { return protoregistry.GlobalTypes.FindMessageByURL(url) })
}

// FindExtensionByName implements protoregistry.ExtensionTypeResolver.
func (r *typeResolver) FindExtensionByName(name protoreflect.FullName) (protoreflect.ExtensionType, error) {
	xt, err := r.catalog.FindExtensionByName(name)
	return orGlobal(xt, err,
		func() (protoreflect.ExtensionType, error) { return protoregistry.GlobalTypes.FindExtensionByName(name) })
}

// FindExtensionByNumber implements protoregistry.ExtensionTypeResolver.
func (r *typeResolver) FindExtensionByNumber(message protoreflect.FullName,
	field protoreflect.FieldNumber,
) (protoreflect.ExtensionType, error) {
	xt, err := r.catalog.FindExtensionByNumber(message, field)
	return orGlobal(xt, err, func() (protoreflect.ExtensionType, error) {
		return protoregistry.GlobalTypes.FindExtensionByNumber(message, field)
	})
}

// jsonCodec is JSON as in Cloudstate: requests are strict; replies are compact and have defaults.
// Unset messages and optional fields are left out.
type jsonCodec struct {
	protojson.MarshalOptions
	protojson.UnmarshalOptions
	// types are the types of requests and replies that are not dynamic.
	types map[protoreflect.MessageDescriptor]protoreflect.MessageType
}

// typeOf returns the type by which messages are decoded.
func (c *jsonCodec) typeOf(md protoreflect.MessageDescriptor) protoreflect.MessageType {
	if compiledIn := c.types[md]; compiledIn != nil {
		return compiledIn
	}
	return dynamicpb.NewMessageType(md)
}

// resolver finds messages and extensions.
type resolver interface {
	protoregistry.MessageTypeResolver
	protoregistry.ExtensionTypeResolver
}

func newJSONCodec(types resolver) *jsonCodec {
	return &jsonCodec{
		MarshalOptions:   protojson.MarshalOptions{Resolver: types, EmitDefaultValues: true},
		UnmarshalOptions: protojson.UnmarshalOptions{Resolver: types, RecursionLimit: maxJSONDepth},
	}
}

// Marshal returns a message in compact JSON.
func (c *jsonCodec) Marshal(msg proto.Message) ([]byte, error) {
	encoded, err := c.MarshalOptions.Marshal(msg)
	return httprule.Compact(encoded), err
}

// jsonProblem returns a problem with a request as a sentence for its caller.
func jsonProblem(err error) string {
	return "the request is not valid JSON for this method: " + httprule.Problem(err)
}

// fromJSON converts a request to the canonical encoding of the method's input. An empty body is an
// empty message.
func (c *jsonCodec) fromJSON(m *discovery.Method, data []byte) ([]byte, *entities.Error) {
	msg := c.typeOf(m.Input).New().Interface()
	if len(data) > 0 {
		if err := c.UnmarshalOptions.Unmarshal(data, msg); err != nil {
			return nil, invalid("%s: %s", m.FullName, jsonProblem(err))
		}
	}
	payload, err := appendCanonical(nil, msg)
	if err != nil {
		return nil, invalid("%s: %s", m.FullName, err)
	}
	return payload, nil
}

// toJSON converts a reply to JSON.
func (c *jsonCodec) toJSON(m *discovery.Method, payload []byte) ([]byte, *entities.Error) {
	msg, err := c.decode(m, payload)
	if err == nil {
		var data []byte
		if data, err = c.Marshal(msg.Interface()); err == nil {
			return data, nil
		}
	}
	return nil, badReply(m, err)
}

// decode decodes a reply.
func (c *jsonCodec) decode(m *discovery.Method, payload []byte) (protoreflect.Message, error) {
	msg := c.typeOf(m.Output).New()
	return msg, proto.UnmarshalOptions{Resolver: c.UnmarshalOptions.Resolver}.Unmarshal(payload, msg.Interface())
}

// badReply is the error for a reply that is not a message of the declared type. The command has
// still taken effect.
func badReply(m *discovery.Method, err error) *entities.Error {
	return entities.Errorf(entities.FunctionFailed, entities.Unknown,
		"%s: the function's reply is not a valid %s: %w", m.FullName, m.Output.FullName(), err)
}

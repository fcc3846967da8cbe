package query

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/millrace-io/millrace/entities"
	projectionv1 "github.com/millrace-io/millrace/proto/gen/millrace/projection/v1"
)

// request is a decoded request.
type request struct {
	// message is the request itself, params its parameters; nil without any.
	message, params protoreflect.Message
	pageSize        int
	pageToken       string
	filter, orderBy string
	// mask are the numbers of the row's fields that are wanted, sorted; nil for all.
	mask      []protoreflect.FieldNumber
	freshness *projectionv1.Freshness
	explain   bool
}

// notArguments are the fields of a request in which the pages of one list may differ.
var notArguments = []protoreflect.Name{ //nolint:gochecknoglobals // a constant table
	"page_size", "page_token", "freshness", "explain", "resume", "on_gap",
}

// decode reads the payload of a command.
func (m *method) decode(payload []byte) (*request, error) {
	message := dynamicpb.NewMessage(m.input)
	if err := proto.Unmarshal(payload, message); err != nil {
		return nil, invalid("%s: the request is not a valid %s: %w", m.name, m.input.FullName(), err)
	}
	r := &request{message: message}
	if m.query != nil && m.query.Params != nil {
		params := dynamicpb.NewMessage(m.query.Params)
		// The parameters have the same names and numbers in both messages.
		if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(payload, params); err != nil {
			return nil, invalid("%s: the request is not a valid %s: %w", m.name, m.input.FullName(), err)
		}
		r.params = params
	}
	r.pageSize = int(r.get("page_size").Int())
	r.pageToken, r.filter, r.orderBy = r.text("page_token"), r.text("filter"), r.text("order_by")
	r.explain = r.has("explain") && r.get("explain").Bool()
	if err := r.decodeFreshness(); err != nil {
		return nil, invalid("%s: freshness: %w", m.name, err)
	}
	if err := r.decodeMask(m.p.definition.Row); err != nil {
		return nil, invalid("%s: %w", m.name, err)
	}
	return r, nil
}

func (r *request) field(name protoreflect.Name) protoreflect.FieldDescriptor {
	return r.message.Descriptor().Fields().ByName(name)
}

func (r *request) has(name protoreflect.Name) bool {
	f := r.field(name)
	return f != nil && r.message.Has(f)
}

// get returns the value of a field; that of an int32 for a field that the request does not have.
func (r *request) get(name protoreflect.Name) protoreflect.Value {
	if f := r.field(name); f != nil {
		return r.message.Get(f)
	}
	return protoreflect.ValueOfInt32(0)
}

func (r *request) text(name protoreflect.Name) string {
	if !r.has(name) {
		return ""
	}
	return r.get(name).String()
}

// copyInto decodes a field that is a message of a known type.
func (r *request) copyInto(name protoreflect.Name, into proto.Message) error {
	encoded, err := proto.Marshal(r.get(name).Message().Interface())
	if err != nil {
		return err
	}
	return proto.Unmarshal(encoded, into)
}

func (r *request) decodeFreshness() error {
	if !r.has("freshness") {
		return nil
	}
	r.freshness = &projectionv1.Freshness{}
	return r.copyInto("freshness", r.freshness)
}

// decodeMask reads read_mask: names of fields of the row.
func (r *request) decodeMask(row protoreflect.MessageDescriptor) error {
	if !r.has("read_mask") {
		return nil
	}
	mask := &fieldmaskpb.FieldMask{}
	if err := r.copyInto("read_mask", mask); err != nil {
		return fmt.Errorf("read_mask: %w", err)
	}
	for _, path := range mask.GetPaths() {
		if path == "*" {
			r.mask = nil
			return nil
		}
		f := row.Fields().ByName(protoreflect.Name(path))
		if f == nil {
			return fmt.Errorf("read_mask: the row has no field %q: use %s", path, fieldList(row))
		}
		r.mask = append(r.mask, f.Number())
	}
	slices.Sort(r.mask)
	return nil
}

func fieldList(m protoreflect.MessageDescriptor) string {
	var names []string
	for i := range m.Fields().Len() {
		names = append(names, string(m.Fields().Get(i).Name()))
	}
	return strings.Join(names, ", ")
}

// arguments is a hash of everything in which the pages of one list must not differ.
func (r *request) arguments() ([sha256.Size]byte, error) {
	var fields []protoreflect.FieldDescriptor
	for _, name := range notArguments {
		if f := r.field(name); f != nil {
			fields = append(fields, f)
		}
	}
	rest := proto.Clone(r.message.Interface()).ProtoReflect()
	for _, f := range fields {
		rest.Clear(f)
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(rest.Interface())
	if err != nil {
		return [sha256.Size]byte{}, entities.AsError(err)
	}
	return sha256.Sum256(encoded), nil
}

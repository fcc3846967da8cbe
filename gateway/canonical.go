package gateway

import (
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// appendCanonical encodes a message with its fields in the order of their numbers, at every depth:
// the bytes that other languages would send. Go's deterministic encoding puts the fields of a oneof
// last, so they are moved, which changes no length.
func appendCanonical(base []byte, msg proto.Message) ([]byte, error) {
	encoded, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(base, msg)
	if err != nil {
		return nil, err
	}
	sortFields(msg.ProtoReflect().Descriptor(), encoded[len(base):])
	return encoded, nil
}

// encodedField is the position of one field in a message.
type encodedField struct {
	number     protowire.Number
	start, end int
}

// sortFields orders, in place, the fields of a valid encoded message.
func sortFields(md protoreflect.MessageDescriptor, b []byte) {
	last, inOrder := protowire.Number(0), true
	for at := 0; at < len(b); {
		number, wire, size := protowire.ConsumeField(b[at:])
		if size < 0 {
			return // impossible: the gateway has encoded it
		}
		end := at + size
		if fd := md.Fields().ByNumber(number); fd != nil && fd.Message() != nil && wire == protowire.BytesType {
			content, _ := protowire.ConsumeBytes(b[at+protowire.SizeTag(number) : end])
			sortFields(fd.Message(), content)
		}
		inOrder = inOrder && last <= number
		last, at = number, end
	}
	if inOrder {
		return
	}
	var fields []encodedField
	for at := 0; at < len(b); {
		number, _, size := protowire.ConsumeField(b[at:])
		fields = append(fields, encodedField{number: number, start: at, end: at + size})
		at += size
	}
	slices.SortStableFunc(fields, func(x, y encodedField) int { return int(x.number - y.number) })
	sorted := make([]byte, 0, len(b))
	for _, f := range fields {
		sorted = append(sorted, b[f.start:f.end]...)
	}
	copy(b, sorted)
}

package gateway

import (
	"fmt"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// frame is an encoded message of a user function, as passed through grpc-go.
type frame struct {
	payload []byte
}

// rawCodec passes frames without decoding them, and encodes the messages of the gateway's own
// services.
type rawCodec struct{}

// Name is the content subtype that clients see.
func (rawCodec) Name() string { return "proto" }

// Marshal lends the payload to the transport, which only reads it.
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	switch v := v.(type) {
	case *frame:
		return mem.BufferSlice{mem.SliceBuffer(v.payload)}, nil
	case proto.Message:
		encoded, err := proto.Marshal(v)
		return mem.BufferSlice{mem.SliceBuffer(encoded)}, err
	default:
		return nil, fmt.Errorf("encode %T: it is neither a frame nor a protobuf message", v)
	}
}

// Unmarshal copies the payload out of the transport's buffers, because commands keep theirs.
func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	switch v := v.(type) {
	case *frame:
		v.payload = data.Materialize()
		return nil
	case proto.Message:
		return proto.Unmarshal(data.Materialize(), v)
	default:
		return fmt.Errorf("decode %T: it is neither a frame nor a protobuf message", v)
	}
}

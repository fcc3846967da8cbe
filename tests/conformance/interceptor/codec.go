package interceptor

import (
	"fmt"

	"google.golang.org/grpc/mem"
)

// frame is an encoded message.
type frame []byte

// rawCodec does not decode messages.
type rawCodec struct{}

// Name is that of the replaced codec, so that content types stay the same.
func (rawCodec) Name() string { return "proto" }

// Marshal implements encoding.CodecV2.
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	raw, ok := v.(*frame)
	if !ok {
		return nil, fmt.Errorf("interceptor: %T is not a frame", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(*raw)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	raw, ok := v.(*frame)
	if !ok {
		return fmt.Errorf("interceptor: %T is not a frame", v)
	}
	*raw = data.Materialize()
	return nil
}

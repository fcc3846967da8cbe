package multiplex

import (
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// MessageBytes is the size from which a message is full: a further frame begins the next one.
const MessageBytes = 128 << 10

// Incoming is a message that is read in the transport's buffer.
type Incoming struct {
	// Consume must not keep the bytes.
	Consume func([]byte) error
}

// Codec passes encoded messages (*[]byte, which it takes over; *Incoming), and encodes the others.
type Codec struct{}

// Name is the content subtype on the wire: what is written by hand is protobuf too.
func (Codec) Name() string { return "proto" }

// Marshal gives the transport a buffer, which returns to the pool when it is written.
func (Codec) Marshal(v any) (mem.BufferSlice, error) {
	switch v := v.(type) {
	case *[]byte:
		return mem.BufferSlice{mem.NewBuffer(v, buffers)}, nil
	case proto.Message:
		encoded, err := proto.Marshal(v)
		return mem.BufferSlice{mem.SliceBuffer(encoded)}, err
	default:
		return nil, fmt.Errorf("encode %T: it is not a message", v)
	}
}

// Unmarshal reads a message.
func (Codec) Unmarshal(data mem.BufferSlice, v any) error {
	if len(data) == 1 {
		return unmarshal(data[0].ReadOnlyData(), v)
	}
	whole := data.MaterializeToBuffer(buffers)
	defer whole.Free()
	return unmarshal(whole.ReadOnlyData(), v)
}

func unmarshal(b []byte, v any) error {
	switch v := v.(type) {
	case *Incoming:
		return v.Consume(b)
	case proto.Message:
		return proto.Unmarshal(b, v)
	default:
		return fmt.Errorf("decode %T: it is not a message", v)
	}
}

// PlainStream sends encoded messages (*[]byte, which it takes over) on a stream of a server whose
// codec is gRPC's own: as the fields of a message that knows none of them, which that codec copies
// as they are.
type PlainStream struct{ grpc.ServerStream }

// SendMsg sends a message.
func (s PlainStream) SendMsg(v any) error {
	encoded, is := v.(*[]byte)
	if !is {
		return s.ServerStream.SendMsg(v)
	}
	message := &emptypb.Empty{}
	message.ProtoReflect().SetUnknown(*encoded)
	err := s.ServerStream.SendMsg(message)
	buffers.Put(encoded)
	return err
}

// pool reuses buffers of messages. It implements mem.BufferPool.
type pool struct{ free sync.Pool }

const (
	freshBytes = 4 << 10
	// keptBytes bounds the buffers that are kept: a message that is full, and a little more.
	keptBytes = 2 * MessageBytes
)

var buffers = &pool{} //nolint:gochecknoglobals // only memory

// Get returns a buffer of a length.
func (p *pool) Get(length int) *[]byte {
	b, _ := p.free.Get().(*[]byte)
	if b == nil || cap(*b) < length {
		fresh := make([]byte, length, max(length, freshBytes))
		return &fresh
	}
	*b = (*b)[:length]
	return b
}

// Put takes a buffer back.
func (p *pool) Put(b *[]byte) {
	if cap(*b) <= keptBytes {
		p.free.Put(b)
	}
}

// NewMessage returns an empty message to append to. It belongs to the stream once it is sent.
func NewMessage() *[]byte { return buffers.Get(0) }

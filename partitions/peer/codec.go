package peer

import (
	"fmt"
	"sync"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// incoming is a message that is read where it arrives. consume must not keep the bytes.
type incoming struct {
	consume func([]byte) error
}

// codec passes encoded messages (*[]byte, which it takes over; incoming), and encodes the others.
type codec struct{}

// Name is the content subtype on the wire: what is written by hand is protobuf too.
func (codec) Name() string { return "proto" }

// Marshal gives the transport a buffer, which comes back to the pool when it is written.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	switch v := v.(type) {
	case *[]byte:
		return mem.BufferSlice{mem.NewBuffer(v, buffers)}, nil
	case proto.Message:
		encoded, err := proto.Marshal(v)
		return mem.BufferSlice{mem.SliceBuffer(encoded)}, err
	default:
		return nil, fmt.Errorf("encode %T: it is no message of the peer protocol", v)
	}
}

// Unmarshal reads a message.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	if len(data) == 1 {
		return unmarshal(data[0].ReadOnlyData(), v)
	}
	whole := data.MaterializeToBuffer(buffers)
	defer whole.Free()
	return unmarshal(whole.ReadOnlyData(), v)
}

func unmarshal(b []byte, v any) error {
	switch v := v.(type) {
	case *incoming:
		return v.consume(b)
	case proto.Message:
		return proto.Unmarshal(b, v)
	default:
		return fmt.Errorf("decode %T: it is no message of the peer protocol", v)
	}
}

// pool keeps buffers of messages. It implements mem.BufferPool.
type pool struct{ free sync.Pool }

const (
	freshBytes = 4 << 10
	// keptBytes bounds the buffers that are kept: a message that is full, and a little more.
	keptBytes = 2 * messageBytes
)

var buffers = &pool{} //nolint:gochecknoglobals // as grpc-go's own: memory without a meaning

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

// lane is the way out of a link: frames are appended to the last message, and messages leave from the front. Its owner's lock
// guards it.
type lane struct {
	messages []*[]byte
	// first is the number of messages[0]; those before were given to the transport.
	first uint64
	// writing: somebody is at it. Only one may be.
	writing bool
}

// tail returns the message that takes the next frame, and its number.
func (l *lane) tail() (message *[]byte, number uint64) {
	n := len(l.messages)
	if n == 0 || len(*l.messages[n-1]) >= messageBytes {
		l.messages = append(l.messages, buffers.Get(0))
		n++
	}
	return l.messages[n-1], l.first + uint64(n) - 1
}

// waiting returns a message by its number; nil when it was given to the transport.
func (l *lane) waiting(number uint64) *[]byte {
	if number < l.first {
		return nil
	}
	return l.messages[number-l.first]
}

// take removes the first message; nil when there is none.
func (l *lane) take() *[]byte {
	if len(l.messages) == 0 {
		return nil
	}
	message := l.messages[0]
	l.first++
	n := copy(l.messages, l.messages[1:])
	l.messages[n] = nil
	l.messages = l.messages[:n]
	return message
}

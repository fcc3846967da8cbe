package record

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/millrace-io/millrace/proto/gen/millrace/record/v1"
)

// ParseSettled decodes the value of a settled record.
func ParseSettled(value []byte) (*recordv1.Settled, error) {
	s := &recordv1.Settled{}
	if err := proto.Unmarshal(value, s); err != nil {
		return nil, fmt.Errorf("settled record: %w", err)
	}
	return s, nil
}

// ParseTimer decodes Envelope.Timer.
func ParseTimer(encoded []byte) (*recordv1.Timer, error) {
	t := &recordv1.Timer{}
	if err := proto.Unmarshal(encoded, t); err != nil {
		return nil, fmt.Errorf("timer: %w", err)
	}
	return t, nil
}

// EncodeSettled encodes the value of a settled record.
func EncodeSettled(s *recordv1.Settled) []byte { return mustMarshal("settled record", s) }

// EncodeTimer encodes Envelope.Timer.
func EncodeTimer(t *recordv1.Timer) []byte { return mustMarshal("timer", t) }

// mustMarshal panics on an error. Only text that is not UTF-8 can cause one, and that was checked
// before.
func mustMarshal(what string, m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic("encode " + what + ": " + err.Error())
	}
	return b
}

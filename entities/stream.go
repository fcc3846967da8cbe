package entities

import (
	"context"
	"time"
)

// Stream is a call with more than one message in a direction. Command has the payload when the
// caller sends only one message, and none when it streams.
type Stream struct {
	*Command
	// Time is the log time of the call.
	Time time.Time
	// ClientStreams and ServerStreams say which directions have any number of messages.
	ClientStreams, ServerStreams bool
	// Recv returns the caller's next message, and io.EOF when it has no more. Only where
	// ClientStreams.
	Recv func(ctx context.Context) (Payload, error)
	// Send sends the caller one message. Calls must not overlap.
	Send func(*Reply) error
}

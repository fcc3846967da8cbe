package interceptor

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
)

// maxRecorded bounds the unread messages of one direction of a call; beyond it the call waits.
const maxRecorded = 1024

// Call is the record of a call, during and after it.
type Call struct {
	// Method is the full name, as in /cloudstate.EntityDiscovery/discover.
	Method string
	// In has the messages of the proxy, Out those of the function.
	In, Out Flow
}

func newCall(method string) *Call {
	return &Call{Method: method, In: newFlow(), Out: newFlow()}
}

// Flow is the record of one direction.
type Flow struct{ events chan event }

func newFlow() Flow { return Flow{events: make(chan event, maxRecorded)} }

// event is a message, or the end of the flow.
type event struct {
	message proto.Message
	err     error
}

func (f *Flow) add(ctx context.Context, message proto.Message) { f.put(ctx, event{message: message}) }

func (f *Flow) end(ctx context.Context, err error) { f.put(ctx, event{err: err}) }

// put waits for space until the call ends.
func (f *Flow) put(ctx context.Context, e event) {
	select {
	case f.events <- e:
		return
	default:
	}
	select {
	case f.events <- e:
	case <-ctx.Done():
	}
}

// Next takes the next message and waits for it until ctx ends.
func (f *Flow) Next(ctx context.Context) (proto.Message, error) {
	e, err := f.next(ctx)
	switch {
	case err != nil:
		return nil, fmt.Errorf("no message: %w", err)
	case e.message == nil:
		return nil, fmt.Errorf("no message: the flow ended (%w)", errors.Join(errEnded, e.err))
	default:
		return e.message, nil
	}
}

// errEnded is the regular end of a flow.
var errEnded = errors.New("end of messages")

// End waits until ctx ends for the end of the flow, which must come next. cause is nil for a
// regular end: a half-close of the proxy, the status OK of the function.
func (f *Flow) End(ctx context.Context) (cause, err error) {
	e, err := f.next(ctx)
	switch {
	case err != nil:
		return nil, fmt.Errorf("no end: %w", err)
	case e.message != nil:
		return nil, fmt.Errorf("no end, but a message: %v", e.message)
	default:
		return e.err, nil
	}
}

// Waiting returns the number of recorded messages and ends that were not read.
func (f *Flow) Waiting() int { return len(f.events) }

func (f *Flow) next(ctx context.Context) (event, error) {
	select {
	case e := <-f.events:
		return e, nil
	case <-ctx.Done():
		return event{}, context.Cause(ctx)
	}
}

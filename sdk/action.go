package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"google.golang.org/protobuf/proto"
)

// ActionOption is a part of an action: [Unary], [ServerStream], [ClientStream], [Bidi].
type ActionOption func(*actionDraft)

// Action makes a service without state. Its calls may overlap.
func Action(options ...ActionOption) *Service {
	d := &actionDraft{newDraft(KindAction, "")}
	d.actions = map[string]actionMethod{}
	for i, option := range options {
		if option == nil {
			d.problem("option %d of sdk.Action is nil", i+1)
			continue
		}
		option(d)
	}
	return d.finish()
}

// Unary gives the handler of a method that takes one message and returns one.
func Unary[In, Out proto.Message](method string, handle func(*ActionCommand, In) (Out, error)) ActionOption {
	return actionOption("sdk.Unary", method, shape{}, handle == nil,
		func(request codec[In], reply codec[Out], cmd *StreamCommand, _ receive) (*Payload, error) {
			in, err := request.decode(cmd.inv.Payload.Value)
			if err != nil {
				return nil, undecodable(err)
			}
			out, err := handle(&cmd.ActionCommand, in)
			return answer(reply, out, err)
		})
}

// ServerStream gives the handler of a method that takes one message and returns any number of them,
// by calling send. A nil message sends the effects so far and nothing to the caller. The error of
// send says that the caller is gone: return it. The call ends when the handler returns.
func ServerStream[In, Out proto.Message](method string,
	handle func(cmd *StreamCommand, in In, send func(Out) error) error,
) ActionOption {
	return actionOption("sdk.ServerStream", method, shape{out: true}, handle == nil,
		func(request codec[In], reply codec[Out], cmd *StreamCommand, _ receive) (*Payload, error) {
			in, err := request.decode(cmd.inv.Payload.Value)
			if err != nil {
				return nil, undecodable(err)
			}
			return nil, handle(cmd, in, sender(cmd, reply))
		})
}

// ClientStream gives the handler of a method that takes any number of messages and returns one. The
// iterator ends with the caller's last message; an error in it ends it too, and is to be returned.
func ClientStream[In, Out proto.Message](method string,
	handle func(cmd *ActionCommand, in iter.Seq2[In, error]) (Out, error),
) ActionOption {
	return actionOption("sdk.ClientStream", method, shape{in: true}, handle == nil,
		func(request codec[In], reply codec[Out], cmd *StreamCommand, recv receive) (*Payload, error) {
			out, err := handle(&cmd.ActionCommand, incoming(request, recv))
			return answer(reply, out, err)
		})
}

// Bidi gives the handler of a method that streams in both directions; see [ClientStream] for the
// iterator and [ServerStream] for send.
func Bidi[In, Out proto.Message](method string,
	handle func(cmd *StreamCommand, in iter.Seq2[In, error], send func(Out) error) error,
) ActionOption {
	return actionOption("sdk.Bidi", method, shape{in: true, out: true}, handle == nil,
		func(request codec[In], reply codec[Out], cmd *StreamCommand, recv receive) (*Payload, error) {
			return nil, handle(cmd, incoming(request, recv), sender(cmd, reply))
		})
}

// ActionCommand is a call of an action.
type ActionCommand struct{ call }

// StreamCommand is a call of an action whose answer streams. Beside the messages that the handler
// sends, an element may be a forward or a refusal. Effects go out with the next element, or with
// the end of the call.
type StreamCommand struct {
	ActionCommand
	send func(Decision) error
}

// SendForward makes the answer of another method the next element. It returns an error when the
// message is not what the method takes, or when the caller is gone.
func (c *StreamCommand) SendForward(method string, in proto.Message) error {
	target, err := newTarget(method, in)
	if err != nil {
		return fmt.Errorf("cmd.SendForward: %w", err)
	}
	return c.element(Decision{Forward: &target})
}

// SendRefusal makes a refusal, as made by [Refuse], the next element. A worker ends the call there;
// returning the refusal from the handler says the same more simply.
func (c *StreamCommand) SendRefusal(refusal error) error {
	decision, err := conclude(nil, refusal)
	if err != nil || decision.Refusal == nil {
		return fmt.Errorf("cmd.SendRefusal: %w is not a refusal: make one with sdk.Refuse", refusal)
	}
	return c.element(decision)
}

// element sends a decision with the effects that wait for one.
func (c *StreamCommand) element(decision Decision) error {
	c.mustRun("Send")
	decision.Effects = c.takeEffects()
	if err := c.send(decision); err != nil {
		return &lineError{err}
	}
	return nil
}

type actionDraft struct{ *draft }

// receive returns the caller's next message, and io.EOF after the last one.
type receive func() (Payload, error)

// actionMethod is one method of an action as runtimes call it.
type actionMethod struct {
	shape shape
	run   func(*StreamCommand, receive) (*Payload, error)
}

// actionOption is what the four options have in common: the check, and the codecs of both types.
func actionOption[In, Out proto.Message](option, method string, shape shape, isNil bool,
	run func(codec[In], codec[Out], *StreamCommand, receive) (*Payload, error),
) ActionOption {
	return func(d *actionDraft) {
		in, out := infoOf[In](), infoOf[Out]()
		name := d.handles(option, method, shape, in, out, isNil)
		if name == "" {
			return
		}
		request, reply := newCodec[In](in), newCodec[Out](out)
		d.actions[name] = actionMethod{shape: shape, run: func(cmd *StreamCommand, recv receive) (*Payload, error) {
			return run(request, reply, cmd, recv)
		}}
	}
}

// sender returns the send function of a call.
func sender[Out proto.Message](cmd *StreamCommand, reply codec[Out]) func(Out) error {
	return func(out Out) error {
		payload, err := answer(reply, out, nil)
		if err != nil {
			return err
		}
		return cmd.element(Decision{Reply: payload})
	}
}

// incoming returns the messages of a call.
func incoming[In proto.Message](request codec[In], recv receive) iter.Seq2[In, error] {
	return func(yield func(In, error) bool) {
		var none In
		for {
			payload, err := recv()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(none, &lineError{err})
				return
			}
			in, err := request.decode(payload.Value)
			if err != nil {
				yield(none, undecodable(err))
				return
			}
			if !yield(in, nil) {
				return
			}
		}
	}
}

// lineError is an error of the line to the caller, as the user's handler sees it. It is no crash
// when a handler returns it.
type lineError struct{ error }

func (e *lineError) Unwrap() error { return e.error }

// Call runs one call of an action, for runtimes. Messages of a method whose input streams come from
// recv, which returns io.EOF after the last one; elements of the answer go to send, one at a time.
// A method whose output does not stream sends exactly one element. The error is a *CrashError, or
// what recv, send or the context said.
func (s *Service) Call(ctx context.Context, inv Invocation, recv func() (Payload, error),
	send func(Decision) error,
) error {
	if len(s.problems) > 0 {
		return Check(s)
	}
	cmd := &StreamCommand{ActionCommand: ActionCommand{call{ctx: ctx, service: s, inv: inv}}, send: send}
	method, ok := s.actions[inv.Method]
	if !ok {
		return cmd.crash(fmt.Errorf("%s has no method %s", s, inv.Method))
	}
	decision, err := conclude(runAction(method, cmd, recv))
	cmd.done = true
	if err != nil {
		return cmd.ended(err)
	}
	decision.Effects = cmd.takeEffects()
	if method.shape.out && decision.Refusal == nil && decision.Forward == nil && len(decision.Effects) == 0 {
		return nil
	}
	return send(decision)
}

// runAction calls the user's handler.
func runAction(method actionMethod, cmd *StreamCommand, recv receive) (reply *Payload, err error) {
	defer trap(&err)
	return method.run(cmd, recv)
}

// ended tells a call that the caller or the line ended from one that crashed.
func (c *StreamCommand) ended(err error) error {
	if line, ok := errors.AsType[*lineError](err); ok {
		return line.error
	}
	if cause := c.ctx.Err(); cause != nil && errors.Is(err, cause) {
		return cause
	}
	return c.crash(err)
}

package sdk

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	effectv1 "github.com/millrace-io/millrace/proto/gen/millrace/effect/v1"
)

// Refusal is a decision against a command: nothing is written, and the caller gets code and
// message.
type Refusal struct {
	// Code is the gRPC status code for the caller. Cloudstate proxies know no codes and make
	// Unknown of all.
	Code    codes.Code
	Message string
}

// Error returns the message for the caller.
func (r *Refusal) Error() string { return r.Message }

// Refuse returns the error by which a handler refuses its command; the message is for the caller.
// It may be wrapped: the caller still gets this code and message. A refusal with codes.OK would be
// none, it counts as codes.Unknown.
func Refuse(code codes.Code, format string, args ...any) error {
	if code == codes.OK {
		code = codes.Unknown
	}
	return &Refusal{Code: code, Message: fmt.Sprintf(format, args...)}
}

// forwarded is the error by which a handler hands its caller to another method.
type forwarded struct{ target Target }

func (f *forwarded) Error() string {
	return fmt.Sprintf("forward to %s/%s (a handler returns it as it is)", f.target.Service, f.target.Method)
}

// Forward makes the answer of another method the answer to this command; what the handler emitted
// is written all the same. The method is named by its generated constant and belongs to a service
// of the same function. A handler returns both results as they are:
//
//	return sdk.Forward[*shopv1.Cart](shopv1.CartService_GetCart_FullMethodName, &shopv1.GetCartRequest{CartId: id})
func Forward[Out proto.Message](method string, in proto.Message) (Out, error) {
	var none Out
	target, err := newTarget(method, in)
	if err != nil {
		return none, fmt.Errorf("sdk.Forward: %w", err)
	}
	return none, &forwarded{target: target}
}

// EffectOption says how a side effect is sent.
type EffectOption func(*Effect)

// Synchronous makes the caller wait for the effect: the answer leaves when the effect's own command
// was answered.
func Synchronous() EffectOption { return func(e *Effect) { e.Synchronous = true } }

// OnRefused names a method of this entity's own service, by its generated constant. When the target
// refuses the effect, this entity gets that command, exactly once, with a [effectv1.Refused] that
// holds the message, the code and the text of the refusal: the place to give the money back. Only
// the engine can call such a method. Without this option a refusal is kept for an operator, who
// sees it in `millrace parked --refused`.
func OnRefused(method string) EffectOption { return func(e *Effect) { e.OnRefused = method } }

// IgnoreRefusal says that it does not matter if the target refuses: nothing is kept of it.
func IgnoreRefusal() EffectOption { return func(e *Effect) { e.IgnoreRefusal = true } }

// checkRefusal resolves what an effect says about refusals: its OnRefused is a full method name
// until here.
func (s *Service) checkRefusal(e *Effect) error {
	switch {
	case !s.kind.HasEntities() && e.OnRefused != "":
		return errors.New("sdk.OnRefused: an action keeps nothing, so it cannot learn of a refusal later: use sdk.Synchronous, or send the effect from an entity")
	case e.OnRefused != "" && e.IgnoreRefusal:
		return errors.New("sdk.OnRefused and sdk.IgnoreRefusal exclude each other: leave one out")
	case e.OnRefused == "":
		return nil
	}
	m, err := findMethod(e.OnRefused)
	if err != nil {
		return fmt.Errorf("sdk.OnRefused: %w", err)
	}
	if owner := string(m.Parent().FullName()); owner != s.name() {
		return fmt.Errorf("sdk.OnRefused: %s is not a method of %s: the entity that asks learns of the refusal",
			e.OnRefused, s.name())
	}
	if in := m.Input().FullName(); in != refusedName {
		return fmt.Errorf("sdk.OnRefused: %s takes a %s: declare it to take a %s", e.OnRefused, in, refusedName)
	}
	e.OnRefused = string(m.Name())
	return nil
}

// refusedName is the message of methods that learn of refusals.
var refusedName = (*effectv1.Refused)(nil).ProtoReflect().Descriptor().FullName() //nolint:gochecknoglobals // a constant

// newTarget encodes a command for another method, after comparing the message with what the method
// takes.
func newTarget(method string, in proto.Message) (Target, error) {
	m, err := findMethod(method)
	if err != nil {
		return Target{}, err
	}
	if isNil(in) {
		return Target{}, fmt.Errorf("%s: the message is nil: give a *%s", method, m.Input().Name())
	}
	if got := in.ProtoReflect().Descriptor().FullName(); got != m.Input().FullName() {
		return Target{}, fmt.Errorf("%s: the message is a %s, but the method takes a %s", method, got,
			m.Input().FullName())
	}
	payload, err := encode(in)
	if err != nil {
		return Target{}, fmt.Errorf("%s: %w", method, err)
	}
	return Target{Service: string(m.Parent().FullName()), Method: string(m.Name()), Payload: payload}, nil
}

// conclude turns what a handler returned into a decision. An error that is none is returned: the
// handler crashed.
func conclude(reply *Payload, err error) (Decision, error) {
	if err == nil {
		return Decision{Reply: reply}, nil
	}
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		return Decision{Refusal: refusal}, nil
	}
	if forward, ok := errors.AsType[*forwarded](err); ok {
		return Decision{Forward: &forward.target}, nil
	}
	if _, panicked := errors.AsType[*panicError](err); panicked {
		return Decision{}, err
	}
	return Decision{}, fmt.Errorf("%w (to say no to a command, return sdk.Refuse)", err)
}

// answer encodes the message that a handler returned; nil stands for no message.
func answer[Out proto.Message](c codec[Out], out Out, err error) (*Payload, error) {
	if err != nil || isNil(out) {
		return nil, err
	}
	payload, err := c.encode(out)
	if err != nil {
		return nil, err
	}
	return &payload, nil
}

// undecodable refuses a command whose bytes are not what the method takes: the caller's mistake,
// not the function's.
func undecodable(err error) error { return Refuse(codes.InvalidArgument, "%v", err) }

package sdk

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
)

// ValueOption is a part of a value service whose state is a message of type S: [HandleValue].
type ValueOption[S proto.Message] func(*valueDraft[S])

// Value makes a service whose state is one message, which commands replace or delete. The
// persistence id is the namespace of the stored state and the name of the entity type, for example
// "counter"; it cannot change later.
func Value[S proto.Message](persistenceID string, options ...ValueOption[S]) *Service {
	d := &valueDraft[S]{draft: newDraft(KindValue, persistenceID), cell: cell[S]{handlers: map[string]valueHandler[S]{}}}
	d.cell.service = d.Service
	if info := infoOf[S](); info.known() {
		d.stores(info)
		d.cell.codec = newCodec[S](info)
	} else {
		d.problem(
			"the state %s is not a generated message: use a pointer to one, as in sdk.ValueCommand[*counterv1.State]",
			info.goType)
	}
	for i, option := range options {
		if option == nil {
			d.problem("option %d of sdk.Value is nil", i+1)
			continue
		}
		option(d)
	}
	service := d.finish()
	service.newEntity = func(id string) (Entity, error) { return &valueEntity[S]{cell: &d.cell, id: id}, nil }
	return service
}

// HandleValue gives the handler of a method, which is named by its generated constant. A handler
// reads the value by [ValueCommand.State] and changes it by Update or Delete:
//
//	sdk.HandleValue(counterv1.CounterService_Increment_FullMethodName, increment)
func HandleValue[S, In, Out proto.Message](method string,
	handle func(*ValueCommand[S], In) (Out, error),
) ValueOption[S] {
	return func(d *valueDraft[S]) {
		in, out := infoOf[In](), infoOf[Out]()
		name := d.handles("sdk.HandleValue", method, shape{}, in, out, handle == nil)
		if name == "" {
			return
		}
		request, reply := newCodec[In](in), newCodec[Out](out)
		d.cell.handlers[name] = func(cmd *ValueCommand[S]) (*Payload, error) {
			message, err := request.decode(cmd.inv.Payload.Value)
			if err != nil {
				return nil, undecodable(err)
			}
			result, err := handle(cmd, message)
			return answer(reply, result, err)
		}
	}
}

// ValueCommand is a command of a value entity whose state is a message of type S.
type ValueCommand[S proto.Message] struct {
	entityCall
	state  S
	action StateAction
}

// State returns the value as this command sees it: what is stored, or what Update gave it. It is
// nil before the first Update and after Delete; the generated getters of a nil message return
// defaults. The message is a copy for this command: changing it has no effect without Update.
func (c *ValueCommand[S]) State() S { return c.state }

// Update replaces the value. It is encoded when the handler returns. The last Update or Delete of a
// command counts.
func (c *ValueCommand[S]) Update(state S) {
	c.mustRun("Update")
	if isNil(state) {
		panic(errors.New("cmd.Update(nil): use cmd.Delete to remove the value"))
	}
	c.state, c.action = state, StateUpdated
}

// Delete removes the value. The entity stays, without a value, and a later Update sets it again.
// Its timers stay, too, and their commands run: cancel those that must not bring the value back.
func (c *ValueCommand[S]) Delete() {
	c.mustRun("Delete")
	var none S
	c.state, c.action = none, StateDeleted
}

// cell is a value service as its entities use it.
type cell[S proto.Message] struct {
	service  *Service
	codec    codec[S]
	handlers map[string]valueHandler[S]
}

type valueDraft[S proto.Message] struct {
	*draft
	cell cell[S]
}

type valueHandler[S proto.Message] func(*ValueCommand[S]) (*Payload, error)

// valueEntity is the image of one value entity: its value, encoded. Every command decodes a copy of
// its own, so that a handler that changes the message and then refuses leaves no trace.
type valueEntity[S proto.Message] struct {
	*cell[S]
	id string
	// value counts only if there is one.
	value  Payload
	exists bool
}

func (e *valueEntity[S]) Load(value *Payload, _ uint64) error {
	if value == nil {
		return nil
	}
	if name := e.codec.typ.Descriptor().FullName(); nameOf(value.TypeURL) != name {
		return fmt.Errorf(
			"load %s: the stored value is a %s, but the state of the service is a %s: keep the type of the state",
			e.service.key(e.id), nameOf(value.TypeURL), name)
	}
	if _, err := e.codec.decode(value.Value); err != nil {
		return fmt.Errorf("load %s: %w", e.service.key(e.id), err)
	}
	e.value, e.exists = *value, true
	return nil
}

func (e *valueEntity[S]) Apply(sequence uint64, _ Payload) error {
	return fmt.Errorf("replay %s: event %d for a value entity, which has none", e.service.key(e.id), sequence)
}

func (e *valueEntity[S]) Handle(ctx context.Context, inv Invocation) (Decision, error) {
	cmd := &ValueCommand[S]{entityCall: entityCall{call: call{ctx: ctx, service: e.service, entityID: e.id, inv: inv}}}
	handle, ok := e.handlers[inv.Method]
	if !ok {
		return Decision{}, cmd.crash(fmt.Errorf("service %s has no method %s", e.service.name(), inv.Method))
	}
	decision, err := e.decide(handle, cmd)
	if err != nil {
		return Decision{}, cmd.crash(err)
	}
	switch decision.StateAction {
	case StateUpdated:
		e.value, e.exists = decision.State, true
	case StateDeleted:
		e.value, e.exists = Payload{}, false
	case StateKept:
	}
	return decision, nil
}

// decide runs the handler on a copy of the value and encodes what it left.
func (e *valueEntity[S]) decide(handle valueHandler[S], cmd *ValueCommand[S]) (Decision, error) {
	if e.exists {
		var err error
		if cmd.state, err = e.codec.decode(e.value.Value); err != nil {
			return Decision{}, err
		}
	}
	reply, err := e.run(handle, cmd)
	cmd.done = true
	decision, err := conclude(reply, err)
	if err != nil || decision.Refusal != nil {
		return decision, err
	}
	decision.StateAction, decision.Effects, decision.Timers = cmd.action, cmd.effects, cmd.timers
	if cmd.action == StateUpdated {
		decision.State, err = e.codec.encode(cmd.state)
	}
	return decision, err
}

// run calls the user's handler.
func (e *valueEntity[S]) run(handle valueHandler[S], cmd *ValueCommand[S]) (reply *Payload, err error) {
	defer trap(&err)
	return handle(cmd)
}

func (e *valueEntity[S]) Snapshot() (*Payload, error) {
	if !e.exists {
		return nil, nil
	}
	value := e.value
	return &value, nil
}

func (e *valueEntity[S]) Image() any {
	var state S
	if e.exists {
		// What is held was decoded or encoded here before; it cannot fail now.
		state, _ = e.codec.decode(e.value.Value)
	}
	return state
}

func (e *valueEntity[S]) Size() int {
	return entityOverhead + len(e.value.Value)
}

package sdk

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Option is a part of an event-sourced service whose state is an S: [Handle], [On],
// [SnapshotEvery].
type Option[S any] func(*journalDraft[S])

// EventSourced makes a service whose state is the sum of its events. The persistence id is the
// namespace of the stored state and the name of the entity type, for example "cart"; it cannot
// change later. newState returns the state of an entity that has no events yet.
func EventSourced[S any](persistenceID string, newState func(entityID string) *S, options ...Option[S]) *Service {
	d := &journalDraft[S]{
		draft: newDraft(KindEventSourced, persistenceID),
		journal: journal[S]{
			newState: newState,
			handlers: map[string]journalHandler[S]{},
			events:   map[protoreflect.FullName]journalEvent[S]{},
		},
	}
	d.journal.service = d.Service
	if newState == nil {
		d.problem(
			"the second argument of sdk.EventSourced is nil: give a function that returns the state of a new entity")
	}
	for i, option := range options {
		if option == nil {
			d.problem("option %d of sdk.EventSourced is nil", i+1)
			continue
		}
		option(d)
	}
	service := d.finish()
	service.newEntity = d.journal.newEntity
	return service
}

// Command is a command of an event-sourced entity.
type Command struct {
	entityCall
	emitter emitter
}

// emitter applies an event to the image that the command is for.
type emitter interface{ emit(event proto.Message) }

// Emit makes an event part of the decision and applies it at once: the next statement sees the
// changed state. The event is encoded here; changing the message later changes nothing that is
// stored. The events of a command are stored together.
func (c *Command) Emit(event proto.Message) {
	c.mustRun("Emit")
	c.emitter.emit(event)
}

// Handle gives the handler of a method, which is named by its generated constant. A handler reads
// the state, emits what happened, and returns the answer:
//
//	sdk.Handle(shopv1.CartService_AddItem_FullMethodName, (*Cart).AddItem)
//
// It must change the state only by [Command.Emit]: rebuilding the entity replays events and calls
// no handler.
func Handle[S any, In, Out proto.Message](method string, handle func(*S, *Command, In) (Out, error)) Option[S] {
	return func(d *journalDraft[S]) {
		in, out := infoOf[In](), infoOf[Out]()
		name := d.handles("sdk.Handle", method, shape{}, in, out, handle == nil)
		if name == "" {
			return
		}
		request, reply := newCodec[In](in), newCodec[Out](out)
		d.journal.handlers[name] = func(state *S, cmd *Command) (*Payload, error) {
			message, err := request.decode(cmd.inv.Payload.Value)
			if err != nil {
				return nil, undecodable(err)
			}
			result, err := handle(state, cmd, message)
			return answer(reply, result, err)
		}
	}
}

// On says what an event does to the state. It is called when the event is emitted and on every
// replay; so it must depend on nothing but the state and the event: no clock, no random source, no
// call to anything outside. It cannot fail, since the event has happened.
func On[S any, E proto.Message](apply func(*S, E)) Option[S] {
	return func(d *journalDraft[S]) {
		info := infoOf[E]()
		if !info.known() {
			d.problem(
				"sdk.On: %s is not a generated message: take a pointer to one, as in func(*Cart, *shopv1.ItemAdded)", info.goType)
			return
		}
		if apply == nil {
			d.problem("sdk.On for %s: the function is nil", info.name())
			return
		}
		if _, ok := d.journal.events[info.name()]; ok {
			d.problem("sdk.On for %s: the event has a function already: remove one", info.name())
			return
		}
		d.stores(info)
		event := newCodec[E](info)
		d.journal.events[info.name()] = journalEvent[S]{
			url: event.url,
			decode: func(value []byte) (proto.Message, error) {
				return event.decode(value)
			},
			apply: func(state *S, message proto.Message) error {
				e, ok := message.(E)
				if !ok {
					return fmt.Errorf("event %s is a %T, sdk.On takes a %s", info.name(), message, info.goType)
				}
				apply(state, e)
				return nil
			},
		}
	}
}

// SnapshotEvery stores the state whenever a command's events include one whose number is a multiple
// of n, so that an entity is rebuilt from its last snapshot and the events since. The snapshot is a
// message of its own, taken after the last event of the command; restore sets a new state from it.
// 100 is a good n; entities with few events need none.
func SnapshotEvery[S any, M proto.Message](n int, take func(*S) M, restore func(*S, M)) Option[S] {
	return func(d *journalDraft[S]) {
		info := infoOf[M]()
		switch {
		case d.journal.snapshots != nil:
			d.problem("sdk.SnapshotEvery is given twice: remove one")
			return
		case n <= 0:
			d.problem("sdk.SnapshotEvery(%d, …): must be at least 1; leave the option out for no snapshots", n)
			return
		case take == nil || restore == nil:
			d.problem("sdk.SnapshotEvery: both functions are needed: one that takes a snapshot, one that restores it")
			return
		case !info.known():
			d.problem("sdk.SnapshotEvery: %s is not a generated message: return a pointer to one", info.goType)
			return
		}
		d.stores(info)
		snapshot := newCodec[M](info)
		d.journal.snapshots = &journalSnapshots[S]{
			every: uint64(n),
			name:  info.name(),
			take: func(state *S) (Payload, error) {
				message := take(state)
				if isNil(message) {
					return Payload{}, fmt.Errorf("the snapshot function returned nil: return a %s", info.name())
				}
				return snapshot.encode(message)
			},
			restore: func(state *S, value []byte) error {
				message, err := snapshot.decode(value)
				if err != nil {
					return err
				}
				restore(state, message)
				return nil
			},
		}
	}
}

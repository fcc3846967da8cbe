package sdk

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// journal is an event-sourced service as its entities use it, with the types of the user's
// functions closed over.
type journal[S any] struct {
	service  *Service
	newState func(entityID string) *S
	handlers map[string]journalHandler[S]
	events   map[protoreflect.FullName]journalEvent[S]
	// snapshots is nil when the service takes none.
	snapshots *journalSnapshots[S]
}

type journalDraft[S any] struct {
	*draft
	journal journal[S]
}

type journalHandler[S any] func(*S, *Command) (*Payload, error)

type journalEvent[S any] struct {
	url    string
	decode func(value []byte) (proto.Message, error)
	apply  func(*S, proto.Message) error
}

type journalSnapshots[S any] struct {
	every   uint64
	name    protoreflect.FullName
	take    func(*S) (Payload, error)
	restore func(*S, []byte) error
}

// entityOverhead is the memory that an entity takes beside its state and beside what the runtime
// holds of it, in bytes; a rough figure.
const entityOverhead = 384

// journalEntity is the image of one event-sourced entity.
type journalEntity[S any] struct {
	*journal[S]
	id    string
	state *S
	// sequence is that of the last applied event, the emitted ones included.
	sequence uint64
	// emitted are the events of the command that runs.
	emitted []Payload
	// stateBytes estimates the state: the last snapshot and the events since, encoded.
	stateBytes int
	// unstored says that the image holds what is not stored.
	unstored bool
}

// newEntity returns an entity without events. The journal's service may be an older copy than the
// one that is run (PassivateAfter makes copies); name and persistence id are the same in all.
func (j *journal[S]) newEntity(id string) (_ Entity, err error) {
	defer trap(&err)
	state := j.newState(id)
	if state == nil {
		return nil, fmt.Errorf("%s: the function for a new state returned nil", j.service.key(id))
	}
	return &journalEntity[S]{journal: j, id: id, state: state}, nil
}

var errStale = errors.New("the image is ahead of what is stored; it has to be rebuilt before the next command")

func (e *journalEntity[S]) Load(snapshot *Payload, sequence uint64) (err error) {
	defer trap(&err)
	e.sequence = sequence
	if snapshot == nil {
		return nil
	}
	switch {
	case e.snapshots == nil:
		return fmt.Errorf(
			"load %s: there is a stored snapshot %s, but the service has no sdk.SnapshotEvery to restore it: put it back",
			e.service.key(e.id), nameOf(snapshot.TypeURL))
	case nameOf(snapshot.TypeURL) != e.snapshots.name:
		return fmt.Errorf(
			"load %s: the stored snapshot is a %s, but sdk.SnapshotEvery restores a %s: keep the type of snapshots",
			e.service.key(e.id), nameOf(snapshot.TypeURL), e.snapshots.name)
	}
	e.stateBytes = len(snapshot.Value)
	if err := e.snapshots.restore(e.state, snapshot.Value); err != nil {
		return fmt.Errorf("load %s: snapshot at %d: %w", e.service.key(e.id), sequence, err)
	}
	return nil
}

func (e *journalEntity[S]) Apply(sequence uint64, p Payload) (err error) {
	defer trap(&err)
	if sequence != e.sequence+1 {
		return fmt.Errorf("replay %s: event %d came after event %d", e.service.key(e.id), sequence, e.sequence)
	}
	event, ok := e.events[nameOf(p.TypeURL)]
	if !ok {
		return fmt.Errorf(
			"replay %s: event %d is a %s, which has no function: add sdk.On for it; what was once emitted must stay known",
			e.service.key(e.id), sequence, nameOf(p.TypeURL))
	}
	message, err := event.decode(p.Value)
	if err != nil {
		return fmt.Errorf("replay %s: event %d: %w", e.service.key(e.id), sequence, err)
	}
	if err := event.apply(e.state, message); err != nil {
		return fmt.Errorf("replay %s: event %d: %w", e.service.key(e.id), sequence, err)
	}
	e.sequence = sequence
	e.stateBytes += len(p.Value)
	return nil
}

func (e *journalEntity[S]) Handle(ctx context.Context, inv Invocation) (Decision, error) {
	cmd := &Command{entityCall: entityCall{call: call{ctx: ctx, service: e.service, entityID: e.id, inv: inv}}, emitter: e}
	handle, ok := e.handlers[inv.Method]
	switch {
	case !ok:
		return Decision{}, cmd.crash(fmt.Errorf("service %s has no method %s", e.service.name(), inv.Method))
	case e.unstored:
		return Decision{}, cmd.crash(errStale)
	}
	before := e.sequence
	e.emitted = nil
	reply, err := e.run(handle, cmd)
	cmd.done = true
	decision, err := conclude(reply, err)
	if err == nil && decision.Refusal == nil {
		decision.Snapshot, err = e.dueSnapshot(before)
	}
	if err != nil {
		e.unstored = true
		return Decision{}, cmd.crash(err)
	}
	if decision.Refusal != nil {
		// What was emitted is applied already and cannot be undone: the image is dropped, the stored
		// state stays.
		e.unstored = len(e.emitted) > 0
		decision.Restart = e.unstored
		return decision, nil //nolint:nilerr // err is nil here: it was checked above
	}
	decision.Events, decision.Effects, decision.Timers = e.emitted, cmd.effects, cmd.timers
	return decision, nil
}

// run calls the user's handler.
func (e *journalEntity[S]) run(handle journalHandler[S], cmd *Command) (reply *Payload, err error) {
	defer trap(&err)
	return handle(e.state, cmd)
}

// emit applies an event of the command that runs. Mistakes panic: the handler cannot go on, and
// trap makes a crash of it.
func (e *journalEntity[S]) emit(message proto.Message) {
	if isNil(message) {
		panic(errors.New("cmd.Emit(nil): give an event"))
	}
	name := message.ProtoReflect().Descriptor().FullName()
	event, ok := e.events[name]
	if !ok {
		panic(fmt.Errorf("cmd.Emit: event %s has no function: add sdk.On(func(*%T, *%s)) to the service", name,
			*new(S), name.Name()))
	}
	value, err := marshal.Marshal(message)
	if err != nil {
		panic(fmt.Errorf("cmd.Emit: encode %s: %w", name, err))
	}
	e.emitted = append(e.emitted, Payload{TypeURL: event.url, Value: value})
	e.sequence++
	e.stateBytes += len(value)
	if err := event.apply(e.state, message); err != nil {
		panic(fmt.Errorf("cmd.Emit: %w", err))
	}
}

// dueSnapshot takes a snapshot if a multiple of the interval is among the events after the given
// one.
func (e *journalEntity[S]) dueSnapshot(before uint64) (_ *Payload, err error) {
	if e.snapshots == nil || before/e.snapshots.every == e.sequence/e.snapshots.every {
		return nil, nil
	}
	snapshot, err := e.Snapshot()
	if err == nil {
		e.stateBytes = len(snapshot.Value)
	}
	return snapshot, err
}

func (e *journalEntity[S]) Snapshot() (_ *Payload, err error) {
	defer trap(&err)
	if e.snapshots == nil {
		return nil, nil
	}
	snapshot, err := e.snapshots.take(e.state)
	if err != nil {
		return nil, err
	}
	return &snapshot, nil
}

func (e *journalEntity[S]) Image() any { return e.state }

func (e *journalEntity[S]) Size() int { return entityOverhead + e.stateBytes }

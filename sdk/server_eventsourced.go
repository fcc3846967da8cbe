package sdk

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/eventsourced"
)

// eventSourcedServer carries event-sourced entities: Init, then events, then commands, one reply for each.
type eventSourcedServer struct {
	eventsourced.UnimplementedEventSourcedServer
	server *Server
}

func (s eventSourcedServer) Handle(stream eventsourced.EventSourced_HandleServer) error {
	session := &eventSourcedSession{server: s.server, line: stream}
	return converse(s.server, stream.Recv, session.step)
}

type eventSourcedSession struct {
	server *Server
	line   line[eventsourced.EventSourcedStreamOut]
	// service and entity are set by init, and so is id.
	service *Service
	id      string
	entity  Entity
}

// step works on one message. A failure ends the stream: the proxy opens another one for the next command.
func (s *eventSourcedSession) step(in *eventsourced.EventSourcedStreamIn) (over bool, err error) {
	command := in.GetCommand()
	switch message := in.GetMessage().(type) {
	case *eventsourced.EventSourcedStreamIn_Init:
		err = s.init(message.Init)
	case *eventsourced.EventSourcedStreamIn_Event:
		err = s.event(message.Event)
	case *eventsourced.EventSourcedStreamIn_Command:
		err = s.command(s.line.Context(), command)
	default:
		err = errors.New("a message of an unknown kind from the proxy")
	}
	if err == nil {
		return false, nil
	}
	logCrash(s.line.Context(), err)
	return true, s.line.Send(&eventsourced.EventSourcedStreamOut{Message: &eventsourced.EventSourcedStreamOut_Failure{
		Failure: &cloudstate.Failure{CommandId: command.GetId(), Description: err.Error()},
	}})
}

func (s *eventSourcedSession) init(init *eventsourced.EventSourcedInit) error {
	if s.entity != nil {
		return errors.New("init: a second one on the stream")
	}
	service, err := s.server.service(init.GetServiceName(), KindEventSourced)
	if err != nil {
		return fmt.Errorf("init %s: %w", init.GetEntityId(), err)
	}
	entity, err := service.NewEntity(init.GetEntityId())
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	snapshot := init.GetSnapshot()
	if err := entity.Load(fromAnyOrNil(snapshot.GetSnapshot()), uint64(snapshot.GetSnapshotSequence()), nil); err != nil { //nolint:gosec // sequences count from 1
		return err
	}
	s.service, s.entity, s.id = service, entity, init.GetEntityId()
	return nil
}

func (s *eventSourcedSession) event(event *eventsourced.EventSourcedEvent) error {
	if s.entity == nil {
		return fmt.Errorf("event %d came before init", event.GetSequence())
	}
	return s.entity.Apply(uint64(event.GetSequence()), fromAny(event.GetPayload())) //nolint:gosec // sequences count from 1
}

func (s *eventSourcedSession) command(ctx context.Context, command *cloudstate.Command) error {
	if s.entity == nil {
		return fmt.Errorf("command %s came before init", command.GetName())
	}
	if command.GetEntityId() != s.id {
		return fmt.Errorf("command %s is for entity %q, the stream is that of %q", command.GetName(), command.GetEntityId(), s.id)
	}
	decision, err := s.entity.Handle(ctx, fromCommand(command))
	if err != nil {
		return err
	}
	effects, err := s.service.toEffects(command, decision.Effects)
	if err != nil {
		return err
	}
	reply := &eventsourced.EventSourcedReply{
		CommandId:    command.GetId(),
		ClientAction: toClientAction(command.GetId(), &decision),
		SideEffects:  effects,
		Snapshot:     toAnyOrNil(decision.Snapshot),
	}
	if reply.MillraceTimers, err = s.service.toTimers(command, decision.Timers); err != nil {
		return err
	}
	for _, event := range decision.Events {
		reply.Events = append(reply.Events, toAny(event))
	}
	return s.line.Send(&eventsourced.EventSourcedStreamOut{Message: &eventsourced.EventSourcedStreamOut_Reply{Reply: reply}})
}

package sdk

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/valueentity"
)

// valueServer carries value entities: Init with the value, then commands, one reply for each.
type valueServer struct {
	valueentity.UnimplementedValueEntityServer
	server *Server
}

func (s valueServer) Handle(stream valueentity.ValueEntity_HandleServer) error {
	session := &valueSession{server: s.server, line: stream}
	return converse(s.server, stream.Recv, session.step)
}

type valueSession struct {
	server *Server
	line   line[valueentity.ValueEntityStreamOut]
	// service and entity are set by init, and so is id.
	service *Service
	id      string
	entity  Entity
}

// step works on one message. A failure ends the stream: the proxy opens another one for the next command.
func (s *valueSession) step(in *valueentity.ValueEntityStreamIn) (over bool, err error) {
	command := in.GetCommand()
	switch message := in.GetMessage().(type) {
	case *valueentity.ValueEntityStreamIn_Init:
		err = s.init(message.Init)
	case *valueentity.ValueEntityStreamIn_Command:
		err = s.command(s.line.Context(), command)
	default:
		err = errors.New("a message of an unknown kind from the proxy")
	}
	if err == nil {
		return false, nil
	}
	logCrash(s.line.Context(), err)
	return true, s.line.Send(&valueentity.ValueEntityStreamOut{Message: &valueentity.ValueEntityStreamOut_Failure{
		Failure: &cloudstate.Failure{CommandId: command.GetId(), Description: err.Error()},
	}})
}

func (s *valueSession) init(init *valueentity.ValueEntityInit) error {
	if s.entity != nil {
		return errors.New("init: a second one on the stream")
	}
	service, err := s.server.service(init.GetServiceName(), KindValue)
	if err != nil {
		return fmt.Errorf("init %s: %w", init.GetEntityId(), err)
	}
	entity, err := service.NewEntity(init.GetEntityId())
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	if err := entity.Load(nil, 0, fromAnyOrNil(init.GetState().GetValue())); err != nil {
		return err
	}
	s.service, s.entity, s.id = service, entity, init.GetEntityId()
	return nil
}

func (s *valueSession) command(ctx context.Context, command *cloudstate.Command) error {
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
	timers, err := s.service.toTimers(command, decision.Timers)
	if err != nil {
		return err
	}
	effects, err := s.service.toEffects(command, decision.Effects)
	if err != nil {
		return err
	}
	return s.line.Send(&valueentity.ValueEntityStreamOut{Message: &valueentity.ValueEntityStreamOut_Reply{
		Reply: &valueentity.ValueEntityReply{
			CommandId:    command.GetId(),
			ClientAction: toClientAction(command.GetId(), &decision),
			SideEffects:  effects,
			StateAction:  toStateAction(&decision),

			MillraceTimers: timers,
		},
	}})
}

// toStateAction returns the change of the value; nil for none.
func toStateAction(d *Decision) *valueentity.ValueEntityAction {
	switch d.StateAction {
	case StateUpdated:
		return &valueentity.ValueEntityAction{Action: &valueentity.ValueEntityAction_Update{
			Update: &valueentity.ValueEntityUpdate{Value: toAny(d.State)},
		}}
	case StateDeleted:
		return &valueentity.ValueEntityAction{Action: &valueentity.ValueEntityAction_Delete{Delete: &valueentity.ValueEntityDelete{}}}
	default:
		return nil
	}
}

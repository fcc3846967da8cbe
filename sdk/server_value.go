package sdk

import (
	"context"

	"google.golang.org/grpc"

	"github.com/millrace-io/millrace/proto/gen/cloudstate/valueentity"
	sessionv1 "github.com/millrace-io/millrace/proto/gen/millrace/session/v1"
)

// value is the kind of value entities.
type value struct{}

func (value) name() string         { return "value" }
func (value) constructor() string  { return "sdk.Value" }
func (value) option(shape) string  { return "sdk.HandleValue" }
func (value) streams(s shape) bool { return s == shape{} }
func (value) hasEntities() bool    { return true }
func (value) hasEvents() bool      { return false }
func (value) protocol() string     { return valueentity.ValueEntity_ServiceDesc.ServiceName }

func (value) register(registrar grpc.ServiceRegistrar, server *Server) {
	valueentity.RegisterValueEntityServer(registrar, valueServer{server: server})
}

func (value) session(p *place, first *sessionv1.Request) step {
	if first.GetValue() == nil {
		return nil
	}
	session := newValueSession(p.link.server, valueLine{p})
	return func(in *sessionv1.Request) (bool, error) { return session.step(in.GetValue()) }
}

// valueLine is a place on a link.
type valueLine struct{ *place }

func (p valueLine) Context() context.Context { return p.ctx }

// Send sends one message of the session.
func (p valueLine) Send(m *valueentity.ValueEntityStreamOut) error {
	return p.send(&sessionv1.Response{Message: &sessionv1.Response_Value{Value: m}})
}

// valueServer carries value entities: Init with the value, then commands, one reply for each.
type valueServer struct {
	valueentity.UnimplementedValueEntityServer
	server *Server
}

func (s valueServer) Handle(stream valueentity.ValueEntity_HandleServer) error {
	return converse(s.server, stream.Recv, newValueSession(s.server, stream).step)
}

type valueSession struct {
	entitySession

	line line[valueentity.ValueEntityStreamOut]
}

func newValueSession(server *Server, line line[valueentity.ValueEntityStreamOut]) *valueSession {
	return &valueSession{entitySession: entitySession{server: server}, line: line}
}

// step works on one message. A failure ends the stream: the proxy opens another one for the next
// command.
func (s *valueSession) step(in *valueentity.ValueEntityStreamIn) (over bool, err error) {
	switch message := in.GetMessage().(type) {
	case *valueentity.ValueEntityStreamIn_Init:
		init := message.Init
		err = s.init(KindValue, init.GetServiceName(), init.GetEntityId(), init.GetState().GetValue(), 0)
	case *valueentity.ValueEntityStreamIn_Command:
		var d decided
		if d, err = s.decide(s.line.Context(), message.Command); err == nil {
			err = s.line.Send(toValueReply(message.Command.GetId(), &d))
		}
	default:
		err = errUnknownMessage
	}
	if err == nil {
		return false, nil
	}
	return true, s.line.Send(&valueentity.ValueEntityStreamOut{Message: &valueentity.ValueEntityStreamOut_Failure{
		Failure: failure(s.line.Context(), in.GetCommand(), err),
	}})
}

func toValueReply(id int64, d *decided) *valueentity.ValueEntityStreamOut {
	reply := &valueentity.ValueEntityReply{
		CommandId: id, ClientAction: d.action, SideEffects: d.effects,
		MillraceTimers: d.timers,
	}
	switch d.StateAction {
	case StateUpdated:
		reply.StateAction = &valueentity.ValueEntityAction{Action: &valueentity.ValueEntityAction_Update{
			Update: &valueentity.ValueEntityUpdate{Value: toAny(d.State)},
		}}
	case StateDeleted:
		reply.StateAction = &valueentity.ValueEntityAction{
			Action: &valueentity.ValueEntityAction_Delete{Delete: &valueentity.ValueEntityDelete{}},
		}
	case StateKept:
	}
	return &valueentity.ValueEntityStreamOut{Message: &valueentity.ValueEntityStreamOut_Reply{Reply: reply}}
}

package sdk

import (
	"context"

	"google.golang.org/grpc"

	"github.com/millrace-io/millrace/proto/gen/cloudstate/eventsourced"
	sessionv1 "github.com/millrace-io/millrace/proto/gen/millrace/session/v1"
)

// eventSourced is the kind of event-sourced entities.
type eventSourced struct{}

func (eventSourced) name() string         { return "event-sourced" }
func (eventSourced) constructor() string  { return "sdk.EventSourced" }
func (eventSourced) option(shape) string  { return "sdk.Handle" }
func (eventSourced) streams(s shape) bool { return s == shape{} }
func (eventSourced) hasEntities() bool    { return true }
func (eventSourced) hasEvents() bool      { return true }
func (eventSourced) protocol() string     { return eventsourced.EventSourced_ServiceDesc.ServiceName }

func (eventSourced) register(registrar grpc.ServiceRegistrar, server *Server) {
	eventsourced.RegisterEventSourcedServer(registrar, eventSourcedServer{server: server})
}

func (eventSourced) session(p *place, first *sessionv1.Request) step {
	if first.GetEventSourced() == nil {
		return nil
	}
	session := newEventSourcedSession(p.link.server, eventSourcedLine{p})
	return func(in *sessionv1.Request) (bool, error) { return session.step(in.GetEventSourced()) }
}

// eventSourcedLine is a place on a link.
type eventSourcedLine struct{ *place }

func (p eventSourcedLine) Context() context.Context { return p.ctx }

// Send sends one message of the session.
func (p eventSourcedLine) Send(m *eventsourced.EventSourcedStreamOut) error {
	return p.send(&sessionv1.Response{Message: &sessionv1.Response_EventSourced{EventSourced: m}})
}

// eventSourcedServer carries event-sourced entities: Init, then events, then commands, one reply
// for each.
type eventSourcedServer struct {
	eventsourced.UnimplementedEventSourcedServer
	server *Server
}

func (s eventSourcedServer) Handle(stream eventsourced.EventSourced_HandleServer) error {
	return converse(s.server, stream.Recv, newEventSourcedSession(s.server, stream).step)
}

type eventSourcedSession struct {
	entitySession

	line line[eventsourced.EventSourcedStreamOut]
}

func newEventSourcedSession(server *Server, line line[eventsourced.EventSourcedStreamOut]) *eventSourcedSession {
	return &eventSourcedSession{entitySession: entitySession{server: server}, line: line}
}

// step works on one message. A failure ends the stream: the proxy opens another one for the next
// command.
func (s *eventSourcedSession) step(in *eventsourced.EventSourcedStreamIn) (over bool, err error) {
	switch message := in.GetMessage().(type) {
	case *eventsourced.EventSourcedStreamIn_Init:
		init := message.Init
		err = s.init(KindEventSourced, init.GetServiceName(), init.GetEntityId(), init.GetSnapshot().GetSnapshot(),
			init.GetSnapshot().GetSnapshotSequence())
	case *eventsourced.EventSourcedStreamIn_Event:
		err = s.apply(message.Event.GetSequence(), message.Event.GetPayload())
	case *eventsourced.EventSourcedStreamIn_Command:
		var d decided
		if d, err = s.decide(s.line.Context(), message.Command); err == nil {
			err = s.line.Send(toEventSourcedReply(message.Command.GetId(), &d))
		}
	default:
		err = errUnknownMessage
	}
	if err == nil {
		return false, nil
	}
	return true, s.line.Send(&eventsourced.EventSourcedStreamOut{Message: &eventsourced.EventSourcedStreamOut_Failure{
		Failure: failure(s.line.Context(), in.GetCommand(), err),
	}})
}

func toEventSourcedReply(id int64, d *decided) *eventsourced.EventSourcedStreamOut {
	reply := &eventsourced.EventSourcedReply{
		CommandId: id, ClientAction: d.action, SideEffects: d.effects, MillraceTimers: d.timers,
		Snapshot: toAnyOrNil(d.Snapshot),
	}
	for _, event := range d.Events {
		reply.Events = append(reply.Events, toAny(event))
	}
	return &eventsourced.EventSourcedStreamOut{Message: &eventsourced.EventSourcedStreamOut_Reply{Reply: reply}}
}

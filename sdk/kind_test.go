package sdk

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/crdt"
	sessionv1 "github.com/millrace-io/millrace/proto/gen/millrace/session/v1"
)

// KindTally is a kind of this package's tests: a number whose function speaks the protocol of
// replicated entities. It needs nothing outside of this file.
const KindTally Kind = 200

func init() { //nolint:gochecknoinits // a kind is registered before anything uses the table
	table := make([]kind, KindTally+1)
	copy(table, kinds)
	table[KindTally] = tally{}
	kinds = table
}

// NewTally makes a tally of each counter.
func NewTally(persistenceID string) *Service {
	d := newDraft(KindTally, persistenceID)
	out := infoOf[*counterv1.Counter]()
	d.handles("sdk.HandleTally", counterv1.CounterService_Increment_FullMethodName, shape{},
		infoOf[*counterv1.IncrementRequest](), out, false)
	d.handles("sdk.HandleTally", counterv1.CounterService_Get_FullMethodName, shape{}, infoOf[*counterv1.GetRequest](),
		out, false)
	s := d.finish()
	s.newEntity = func(string) (Entity, error) { return &tallyEntity{}, nil }
	return s
}

type tally struct{}

func (tally) name() string         { return "tally" }
func (tally) constructor() string  { return "sdk.NewTally" }
func (tally) option(shape) string  { return "sdk.HandleTally" }
func (tally) streams(s shape) bool { return !s.in }
func (tally) hasEntities() bool    { return true }
func (tally) hasEvents() bool      { return true }
func (tally) protocol() string     { return crdt.Crdt_ServiceDesc.ServiceName }

func (tally) register(registrar grpc.ServiceRegistrar, server *Server) {
	crdt.RegisterCrdtServer(registrar, tallyServer{server: server})
}

func (tally) session(*place, *sessionv1.Request) step { return nil }

type tallyServer struct {
	crdt.UnimplementedCrdtServer
	server *Server
}

func (s tallyServer) Handle(stream crdt.Crdt_HandleServer) error {
	session := &entitySession{server: s.server}
	return converse(s.server, stream.Recv, func(in *crdt.CrdtStreamIn) (over bool, err error) {
		switch message := in.GetMessage().(type) {
		case *crdt.CrdtStreamIn_Init:
			init := message.Init
			var state Payload
			if state, err = encode(init.GetDelta()); err == nil {
				err = session.init(KindTally, init.GetServiceName(), init.GetEntityId(), toAny(state), 0)
			}
		case *crdt.CrdtStreamIn_Command:
			var d decided
			if d, err = session.decide(stream.Context(), message.Command); err == nil {
				err = stream.Send(toTallyReply(message.Command.GetId(), &d))
			}
		default:
			err = errUnknownMessage
		}
		if err == nil {
			return false, nil
		}
		return true, stream.Send(&crdt.CrdtStreamOut{Message: &crdt.CrdtStreamOut_Failure{
			Failure: failure(stream.Context(), in.GetCommand(), err),
		}})
	})
}

func toTallyReply(id int64, d *decided) *crdt.CrdtStreamOut {
	reply := &crdt.CrdtReply{CommandId: id, ClientAction: d.action, SideEffects: d.effects}
	for _, event := range d.Events {
		delta := new(crdt.CrdtDelta)
		if err := proto.Unmarshal(event.Value, delta); err != nil {
			panic(err) // the entity has made it
		}
		reply.StateAction = &crdt.CrdtStateAction{Action: &crdt.CrdtStateAction_Update{Update: delta}}
	}
	return &crdt.CrdtStreamOut{Message: &crdt.CrdtStreamOut_Reply{Reply: reply}}
}

// tallyEntity adds to its number.
type tallyEntity struct{ sum int64 }

func (e *tallyEntity) Load(state *Payload, _ uint64) error {
	if state == nil {
		return nil
	}
	return e.Apply(0, *state)
}

func (e *tallyEntity) Apply(_ uint64, event Payload) error {
	delta := new(crdt.CrdtDelta)
	err := proto.Unmarshal(event.Value, delta)
	e.sum += delta.GetPncounter().GetChange()
	return err
}

func (e *tallyEntity) Handle(_ context.Context, inv Invocation) (d Decision, err error) {
	if inv.Method == "Increment" {
		in := new(counterv1.IncrementRequest)
		if err := proto.Unmarshal(inv.Payload.Value, in); err != nil {
			return d, err
		}
		e.sum += in.GetBy()
		event, err := encode(
			&crdt.CrdtDelta{Delta: &crdt.CrdtDelta_Pncounter{Pncounter: &crdt.PNCounterDelta{Change: in.GetBy()}}})
		if err != nil {
			return d, err
		}
		d.Events = []Payload{event}
	}
	reply, err := encode(&counterv1.Counter{Value: e.sum})
	d.Reply = &reply
	return d, err
}

func (e *tallyEntity) Snapshot() (*Payload, error) { return nil, nil }
func (e *tallyEntity) Image() any                  { return &e.sum }
func (e *tallyEntity) Size() int                   { return 8 }

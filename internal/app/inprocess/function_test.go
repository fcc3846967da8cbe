package inprocess_test

import (
	"context"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/host"
	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	"github.com/millrace-io/millrace/examples/pricing/pricing"
	pricingv1 "github.com/millrace-io/millrace/examples/pricing/pricing/v1"
	"github.com/millrace-io/millrace/examples/shoppingcart/cart"
	shopv1 "github.com/millrace-io/millrace/examples/shoppingcart/shop/v1"
	"github.com/millrace-io/millrace/internal/app/inprocess"
	"github.com/millrace-io/millrace/internal/leaktest"
	"github.com/millrace-io/millrace/sdk"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

const (
	cartService    = "shop.v1.CartService"
	counterService = "counter.v1.CounterService"
	pricingService = "pricing.v1.PricingService"
)

var now = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

// seen is what a handler of the counter received.
type seen struct {
	id, principal, agent, entity string
	at                           time.Time
}

// probeCounter is a value entity whose handlers return the invocation that they see, and use every
// field of a decision.
func probeCounter(got *seen) *sdk.Service {
	return sdk.Value("counter",
		sdk.HandleValue(counterv1.CounterService_Increment_FullMethodName,
			func(cmd *sdk.ValueCommand[*counterv1.State], in *counterv1.IncrementRequest) (*counterv1.Counter, error) {
				*got = seen{
					id: cmd.ID(), principal: cmd.Principal(), agent: cmd.Metadata().Get("user-agent"), entity: cmd.EntityID(),
					at: cmd.Time(),
				}
				get := &counterv1.GetRequest{CounterId: "other"}
				switch in.GetBy() {
				case -1:
					return nil, sdk.Refuse(codes.OutOfRange, "no")
				case -2:
					return sdk.Forward[*counterv1.Counter](counterv1.CounterService_Get_FullMethodName, get)
				case -3:
					return nil, errors.New("out of order")
				case -4:
					cmd.Delete()
					return nil, nil
				}
				cmd.Effect(counterv1.CounterService_Get_FullMethodName, get)
				cmd.Effect(counterv1.CounterService_Get_FullMethodName, get, sdk.Synchronous())
				s := &counterv1.State{Value: cmd.State().GetValue() + in.GetBy()}
				cmd.Update(s)
				return &counterv1.Counter{Value: s.GetValue()}, nil
			}),
		sdk.HandleValue(counterv1.CounterService_Get_FullMethodName,
			func(cmd *sdk.ValueCommand[*counterv1.State], _ *counterv1.GetRequest) (*counterv1.Counter, error) {
				return &counterv1.Counter{Value: cmd.State().GetValue()}, nil
			}),
	)
}

func newFunction(t *testing.T, services ...*sdk.Service) host.Local {
	t.Helper()
	f, err := inprocess.New(services...)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func payload(t *testing.T, m proto.Message) entities.Payload {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return entities.Payload{TypeURL: "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()), Value: b}
}

func decoded[M proto.Message](t *testing.T, p entities.Payload, into M) M {
	t.Helper()
	if err := proto.Unmarshal(p.Value, into); err != nil {
		t.Fatal(err)
	}
	return into
}

func invocation(t *testing.T, service, method string, in proto.Message) entities.Invocation {
	t.Helper()
	return entities.Invocation{
		Command: &entities.Command{
			Service: service, Method: method, Payload: payload(t, in), ID: "c-1", Principal: "ann",
			Metadata: entities.Metadata{{Key: "user-agent", Text: "test"}},
		},
		Time: now,
	}
}

func open(t *testing.T, f host.Local, service string, value *entities.Payload) host.LocalEntity {
	t.Helper()
	e, err := f.OpenEntity(service, "42")
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Load(value, 0); err != nil {
		t.Fatal(err)
	}
	return e
}

func increment(t *testing.T, by int64) entities.Invocation {
	t.Helper()
	return invocation(t, counterService, "Increment", &counterv1.IncrementRequest{CounterId: "42", By: by})
}

func TestHandlerSeesTheInvocation(t *testing.T) {
	var got seen
	e := open(t, newFunction(t, probeCounter(&got)), counterService, nil)
	if _, err := e.Handle(t.Context(), increment(t, 1)); err != nil {
		t.Fatal(err)
	}
	if want := (seen{id: "c-1", principal: "ann", agent: "test", entity: "42", at: now}); got != want {
		t.Errorf("the handler saw %+v, want %+v", got, want)
	}
}

func TestValueOutcomeHasStateReplyAndEffects(t *testing.T) {
	stored := payload(t, &counterv1.State{Value: 40})
	e := open(t, newFunction(t, probeCounter(&seen{})), counterService, &stored)
	out, err := e.Handle(t.Context(), increment(t, 2))
	if err != nil {
		t.Fatal(err)
	}
	if got := decoded(t, out.Reply.Payload, &counterv1.Counter{}).GetValue(); got != 42 {
		t.Errorf("replied %d, want 42", got)
	}
	if got := decoded(t, out.State, &counterv1.State{}).GetValue(); out.StateAction != entities.StateUpdated || got != 42 {
		t.Errorf("state: action %d, value %d, want it updated to 42", out.StateAction, got)
	}
	if len(out.Effects) != 2 || out.Effects[0].Synchronous || !out.Effects[1].Synchronous {
		t.Fatalf("effects %+v, want an asynchronous one and then a synchronous one", out.Effects)
	}
	if target := out.Effects[0].Target; target.Service != counterService || target.Method != "Get" ||
		decoded(t, target.Payload, &counterv1.GetRequest{}).GetCounterId() != "other" {
		t.Errorf("effect aims at %+v, want Get of counter other", target)
	}
	if e.Size() <= 0 {
		t.Errorf("size is %d, want an estimate", e.Size())
	}
}

func TestOutcomeHasTimers(t *testing.T) {
	get := &counterv1.GetRequest{CounterId: "42"}
	e := open(t, newFunction(t, sdk.Value("counter",
		sdk.HandleValue(counterv1.CounterService_Increment_FullMethodName,
			func(cmd *sdk.ValueCommand[*counterv1.State], _ *counterv1.IncrementRequest) (*counterv1.Counter, error) {
				cmd.After(time.Minute, "soon", counterv1.CounterService_Get_FullMethodName, get)
				cmd.Every("@daily", "daily", counterv1.CounterService_Get_FullMethodName, get)
				cmd.Cancel("old")
				return nil, nil
			}),
		sdk.HandleValue(counterv1.CounterService_Get_FullMethodName,
			func(*sdk.ValueCommand[*counterv1.State], *counterv1.GetRequest) (*counterv1.Counter, error) {
				return nil, nil
			}),
	)), counterService, nil)
	out, err := e.Handle(t.Context(), increment(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	target := entities.Target{Service: counterService, Method: "Get", Payload: payload(t, get)}
	want := []entities.TimerChange{
		{Name: "soon", After: time.Minute, Target: target},
		{Name: "daily", Schedule: "@daily", Target: target},
		{Name: "old", Cancel: true},
	}
	if !reflect.DeepEqual(out.Timers, want) {
		t.Errorf("timers\n got %+v\nwant %+v", out.Timers, want)
	}
}

func TestRefusalHasItsCode(t *testing.T) {
	e := open(t, newFunction(t, probeCounter(&seen{})), counterService, nil)
	out, err := e.Handle(t.Context(), increment(t, -1))
	if err != nil {
		t.Fatal(err)
	}
	f := out.Failure
	if f == nil || f.Reason != entities.FunctionRefused || f.Code != uint32(codes.OutOfRange) || f.Message != "no" ||
		f.Outcome != entities.Refused {
		t.Errorf("failure %+v, want the refusal with its code", f)
	}
	if out.Reply != nil || out.StateAction != entities.StateKept {
		t.Errorf("a refused command has reply %v and state action %d", out.Reply, out.StateAction)
	}
}

func TestForwardHasItsTarget(t *testing.T) {
	e := open(t, newFunction(t, probeCounter(&seen{})), counterService, nil)
	out, err := e.Handle(t.Context(), increment(t, -2))
	if err != nil {
		t.Fatal(err)
	}
	if out.Forward == nil || out.Forward.Method != "Get" || out.Reply != nil {
		t.Errorf("forward %+v, reply %v, want a forward to Get alone", out.Forward, out.Reply)
	}
}

func TestCrashIsAnError(t *testing.T) {
	e := open(t, newFunction(t, probeCounter(&seen{})), counterService, nil)
	_, err := e.Handle(t.Context(), increment(t, -3))
	if crash, ok := errors.AsType[*sdk.CrashError](err); !ok || crash.Entity != "counter/42" {
		t.Errorf("error %v, want a crash of counter/42", err)
	}
}

func TestDeletionHasNoState(t *testing.T) {
	stored := payload(t, &counterv1.State{Value: 40})
	e := open(t, newFunction(t, probeCounter(&seen{})), counterService, &stored)
	out, err := e.Handle(t.Context(), increment(t, -4))
	if err != nil {
		t.Fatal(err)
	}
	if out.StateAction != entities.StateDeleted || out.Reply != nil {
		t.Errorf("state action %d, reply %v, want a deletion without a reply", out.StateAction, out.Reply)
	}
}

// An event-sourced entity is driven as the host drives it: events, then events on top of a
// snapshot.
func TestEventSourcedEntity(t *testing.T) {
	f := newFunction(t, cart.Service)
	e := open(t, f, cartService, nil)
	out, err := e.Handle(t.Context(),
		invocation(t, cartService, "AddItem", &shopv1.AddItemRequest{CartId: "42", ItemId: "apple", Quantity: 3}))
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Events) != 1 || out.Events[0].TypeURL != "type.googleapis.com/shop.v1.ItemAdded" {
		t.Fatalf("events %v, want one ItemAdded", out.Events)
	}

	again, err := f.OpenEntity(cartService, "42")
	if err != nil {
		t.Fatal(err)
	}
	snapshot := payload(t, &shopv1.CartSnapshot{Items: []*shopv1.Item{{ItemId: "pear", Quantity: 1}}})
	if err := again.Load(&snapshot, 7); err != nil {
		t.Fatal(err)
	}
	if err := again.Apply(entities.Event{Sequence: 8, Payload: out.Events[0]}); err != nil {
		t.Fatal(err)
	}
	out, err = again.Handle(t.Context(), invocation(t, cartService, "GetCart", &shopv1.GetCartRequest{CartId: "42"}))
	if err != nil {
		t.Fatal(err)
	}
	var items []string
	for _, item := range decoded(t, out.Reply.Payload, &shopv1.Cart{}).GetItems() {
		items = append(items, item.GetItemId())
	}
	if !slices.Equal(items, []string{"apple", "pear"}) {
		t.Errorf("the cart has %v, want apple and pear", items)
	}
}

func TestUnaryAction(t *testing.T) {
	f := newFunction(t, pricing.Service)
	out, err := f.Act(t.Context(),
		invocation(t, pricingService, "Quote", &pricingv1.QuoteRequest{ItemId: "apple", Quantity: 2}))
	if err != nil {
		t.Fatal(err)
	}
	if got := decoded(t, out.Reply.Payload, &pricingv1.QuoteResponse{}).GetPrice().GetQuantity(); got != 2 {
		t.Errorf("quoted for %d pieces, want 2", got)
	}
}

func TestStreamedAction(t *testing.T) {
	f := newFunction(t, pricing.Service)
	left := []proto.Message{
		&pricingv1.RunningTotalRequest{Item: &pricingv1.Item{ItemId: "apple", Quantity: 1}},
		&pricingv1.RunningTotalRequest{Item: &pricingv1.Item{ItemId: "apple", Quantity: 1}},
	}
	s := &entities.Stream{
		Command: &entities.Command{Service: pricingService, Method: "RunningTotal"}, Time: now, ClientStreams: true,
		ServerStreams: true,
		Recv: func(context.Context) (entities.Payload, error) {
			if len(left) == 0 {
				return entities.Payload{}, io.EOF
			}
			next := payload(t, left[0])
			left = left[1:]
			return next, nil
		},
	}
	var totals []int64
	err := f.ActStream(t.Context(), s, func(_ context.Context, out *entities.Outcome) error {
		if out.Reply != nil {
			totals = append(totals, decoded(t, out.Reply.Payload, &pricingv1.RunningTotalResponse{}).GetCents())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(totals) != 2 || totals[1] != 2*totals[0] {
		t.Errorf("running totals %v, want two, the second twice the first", totals)
	}
}

func TestReceiversErrorEndsAStream(t *testing.T) {
	f := newFunction(t, pricing.Service)
	gone := errors.New("the caller is gone")
	s := &entities.Stream{
		Command: &entities.Command{
			Service: pricingService, Method: "QuoteTiers", Payload: payload(t, &pricingv1.QuoteTiersRequest{ItemId: "apple"}),
		},
		Time: now, ServerStreams: true,
	}
	sent := 0
	err := f.ActStream(t.Context(), s, func(context.Context, *entities.Outcome) error {
		sent++
		return gone
	})
	if !errors.Is(err, gone) || sent != 1 {
		t.Errorf("ended with %v after %d elements, want %v after 1", err, sent, gone)
	}
}

func TestUnknownServices(t *testing.T) {
	f := newFunction(t, cart.Service)
	inv := invocation(t, pricingService, "Quote", &pricingv1.QuoteRequest{})
	_, opening := f.OpenEntity(counterService, "42")
	_, acting := f.Act(t.Context(), inv)
	streaming := f.ActStream(t.Context(), &entities.Stream{Command: inv.Command}, nil)
	for what, err := range map[string]error{counterService: opening, pricingService: errors.Join(acting, streaming)} {
		if err == nil || !strings.Contains(err.Error(), "service "+what+" is not part of this program") {
			t.Errorf("error %v, want one that names %s", err, what)
		}
	}
	if acting == nil || streaming == nil {
		t.Error("a call of an unknown service succeeded")
	}
}

func TestWhatIsWrongWithServicesIsToldAtOnce(t *testing.T) {
	_, err := inprocess.New(sdk.Value[*counterv1.State]("counter"), nil)
	for _, want := range []string{"service 2 of 2 is nil", `"counter"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that says %s", err, want)
		}
	}
	if _, err := inprocess.New(); err == nil {
		t.Error("no services were accepted")
	}
}

func TestSpecIsWhatDiscoveryAnswers(t *testing.T) {
	spec := newFunction(t, cart.Service, pricing.Service).Spec()
	var names []string
	for _, e := range spec.GetEntities() {
		names = append(names, e.GetServiceName())
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{pricingService, cartService}) {
		t.Errorf("the spec has %v, want both services", names)
	}
}

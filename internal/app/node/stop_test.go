package node

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/host"
	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	pricingv1 "github.com/millrace-io/millrace/examples/pricing/pricing/v1"
	"github.com/millrace-io/millrace/sdk"
)

// hanging is a function of this process that hangs, and ignores its context, until the test opens
// it: in commands to the counter "hang", when "open" is opened, in timers, and in actions.
type hanging struct {
	host.Local
	// entered has room for each hanging call; within counts them.
	entered, open chan struct{}
	within        *sync.WaitGroup
}

func newHanging(t *testing.T) hanging {
	t.Helper()
	h := hanging{
		Local: local(t, "counter pricing"), entered: make(chan struct{}, 16), open: make(chan struct{}),
		within: &sync.WaitGroup{},
	}
	t.Cleanup(func() {
		close(h.open)
		h.within.Wait()
	})
	return h
}

func (h hanging) hang() {
	h.within.Add(1)
	defer h.within.Done()
	h.entered <- struct{}{}
	<-h.open
}

// OpenEntity hangs for the entity "open".
func (h hanging) OpenEntity(service, id string) (host.LocalEntity, error) {
	if id == "open" {
		h.hang()
	}
	e, err := h.Local.OpenEntity(service, id)
	return hangingEntity{e, h, id}, err
}

// Act hangs.
func (h hanging) Act(ctx context.Context, inv entities.Invocation) (*entities.Outcome, error) {
	h.hang()
	return h.Local.Act(ctx, inv)
}

// ActStream hangs.
func (h hanging) ActStream(ctx context.Context, s *entities.Stream,
	on func(context.Context, *entities.Outcome) error,
) error {
	h.hang()
	return h.Local.ActStream(ctx, s, on)
}

type hangingEntity struct {
	host.LocalEntity
	function hanging
	id       string
}

// Handle hangs for "hang" and for timers; "timer" sets one that is due, and "effect" causes a
// command to "hang".
func (e hangingEntity) Handle(ctx context.Context, inv entities.Invocation) (*entities.Outcome, error) {
	if e.id == "hang" || inv.Timer != nil {
		e.function.hang()
	}
	out, err := e.LocalEntity.Handle(ctx, inv)
	if err != nil {
		return nil, err
	}
	target := entities.Target{Service: inv.Service, Method: inv.Method, Payload: inv.Payload}
	switch e.id {
	case "timer":
		out.Timers = []entities.TimerChange{{Name: "now", Target: target}}
	case "effect":
		target.Payload.Value, err = proto.Marshal(&counterv1.IncrementRequest{CounterId: "hang"})
		out.Effects = []entities.SideEffect{{Target: target}}
	}
	return out, err
}

// stopBound is how much longer than drain-timeout the end of a worker may take when its function
// hangs, with room for a busy machine.
const stopBound = 20 * time.Second

// TestAStopEndsWhateverTheFunctionDoes: a function in this process cannot be ended, and does not
// keep its worker.
func TestAStopEndsWhateverTheFunctionDoes(t *testing.T) {
	call := func(id string) func(*testing.T, *Node) {
		return func(t *testing.T, n *Node) {
			_, _ = counterv1.NewCounterServiceClient(dial(t, n.PublicAddress())).Increment(t.Context(),
				&counterv1.IncrementRequest{CounterId: id})
		}
	}
	for name, run := range map[string]func(*testing.T, *Node){
		"in a command":             call("hang"),
		"when an entity is opened": call("open"),
		"in a timer":               call("timer"),
		"in an effect":             call("effect"),
		"in a command over HTTP": func(t *testing.T, n *Node) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+n.PublicAddress()+"/counter.v1.CounterService/Increment", strings.NewReader(`{"counterId":"hang"}`))
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Content-Type", "application/json")
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			if res, err := client.Do(req); err == nil {
				_ = res.Body.Close()
				t.Errorf("the call was answered with %s", res.Status)
			}
		},
		"in an action": func(t *testing.T, n *Node) {
			_, _ = pricingv1.NewPricingServiceClient(dial(t, n.PublicAddress())).Quote(t.Context(), &pricingv1.QuoteRequest{})
		},
		"in a stream": func(t *testing.T, n *Node) {
			stream, err := pricingv1.NewPricingServiceClient(dial(t, n.PublicAddress())).RunningTotal(t.Context())
			if err == nil {
				_, _ = stream.Recv()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			function := newHanging(t)
			c := testConfig(t)
			c.DrainTimeout = 50 * time.Millisecond
			n := started(t, Options{Config: c, Local: function})
			var calling sync.WaitGroup
			calling.Go(func() { run(t, n) })
			receive(t, "the call to hang", function.entered)
			stopped(t, n)
			calling.Wait()
		})
	}
}

// stopped stops a node, and fails when that takes too long.
func stopped(t *testing.T, n *Node) {
	t.Helper()
	n.Stop()
	ended := make(chan error, 1)
	go func() { ended <- n.Wait() }() // received below
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the end of the node: %v", err)
		}
	case <-time.After(stopBound):
		t.Errorf("the node has not ended %v after its stop", stopBound)
	}
}

// A remote function that hangs is cut off when the partitions are released, long before
// handle-timeout.
func TestAStopEndsWhenARemoteFunctionHangs(t *testing.T) {
	entered, open := make(chan struct{}, 1), make(chan struct{})
	c := testConfig(t)
	c.Function, c.DrainTimeout, c.FunctionTimeout = freeAddress(t), 50*time.Millisecond, time.Hour
	serveRemote(t, c.Function, sdk.Value("counter",
		sdk.HandleValue(counterv1.CounterService_Increment_FullMethodName,
			func(*sdk.ValueCommand[*counterv1.State], *counterv1.IncrementRequest) (*counterv1.Counter, error) {
				entered <- struct{}{}
				<-open
				return nil, nil
			}),
		sdk.HandleValue(counterv1.CounterService_Get_FullMethodName,
			func(*sdk.ValueCommand[*counterv1.State], *counterv1.GetRequest) (*counterv1.Counter, error) {
				return nil, nil
			}),
	))
	n := started(t, Options{Config: c})
	t.Cleanup(func() { close(open) })
	var calling sync.WaitGroup
	calling.Go(func() {
		_, _ = counterv1.NewCounterServiceClient(dial(t, n.PublicAddress())).Increment(t.Context(),
			&counterv1.IncrementRequest{CounterId: "a"})
	})
	receive(t, "the call to hang", entered)
	stopped(t, n)
	calling.Wait()
}

// A caller that keeps a stream open to a function that goes on with it is cut off, too.
func TestAStopEndsAStreamThatIsKeptOpen(t *testing.T) {
	c := testConfig(t)
	c.DrainTimeout = 50 * time.Millisecond
	n := started(t, Options{Config: c, Local: local(t, "pricing")})
	stream, err := pricingv1.NewPricingServiceClient(dial(t, n.PublicAddress())).RunningTotal(t.Context())
	if err == nil {
		err = stream.Send(&pricingv1.RunningTotalRequest{Item: &pricingv1.Item{ItemId: "apple"}})
	}
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	stopped(t, n)
	if _, err := stream.Recv(); err == nil {
		t.Error("the stream goes on")
	}
}

// The owner hangs in a command that another worker has sent. It ends; its caller is answered by the
// next owner, and the command took effect once.
func TestAStopEndsWhenACommandOfAnotherWorkerHangs(t *testing.T) {
	a := newApp(t, 1)
	gate := newGate(t)
	c := a.config()
	c.Worker, c.DrainTimeout = "hangs", 50*time.Millisecond
	n := launch(t, Options{Config: c, Local: gate, Log: a.world.Client(c.Worker)})
	t.Cleanup(func() { close(gate.open) })
	a.workers = append(a.workers, n)
	a.balanced()
	owned := n.routes.Current().Owned(c.Worker)
	id := ""
	for i := 0; id == "" || !slices.Contains(owned, entities.Partition(id, 4)); i++ {
		id = fmt.Sprint("c", i)
	}
	type answer struct {
		value int64
		err   error
	}
	answered := make(chan answer, 1)
	go func() { // ends with the call; received below
		value, err := a.increment(a.workers[0].PublicAddress(), id)
		answered <- answer{value, err}
	}()
	receive(t, "the command to hang", gate.entered)
	stopped(t, n)
	if got := receive(t, "the answer", answered); got.err != nil || got.value != 1 {
		t.Errorf("the caller got %d, %v", got.value, got.err)
	}
	if got, err := a.increment(a.workers[0].PublicAddress(), id); err != nil || got != 2 {
		t.Errorf("one more: %d, %v", got, err)
	}
}

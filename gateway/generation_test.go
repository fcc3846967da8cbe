package gateway_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/gateway"
	"github.com/millrace-io/millrace/internal/clock/clocktest"
	"github.com/millrace-io/millrace/internal/settings"
)

func (w *world) plainCall(ctx context.Context, cc *grpc.ClientConn, path string, opts ...grpc.CallOption) error {
	return cc.Invoke(ctx, path, w.message("CartRequest", `{"cartId":"1"}`),
		dynamicpb.NewMessage(w.messageType("Cart")), opts...)
}

const plainPath = "/shop.v1.CartService/Plain"

// Calls that come before discovery wait for it, by every door, and then run.
func TestCallsWaitForDiscovery(t *testing.T) {
	w := newEmptyWorld(t, &dispatcher{stream: echoStream},
		func(o *gateway.Options) { o.Clock = clocktest.NewManual(time.Unix(0, 0)) })
	w.always(w.reply("Cart", `{"cartId":"1"}`))
	cc := w.dial()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := w.plainCall(t.Context(), cc, plainPath); err != nil {
			t.Errorf("native: %v", err)
		}
	})
	wg.Go(func() {
		if got, err := w.tryHTTP("POST", plainPath, `{"cartId":"1"}`, jsonType, jsonValue); err != nil || got.status != 200 {
			t.Errorf("plain: %v %v", got, err)
		}
	})
	wg.Go(func() {
		if got, err := w.tryHTTP("POST", plainPath, "\x0a\x011", jsonType, "application/proto"); err != nil ||
			got.status != 200 {
			t.Errorf("Connect: %v %v", got, err)
		}
	})
	wg.Go(func() {
		stream, err := cc.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, "/shop.v1.StreamService/Out")
		if err == nil {
			if err = stream.SendMsg(w.message("Line", `{"text":"a"}`)); err == nil {
				err = stream.RecvMsg(dynamicpb.NewMessage(w.messageType("Line")))
			}
		}
		if err != nil {
			t.Errorf("stream: %v", err)
		}
	})
	eventually(t, "all wait", func() bool { return w.server.Stats().WaitingCalls == 4 })
	if err := w.server.SetCatalog(w.catalog); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if n := w.server.Stats().WaitingCalls; n != 0 {
		t.Errorf("%d still wait", n)
	}
}

// The wait is bounded in time and in count.
func TestWaitForDiscoveryIsBounded(t *testing.T) {
	manual := clocktest.NewManual(time.Unix(0, 0))
	w := newEmptyWorld(t, &dispatcher{}, func(o *gateway.Options) { o.Clock, o.MaxEarly = manual, 1 })
	cc := w.dial()
	first := make(chan error, 1)
	go func() { first <- w.plainCall(t.Context(), cc, plainPath) }() // the clock ends it
	eventually(t, "one waits", func() bool { return w.server.Stats().WaitingCalls == 1 && manual.Waiting() == 1 })
	if err := w.plainCall(t.Context(), cc, plainPath); status.Code(err) != codes.Unavailable ||
		!strings.Contains(err.Error(), "too many") {
		t.Errorf("second: %v", err)
	}
	for header, outcome := range map[string]string{
		"": "not_applied", "Millrace-Command-Id": "unknown", "Idempotency-Key": "unknown",
	} {
		headers := []string{jsonType, jsonValue}
		if header != "" {
			headers = append(headers, header, "X") // what became of an earlier attempt under this id is not known here
		}
		got := w.http("POST", plainPath, `{}`, headers...)
		if got.status != 503 || !strings.Contains(got.body, "function not discovered yet") ||
			got.header.Get("millrace-outcome") != outcome {
			t.Errorf("plain, with %q: %v", header, got)
		}
	}
	var trailer metadata.MD
	withID := metadata.AppendToOutgoingContext(t.Context(), "millrace-command-id", "X")
	if err := w.plainCall(withID, cc, plainPath, grpc.Trailer(&trailer)); err == nil ||
		!slices.Equal(trailer.Get("millrace-outcome"), []string{"unknown"}) {
		t.Errorf("with an id: %v, %v", err, trailer)
	}
	manual.Advance(functionWait)
	if err := <-first; status.Code(err) != codes.Unavailable ||
		!strings.Contains(err.Error(), "function not discovered yet") {
		t.Errorf("first: %v", err)
	}
}

// TestDeadlinesEndTheWaitForDiscovery: by every protocol, and call-timeout for a caller that has no
// deadline. Nothing ran, and the error says so.
func TestDeadlinesEndTheWaitForDiscovery(t *testing.T) {
	manual := clocktest.NewManual(time.Unix(0, 0)) // function-wait never ends by itself
	w := newEmptyWorld(t, &dispatcher{}, func(o *gateway.Options) { o.Clock, o.CallTimeout = manual, time.Second })
	web, body := frame(0, "\x0a\x011"), `{"cartId":"1"}`
	for what, tc := range map[string]struct {
		body    string
		headers []string
		want    string
	}{
		"plain": {body, []string{jsonType, jsonValue, "X-Server-Timeout", "0.03"}, "504"},
		"plain, with an id": {
			body, []string{jsonType, jsonValue, "X-Server-Timeout", "0.03", "Idempotency-Key", "X"}, "504",
		},
		"Connect":          {body, []string{jsonType, jsonValue, "Connect-Protocol-Version", "1", "Connect-Timeout-Ms", "30"}, "504"},
		"gRPC-Web":         {web, []string{jsonType, "application/grpc-web+proto", "Grpc-Timeout", "30m"}, "200"},
		"gRPC-Web, 10 us":  {web, []string{jsonType, "application/grpc-web+proto", "Grpc-Timeout", "10u"}, "200"},
		"a bad timeout":    {body, []string{jsonType, jsonValue, "X-Server-Timeout", "soon"}, "400"},
		"a bad timeout, C": {body, []string{jsonType, "application/proto", "Connect-Timeout-Ms", "soon"}, "400"},
	} {
		got := w.http("POST", plainPath, tc.body, tc.headers...)
		outcome := "not_applied"
		if strings.Contains(what, "id") {
			outcome = "unknown"
		}
		text := "the deadline passed before there was an answer, the function is not discovered yet"
		if tc.want == "400" {
			text = "soon"
		}
		said := got.header.Get("millrace-outcome") + got.header.Get("Trailer-Millrace-Outcome")
		if tc.want == "200" { // the status is in the body
			text, said = "grpc-status: 4\r\n", outcome
			if !strings.Contains(got.body, "millrace-outcome: not_applied\r\n") {
				t.Errorf("%s: %v", what, got)
			}
		}
		if strconv.Itoa(got.status) != tc.want || said != outcome || !strings.Contains(got.body, text) {
			t.Errorf("%s: %v", what, got)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := w.plainCall(ctx, w.dial(), plainPath); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("native: %v", err)
	}
	eventually(t, "no call waits", func() bool { return w.server.Stats().WaitingCalls == 0 })

	patient := make(chan answer, 1)
	go func() { patient <- w.http("POST", plainPath, body, jsonType, jsonValue) }() // the clock ends it
	eventually(t, "it waits", func() bool { return w.server.Stats().WaitingCalls == 1 && manual.Waiting() == 1 })
	manual.Advance(time.Second)
	if got := <-patient; got.status != 503 || got.header.Get("millrace-outcome") != "not_applied" {
		t.Errorf("call-timeout: %v", got)
	}
}

// After a change of the catalog, the next call of an open channel sees the new one, and a running
// call ends as it began.
func TestCatalogChanges(t *testing.T) {
	inside, leave := make(chan struct{}), make(chan struct{})
	w := newWorld(t, &dispatcher{}, nil)
	reply := w.reply("Cart", `{"cartId":"1"}`)
	w.fake.unary = func(_ context.Context, cmd *entities.Command) (*entities.Reply, error) {
		if cmd.Method == "Plain" {
			close(inside)
			<-leave
		}
		return reply, nil
	}
	cc := w.dial()
	running := make(chan error, 1)
	go func() { running <- w.plainCall(t.Context(), cc, plainPath) }() // leave ends it
	<-inside

	renamed := newCatalog(t, strings.ReplaceAll(shopFile, `name: "Checkout"`, `name: "CheckOut2"`))
	if err := w.server.SetCatalog(renamed); err != nil {
		t.Fatal(err)
	}
	if err := w.plainCall(t.Context(), cc, "/shop.v1.CartService/CheckOut2"); err != nil {
		t.Errorf("new method: %v", err)
	}
	if err := w.plainCall(t.Context(), cc, "/shop.v1.CartService/Checkout"); status.Code(err) != codes.Unimplemented {
		t.Errorf("old method: %v", err)
	}
	if got := w.http("POST", "/v1/carts/1:checkout", `{}`, jsonType, jsonValue); got.status != 200 {
		t.Errorf("plain: %v", got)
	}
	close(leave)
	if err := <-running; err != nil {
		t.Errorf("running call: %v", err)
	}
}

// Calls of a replaced catalog are aborted after RetireAfter.
func TestRetiredCallsAreCut(t *testing.T) {
	manual := clocktest.NewManual(time.Unix(0, 0))
	inside := make(chan struct{})
	fake := &dispatcher{unary: func(ctx context.Context, _ *entities.Command) (*entities.Reply, error) {
		close(inside)
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	w := newWorld(t, fake, func(o *gateway.Options) { o.Clock = manual })
	running := make(chan error, 1)
	cc := w.dial()
	go func() { running <- w.plainCall(t.Context(), cc, plainPath) }() // the clock ends it
	<-inside
	if err := w.server.SetCatalog(newCatalog(t, shopFile)); err != nil {
		t.Fatal(err)
	}
	manual.Advance(settings.Defaults[gateway.Options]().RetireAfter)
	if err := <-running; status.Code(err) != codes.Unavailable {
		t.Errorf("%v", err)
	}
}

// A catalog that cannot be served is refused, and the previous one stays.
func TestBadCatalogs(t *testing.T) {
	w := newWorld(t, &dispatcher{}, nil)
	w.always(w.reply("Cart", `{"cartId":"1"}`))
	for _, tc := range []struct{ name, file, want string }{
		{"same path twice", strings.ReplaceAll(shopFile, "/v1/carts/{cart_id}:checkout", "/v1/carts/{cart_id}/items"), "AddItem"},
		{
			"our own service", strings.NewReplacer(`package: "shop.v1"`, `package: "grpc.health.v1"`, "CartService", "Health", "shop.v1", "grpc.health.v1").Replace(shopFile),
			"grpc.health.v1.Health",
		},
	} {
		if tc.name == "our own service" {
			tc.file = strings.ReplaceAll(tc.file, `"CartService"`, `"Health"`)
		}
		err := w.server.SetCatalog(newCatalog(t, tc.file))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	if err := w.plainCall(t.Context(), w.dial(), plainPath); err != nil {
		t.Error(err)
	}
}

// The runtime's own services are not served at the port, and a service may have a dispatcher of its
// own.
func TestServicesOfTheRuntime(t *testing.T) {
	queries := &dispatcher{unary: func(context.Context, *entities.Command) (*entities.Reply, error) {
		return nil, entities.Errorf(entities.FunctionRefused, entities.Refused, "asked the other one")
	}}
	var own atomic.Bool
	w := newWorld(t, &dispatcher{}, func(o *gateway.Options) {
		o.DispatcherOf = func(service string) gateway.Dispatcher {
			if own.Load() && service == cartService {
				return queries
			}
			return nil
		}
	})
	w.always(w.reply("Cart", `{"cartId":"1"}`))
	cc := w.dial()
	if err := w.plainCall(t.Context(), cc, plainPath); err != nil {
		t.Error(err)
	}
	own.Store(true)
	if err := w.plainCall(t.Context(), cc, plainPath); err == nil ||
		!strings.Contains(err.Error(), "asked the other one") {
		t.Errorf("the service's own dispatcher: %v", err)
	}
	runtime := catalogOf(t, strings.ReplaceAll(shopFile, "shop.v1", "millrace.v1"), discovery.Options{Runtime: true})
	if err := w.server.SetCatalog(runtime); err != nil {
		t.Fatal(err)
	}
	if err := w.plainCall(t.Context(), w.dial(),
		"/millrace.v1.CartService/Checkout"); status.Code(err) != codes.Unimplemented {
		t.Errorf("a service of the runtime: %v", err)
	}
}

// Health follows discovery, for the server and for each service, and a watch sees the change.
func TestHealth(t *testing.T) {
	w := newEmptyWorld(t, &dispatcher{}, nil)
	cc := w.dial()
	client := healthpb.NewHealthClient(cc)
	check := func(service string) healthpb.HealthCheckResponse_ServingStatus {
		t.Helper()
		got, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		if status.Code(err) == codes.NotFound {
			return healthpb.HealthCheckResponse_SERVICE_UNKNOWN
		}
		if err != nil {
			t.Fatal(err)
		}
		return got.GetStatus()
	}
	if got := check(""); got != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("before: %v", got)
	}
	if got := check(cartService); got != healthpb.HealthCheckResponse_SERVICE_UNKNOWN {
		t.Errorf("before: %v", got)
	}
	watch, err := client.Watch(t.Context(), &healthpb.HealthCheckRequest{Service: cartService})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := watch.Recv(); err != nil || got.GetStatus() != healthpb.HealthCheckResponse_SERVICE_UNKNOWN {
		t.Errorf("watch: %v %v", got, err)
	}
	if err := w.server.SetCatalog(w.catalog); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = watch.Recv()
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the watch of a generation that leaves: %v", err)
	}
	for _, service := range []string{"", cartService, streamService} {
		if got := check(service); got != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%q after: %v", service, got)
		}
	}
	if got := w.http("POST", "/grpc.health.v1.Health/Check", `{}`, jsonType, jsonValue, "Connect-Protocol-Version",
		"1"); !strings.Contains(got.body, "SERVING") {
		t.Errorf("Connect: %d %s", got.status, got.body)
	}
}

// Shutdown lets running calls finish, by both servers, and refuses new connections.
func TestShutdownLetsCallsFinish(t *testing.T) {
	inside, leave := make(chan struct{}, 2), make(chan struct{})
	w := newWorld(t, &dispatcher{}, nil)
	reply := w.reply("Cart", `{"cartId":"1"}`)
	w.fake.unary = func(context.Context, *entities.Command) (*entities.Reply, error) {
		inside <- struct{}{}
		<-leave
		return reply, nil
	}
	cc := w.dial()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := w.plainCall(t.Context(), cc, plainPath); err != nil {
			t.Errorf("native: %v", err)
		}
	})
	wg.Go(func() {
		if got, err := w.tryHTTP("POST", plainPath, `{"cartId":"1"}`, jsonType, jsonValue); err != nil || got.status != 200 {
			t.Errorf("plain: %v %v", got, err)
		}
	})
	<-inside
	<-inside
	silent := w.wire() // a connection that is being sniffed must not hold anything up
	stopped := make(chan error, 1)
	go func() { stopped <- w.server.Shutdown(t.Context()) }() // leave ends it
	closed(t, silent)
	eventually(t, "no connection is accepted", func() bool {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", w.addr)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	close(leave)
	wg.Wait()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if err := w.server.Shutdown(t.Context()); err != nil {
		t.Errorf("second: %v", err)
	}
	if err := w.server.SetCatalog(w.catalog); err != nil {
		t.Errorf("catalog after the end: %v", err)
	}
}

// When its context ends, Shutdown aborts running calls and waits for the handlers.
func TestShutdownCuts(t *testing.T) {
	inside := make(chan struct{}, 3)
	var mu sync.Mutex
	ended := 0
	wait := func(ctx context.Context) error {
		inside <- struct{}{}
		<-ctx.Done()
		mu.Lock()
		defer mu.Unlock()
		ended++
		return ctx.Err()
	}
	fake := &dispatcher{
		unary:  func(ctx context.Context, _ *entities.Command) (*entities.Reply, error) { return nil, wait(ctx) },
		stream: func(ctx context.Context, _ *entities.Stream) error { return wait(ctx) },
	}
	w := newWorld(t, fake, nil)
	cc := w.dial()
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.plainCall(t.Context(), cc, plainPath) })
	wg.Go(func() { _, _ = w.tryHTTP("POST", plainPath, `{"cartId":"1"}`, jsonType, jsonValue) })
	wg.Go(func() {
		_, _ = w.tryHTTP("POST", "/shop.v1.StreamService/Out", envelope(""), jsonType, "application/connect+proto")
	})
	for range 3 {
		<-inside
	}
	why := errors.New("time is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := w.server.Shutdown(ctx); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if ended != 3 {
		t.Errorf("%d of 3 handlers had ended", ended)
	}
	wg.Wait()
}

// Handlers that ignore their context do not block Shutdown, which returns ErrHanging.
func TestShutdownLeavesWhatHangs(t *testing.T) {
	inside, open := make(chan struct{}, 2), make(chan struct{})
	fake := &dispatcher{unary: func(context.Context, *entities.Command) (*entities.Reply, error) {
		inside <- struct{}{}
		<-open
		return nil, errors.New("too late")
	}}
	w := newWorld(t, fake, nil)
	cc := w.dial()
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.plainCall(t.Context(), cc, plainPath) })
	wg.Go(func() { _, _ = w.tryHTTP("POST", plainPath, `{"cartId":"1"}`, jsonType, jsonValue) })
	for range 2 {
		<-inside
	}
	why := errors.New("time is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := w.server.Shutdown(ctx); !errors.Is(err, gateway.ErrHanging) || !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
	wg.Wait() // both callers were cut off, though their handlers have not ended
	close(open)
}

// The status of grpc.health.v1 follows SetReady, for the server and for its services, also those of
// a later catalog.
func TestSetReady(t *testing.T) {
	w := newWorld(t, &dispatcher{}, nil)
	health := healthpb.NewHealthClient(w.dial())
	want := func(status healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for _, service := range []string{"", "shop.v1.CartService"} {
			if got, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service}); err != nil ||
				got.GetStatus() != status {
				t.Errorf("%q: %v, %v, want %v", service, got.GetStatus(), err, status)
			}
		}
	}
	want(healthpb.HealthCheckResponse_SERVING)
	w.server.SetReady(false)
	want(healthpb.HealthCheckResponse_NOT_SERVING)
	if err := w.server.SetCatalog(newCatalog(t, shopFile)); err != nil {
		t.Fatal(err)
	}
	want(healthpb.HealthCheckResponse_NOT_SERVING)
	w.server.SetReady(true)
	want(healthpb.HealthCheckResponse_SERVING)
}

// A server that never served can be shut down, and Serve after Shutdown returns ErrClosed.
func TestShutdownBeforeServe(t *testing.T) {
	s := gateway.New(gateway.Options{Dispatcher: &dispatcher{}})
	if err := s.SetCatalog(newCatalog(t, shopFile)); err != nil {
		t.Fatal(err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	lis, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(lis); !errors.Is(err, gateway.ErrClosed) {
		t.Error(err)
	}
}

// A caller that leaves cancels its call, by every door.
func TestCallersLeave(t *testing.T) {
	inside, ended := make(chan struct{}), make(chan error)
	fake := &dispatcher{unary: func(ctx context.Context, _ *entities.Command) (*entities.Reply, error) {
		inside <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	}}
	w := newWorld(t, fake, nil)
	cc := w.dial()
	for name, call := range map[string]func(context.Context){
		"native": func(ctx context.Context) { _ = w.plainCall(ctx, cc, plainPath) },
		"plain": func(ctx context.Context) {
			r, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+w.addr+plainPath,
				strings.NewReader(`{"cartId":"1"}`))
			r.Header.Set(jsonType, jsonValue)
			if resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r); err == nil {
				_ = resp.Body.Close()
			}
		},
		"Connect": func(ctx context.Context) {
			r, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+w.addr+plainPath, strings.NewReader("\x0a\x011"))
			r.Header.Set(jsonType, "application/proto")
			if resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r); err == nil {
				_ = resp.Body.Close()
			}
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { call(ctx) })
		<-inside
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
		wg.Wait()
	}
}

// No call is lost while catalogs change under load.
func TestCatalogChangesUnderLoad(t *testing.T) {
	w := newWorld(t, &dispatcher{}, nil)
	w.always(w.reply("Cart", `{"cartId":"1"}`))
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 4 {
		cc := w.dial()
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				if i == 0 {
					if got, err := w.tryHTTP("POST", plainPath, `{"cartId":"1"}`, jsonType, jsonValue); err != nil ||
						got.status != 200 {
						t.Errorf("plain call %d: %v %v", n, got, err)
					}
				} else if err := w.plainCall(t.Context(), cc, plainPath); err != nil {
					t.Errorf("native call %d: %v", n, err)
				}
			}
		})
	}
	for range 10 {
		before := w.fake.count()
		eventually(t, "calls go on", func() bool { return w.fake.count() > before+20 })
		if err := w.server.SetCatalog(newCatalog(t, shopFile)); err != nil {
			t.Error(err)
		}
	}
	close(done)
	wg.Wait()
}

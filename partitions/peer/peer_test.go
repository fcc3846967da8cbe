package peer_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/partitions/peer"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

// eventually waits for a condition that another goroutine brings about.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for !is() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

func expect(t *testing.T, err error, reason entities.Reason, outcome entities.OutcomeClass) *entities.Error {
	t.Helper()
	e, ok := errors.AsType[*entities.Error](err)
	if !ok || e.Reason != reason || e.Outcome != outcome {
		t.Fatalf("error %#v (%v), want reason %d with outcome %v", err, err, reason, outcome)
	}
	return e
}

// full is a command with every field set that is sent.
func full() *entities.Command {
	cmd := command("42")
	cmd.Metadata = entities.Metadata{
		{Key: "x", Text: "1"}, {Key: "x", Text: ""}, {Key: "y-bin", Binary: []byte{0, 255}, IsBinary: true},
	}
	cmd.Principal, cmd.Consistency, cmd.Bound = "alice", entities.Bounded, 3*time.Second
	cmd.After = []entities.Position{{Partition: 3, Next: 1 << 33}, {Partition: 4}}
	cmd.TraceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	cmd.Source = &entities.Source{Generation: 3, Partition: 7, Offset: 1 << 40, Index: 9, Settled: 12}
	return cmd
}

func TestEveryFieldArrives(t *testing.T) {
	var got *entities.Command
	var hops int
	var left time.Duration
	reply := &entities.Reply{
		Payload:  entities.Payload{TypeURL: "type.googleapis.com/shop.v1.Cart", Value: []byte("cart")},
		Metadata: entities.Metadata{{Key: "a", Text: "b"}}, Token: "token",
	}
	w := &worker{dispatch: func(ctx context.Context, cmd *entities.Command, h int) (*entities.Reply, error) {
		got, hops = cmd, h
		if deadline, set := ctx.Deadline(); set {
			left = time.Until(deadline)
		}
		return reply, nil
	}}
	address := serve(t, w, peer.ServerOptions{})
	c := client(t, peer.ClientOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	answer, err := c.Dispatch(ctx, address, full(), 5)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(answer, reply) {
		t.Errorf("reply %+v, want %+v", answer, reply)
	}
	if want := full(); !reflect.DeepEqual(got, want) { //nolint:govet // the error of a timer is not sent, and nil here
		t.Errorf("command %+v, want %+v", got, want)
	}
	if hops != 5 || left > time.Minute || left < time.Minute-patience {
		t.Errorf("hops %d, %v left, want 5 and nearly a minute", hops, left)
	}
	reply = &entities.Reply{NoPayload: true}
	if answer, err := c.Dispatch(t.Context(), address, command("42"), 0); err != nil || !answer.NoPayload {
		t.Errorf("%+v, %v, want an answer without a message", answer, err)
	}
}

func TestErrorsComeBackAsTheyAre(t *testing.T) {
	var said error
	w := &worker{dispatch: func(context.Context, *entities.Command, int) (*entities.Reply, error) { return nil, said }}
	address := serve(t, w, peer.ServerOptions{})
	c := client(t, peer.ClientOptions{})
	for reason := entities.FunctionRefused; reason <= entities.Internal; reason++ {
		for outcome := entities.NotApplied; outcome <= entities.Unknown; outcome++ {
			want := &entities.Error{
				Reason: reason, Outcome: outcome, Code: uint32(reason), Message: fmt.Sprintf("no %d\xff", reason),
				RetryAfter: 3 * time.Nanosecond, Checked: reason%2 == 0,
			}
			said = want
			_, err := c.Dispatch(t.Context(), address, command("42"), 0)
			if got, _ := errors.AsType[*entities.Error](err); got == nil || *got != *want {
				t.Errorf("%#v, want %#v", got, want)
			}
		}
	}
	said = errors.New("boom")
	_, err := c.Dispatch(t.Context(), address, command("42"), 0)
	expect(t, err, entities.Internal, entities.Unknown)
	cmd := command("43") // the other worker finds key 42 in it
	_, err = c.Dispatch(t.Context(), address, cmd, 0)
	if e := expect(t, err, entities.Unavailable, entities.NotApplied); !strings.Contains(e.Message, "cart/43") ||
		!strings.Contains(e.Message, "cart/42") {
		t.Errorf("the message %q does not name both keys", e.Message)
	}
	cmd.Timer = &entities.TimerFiring{Name: "late"}
	_, err = c.Dispatch(t.Context(), address, cmd, 0)
	expect(t, err, entities.Internal, entities.NotApplied)
}

func TestCancellationAndDeadlineReachTheWorker(t *testing.T) {
	began, ended := make(chan struct{}, 1), make(chan error, 1)
	w := &worker{dispatch: func(ctx context.Context, _ *entities.Command, _ int) (*entities.Reply, error) {
		began <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	}}
	address := serve(t, w, peer.ServerOptions{})
	c := client(t, peer.ClientOptions{})

	ctx, cancel := context.WithCancel(t.Context())
	go func() { // ends at once when the command has begun
		<-began
		cancel()
	}()
	_, err := c.Dispatch(ctx, address, command("42"), 0)
	expect(t, err, entities.Cancelled, entities.Unknown)
	if err := receive(t, ended, "the cancellation over there"); !errors.Is(err, context.Canceled) {
		t.Errorf("over there the context ended with %v", err)
	}

	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = c.Dispatch(ctx, address, command("42"), 0)
	expect(t, err, entities.Deadline, entities.Unknown)
	receive(t, began, "the command to begin")
	if err := receive(t, ended, "the deadline over there"); err == nil {
		t.Error("over there the context did not end")
	}
	_, err = c.Dispatch(ctx, address, command("42"), 0)
	expect(t, err, entities.Deadline, entities.NotApplied)
	eventually(t, "the answers without a waiting caller", func() bool { return c.Stats().InFlight == 0 })
}

// blocking is a worker that answers after its release.
func blocking() (w *worker, began, release chan struct{}) {
	began, release = make(chan struct{}, 1<<16), make(chan struct{})
	return &worker{dispatch: func(ctx context.Context, cmd *entities.Command, _ int) (*entities.Reply, error) {
		began <- struct{}{}
		select {
		case <-release:
			return &entities.Reply{Payload: cmd.Payload}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}, began, release
}

// start dispatches n commands and returns where their errors come.
func start(t *testing.T, c *peer.Client, address string, n int) chan error {
	t.Helper()
	done := make(chan error, n)
	for range n {
		go func() { // ends with the command; the reader of done waits for it
			_, err := c.Dispatch(t.Context(), address, command("42"), 0)
			done <- err
		}()
	}
	return done
}

func TestFullLinkTurnsCommandsAway(t *testing.T) {
	w, began, release := blocking()
	address := serve(t, w, peer.ServerOptions{MaxInFlight: 3})
	c := client(t, peer.ClientOptions{MaxInFlight: 100})
	done := start(t, c, address, 3)
	for range 3 {
		receive(t, began, "a command to begin")
	}
	_, err := c.Dispatch(t.Context(), address, command("42"), 0)
	if e := expect(t, err, entities.Overloaded, entities.NotApplied); e.RetryAfter == 0 {
		t.Error("no hint when to come again")
	}
	close(release)
	for range 3 {
		if err := receive(t, done, "an answer"); err != nil {
			t.Error(err)
		}
	}
	if _, err := c.Dispatch(t.Context(), address, command("42"), 0); err != nil {
		t.Errorf("after there was room again: %v", err)
	}
}

func TestSizeLimits(t *testing.T) {
	w, began, release := blocking()
	address := serve(t, w, peer.ServerOptions{MaxFrameBytes: 1000, MaxInFlightBytes: 1500})
	c := client(t, peer.ClientOptions{})
	large := command("42")
	large.Payload.Value = make([]byte, 1000)
	_, err := c.Dispatch(t.Context(), address, large, 0)
	expect(t, err, entities.TooLarge, entities.NotApplied)
	large.Payload.Value = make([]byte, 700)
	done := make(chan error, 1)
	go func() { // ends when it is released; waited for below
		_, err := c.Dispatch(t.Context(), address, large, 0)
		done <- err
	}()
	receive(t, began, "the large command to begin")
	_, err = c.Dispatch(t.Context(), address, large, 0)
	expect(t, err, entities.Overloaded, entities.NotApplied)
	close(release)
	if err := receive(t, done, "the answer"); err != nil {
		t.Error(err)
	}
	w.dispatch = func(context.Context, *entities.Command, int) (*entities.Reply, error) {
		return &entities.Reply{Payload: entities.Payload{Value: make([]byte, 2000)}}, nil
	}
	_, err = c.Dispatch(t.Context(), address, command("42"), 0)
	expect(t, err, entities.TooLarge, entities.Unknown)
	w.dispatch = func(context.Context, *entities.Command, int) (*entities.Reply, error) {
		return nil, entities.Errorf(entities.FunctionRefused, entities.Refused, "%s", strings.Repeat("é", 1000))
	}
	_, err = c.Dispatch(t.Context(), address, command("42"), 0)
	expect(t, err, entities.FunctionRefused, entities.Refused)
	if n := c.Stats().LinksLost; n != 0 {
		t.Errorf("%d links lost over sizes, want none", n)
	}
}

func TestAnswerAboveTheClientsLimitEndsTheLink(t *testing.T) {
	w := &worker{dispatch: func(context.Context, *entities.Command, int) (*entities.Reply, error) {
		return &entities.Reply{Payload: entities.Payload{Value: make([]byte, 1<<20)}}, nil
	}}
	address := serve(t, w, peer.ServerOptions{})
	c := client(t, peer.ClientOptions{MaxFrameBytes: 1000})
	_, err := c.Dispatch(t.Context(), address, command("42"), 0)
	e := expect(t, err, entities.LostOutcome, entities.Unknown)
	if e.Cause == nil || !strings.Contains(e.Cause.Error(), "larger than max") {
		t.Errorf("cause %v, want one that names the size", e.Cause)
	}
}

func TestThousandsOfCommandsAtOnce(t *testing.T) {
	const callers, each = 2000, 5
	w := &worker{dispatch: func(_ context.Context, cmd *entities.Command, hops int) (*entities.Reply, error) {
		return &entities.Reply{Payload: cmd.Payload, Token: fmt.Sprint(hops)}, nil
	}}
	s, address := server(t, w, peer.ServerOptions{})
	c := client(t, peer.ClientOptions{})
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			for j := range each {
				cmd := command("42")
				cmd.Payload.Value = []byte(fmt.Sprintf("%d/%d/%s", i, j, strings.Repeat("x", (i*7+j)%3000)))
				reply, err := c.Dispatch(t.Context(), address, cmd, i)
				if err != nil {
					t.Error(err)
				} else if string(reply.Payload.Value) != string(cmd.Payload.Value) || reply.Token != fmt.Sprint(i) {
					t.Errorf("the answer to command %d/%d is another's", i, j)
				}
			}
		})
	}
	all.Wait()
	if out, in := c.Stats(), s.Stats(); out.Commands != callers*each || in.Commands != callers*each ||
		out.InFlight != 0 || out.Links != 1 || in.Links != 1 {
		t.Errorf("client %+v, server %+v: want %d commands on one link and none in flight", out, in, callers*each)
	}
}

// Commands are cancelled at every moment of their way. The counters must end at zero, and no caller
// may get another's answer.
func TestCancelStorm(t *testing.T) {
	w := &worker{}
	s, address := server(t, w, peer.ServerOptions{})
	c := client(t, peer.ClientOptions{})
	if _, err := c.Dispatch(t.Context(), address, command("42"), 0); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			for j := range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration((i*j)%700)*time.Microsecond)
				cmd := command("42")
				cmd.Payload.Value = []byte(strings.Repeat(fmt.Sprintf("%d/%d ", i, j), 200))
				reply, err := c.Dispatch(ctx, address, cmd, 0)
				cancel()
				if e, failed := errors.AsType[*entities.Error](err); failed && e.Reason != entities.Deadline &&
					e.Reason != entities.Overloaded {
					t.Errorf("%v, want deadlines, and a full link", err)
				}
				if err == nil && string(reply.Payload.Value) != string(cmd.Payload.Value) {
					t.Error("another's answer")
				}
			}
		})
	}
	all.Wait()
	eventually(t, "all answers", func() bool { return c.Stats().InFlight == 0 && s.Stats().InFlight == 0 })
	if n := c.Stats().LinksLost; n != 0 {
		t.Errorf("%d links lost, want none", n)
	}
}

func TestHelloToAnotherWorkerIsRefused(t *testing.T) {
	address := serve(t, &worker{}, peer.ServerOptions{})
	for name, test := range map[string]struct {
		me    peer.Identity
		watch peer.Peer
		names string
	}{
		"other app":         {me: peer.Identity{Layout: entities.LayoutOf("books", 4)}, watch: peer.Peer{Name: "b"}, names: `app "books"`},
		"other partitions":  {me: peer.Identity{Layout: entities.LayoutOf("shop", 8)}, watch: peer.Peer{Name: "b"}, names: "8 partitions"},
		"other generation":  {me: peer.Identity{Layout: entities.Layout{App: "shop", Generation: 2, Partitions: 4, Slots: entities.Slots, Hash: "murmur2"}}, watch: peer.Peer{Name: "b"}, names: "generation 2"},
		"other incarnation": {me: callerID, watch: peer.Peer{Name: "b", Incarnation: 0x99}, names: "incarnation 99"},
		"other worker":      {me: callerID, watch: peer.Peer{Name: "z"}, names: `worker "z"`},
	} {
		t.Run(name, func(t *testing.T) {
			lost := make(chan error, 1024)
			c := client(t, peer.ClientOptions{Identity: test.me, Hooks: peer.Hooks{
				Lost: func(_, _ string, err error) { lost <- err },
				Dead: func(string, string, uint64) { t.Error("a process that refuses is not dead") },
			}})
			test.watch.Address = address
			c.Watch(map[string]peer.Peer{"b": test.watch})
			err := receive(t, lost, "the refusal")
			if !strings.Contains(err.Error(), test.names) ||
				!strings.Contains(err.Error(), `this is worker "b", incarnation 16`) {
				t.Errorf("refusal %q does not name who is who", err)
			}
			_, err = c.Dispatch(t.Context(), address, command("42"), 0)
			expect(t, err, entities.Moved, entities.NotApplied)
			if p := c.Peers(); len(p) != 1 || p[0].LastError == nil {
				t.Errorf("status %+v does not say what is wrong", p)
			}
		})
	}
}

func TestShutdownAnswersWhatIsUnderWay(t *testing.T) {
	w, began, release := blocking()
	s, address := server(t, w, peer.ServerOptions{})
	client, d := watching(t, address)
	done := start(t, client, address, 10)
	for range 10 {
		receive(t, began, "a command to begin")
	}
	shut := make(chan error, 1)
	go func() { shut <- s.Shutdown(t.Context()) }() // waited for below
	eventually(t, "the leave message", func() bool { return client.Peers()[0].State == peer.Leaving })
	_, err := client.Dispatch(t.Context(), address, command("42"), 0)
	expect(t, err, entities.Moved, entities.NotApplied)
	close(release)
	for range 10 {
		if err := receive(t, done, "an answer"); err != nil {
			t.Errorf("a command that was under way: %v", err)
		}
	}
	if err := receive(t, shut, "the end of Shutdown"); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	eventually(t, "refused attempts", func() bool { return client.Stats().DialFailures > 2 })
	if len(d.dead) > 0 || client.Stats().LinksLost > 0 {
		t.Error("an orderly end was taken for a death")
	}
}

func TestShutdownCutsWhatTakesTooLong(t *testing.T) {
	w, began, _ := blocking()
	s, address := server(t, w, peer.ServerOptions{})
	c := client(t, peer.ClientOptions{})
	done := start(t, c, address, 1)
	receive(t, began, "the command to begin")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v, want its deadline", err)
	}
	expect(t, receive(t, done, "the command to end"), entities.LostOutcome, entities.Unknown)
}

func TestWatchKeepsOneConnectionToEach(t *testing.T) {
	w, began, release := blocking()
	s1, one := server(t, w, peer.ServerOptions{})
	s2, two := server(t, &worker{}, peer.ServerOptions{
		Identity: peer.Identity{Layout: entities.LayoutOf("shop", 4), Worker: "c", Incarnation: 33},
	})
	c := client(t, peer.ClientOptions{DisownTimeout: patience})
	first := peer.Peer{Name: "b", Address: one, Incarnation: 22}
	second := peer.Peer{Name: "c", Address: two, Incarnation: 33}
	done := start(t, c, one, 1) // before it is watched
	receive(t, began, "the command to begin")
	c.Watch(map[string]peer.Peer{"b": first, "c": second})
	eventually(t, "two links", func() bool { return c.Stats().Links == 2 && s2.Stats().Links == 1 })
	c.Watch(map[string]peer.Peer{"b": first, "c": second})
	c.Watch(map[string]peer.Peer{"c": second})
	if n := len(c.Peers()); n != 1 {
		t.Errorf("%d connections, want one", n)
	}
	close(release)
	if err := receive(t, done, "an answer on a connection that is not wanted any more"); err != nil {
		t.Error(err)
	}
	eventually(t, "the unwanted link to end", func() bool { return s1.Stats().Links == 0 && c.Stats().Links == 1 })
	if stats := c.Stats(); stats.LinksLost != 0 {
		t.Errorf("%d links lost, want none", stats.LinksLost)
	}
	c.Watch(nil)
	eventually(t, "no link", func() bool { return s2.Stats().Links == 0 && c.Stats().Links == 0 })
	if _, err := c.Dispatch(t.Context(), two, command("42"), 0); err != nil {
		t.Errorf("to a worker that is not watched: %v", err)
	}
}

// TestCommandsOfAFrozenWorkerAreGivenUp: a worker that does not answer is no longer a member. The
// present owner of its entities is asked again, and knows what took effect; for an action there is
// no owner to ask, so it goes on. Late answers do no harm.
func TestCommandsOfAFrozenWorkerAreGivenUp(t *testing.T) {
	w, began, release := blocking()
	_, frozen := server(t, w, peer.ServerOptions{})
	c := client(t, peer.ClientOptions{DisownTimeout: time.Millisecond, RetireTimeout: patience})
	c.Watch(map[string]peer.Peer{"b": {Name: "b", Address: frozen, Incarnation: 22}})
	commands := start(t, c, frozen, 3)
	action := make(chan error, 1)
	go func() { // received below
		cmd := command("42")
		cmd.Type = nil
		_, err := c.Dispatch(t.Context(), frozen, cmd, 0)
		action <- err
	}()
	for range 4 {
		receive(t, began, "the commands to begin")
	}
	c.Watch(nil)
	for range 3 {
		expect(t, receive(t, commands, "a command to be given up"), entities.LostOutcome, entities.Unknown)
	}
	close(release)
	if err := receive(t, action, "the action to end"); err != nil {
		t.Error(err)
	}
	eventually(t, "the link to end in order", func() bool { return c.Stats().Links == 0 })
	if n := c.Stats().LinksLost; n != 0 {
		t.Errorf("%d links lost, want none", n)
	}
}

// TestCallsKeepTheConnection: a call, or a streamed call, is answered on a connection that is no
// longer wanted; then the connection ends.
func TestCallsKeepTheConnection(t *testing.T) {
	began, release := make(chan struct{}, 2), make(chan struct{})
	wait := func() {
		began <- struct{}{}
		<-release
	}
	w := &worker{
		drain:  func(context.Context) error { wait(); return nil },
		stream: func(context.Context, *entities.Stream) error { wait(); return nil },
	}
	_, address := server(t, w, peer.ServerOptions{})
	c := client(t, peer.ClientOptions{RetireTimeout: patience})
	c.Watch(map[string]peer.Peer{"b": {Name: "b", Address: address, Incarnation: 22}})
	ended := make(chan error, 2)
	go func() { ended <- c.Drain(t.Context(), address, false) }() // received below
	go func() {                                                   // received below
		ended <- c.DispatchStream(t.Context(), address, &entities.Stream{Command: action("Watch"), ServerStreams: true})
	}()
	for range 2 {
		receive(t, began, "the calls to begin")
	}
	c.Watch(nil)
	for range 100 { // time in which it would have ended
		if _, err := c.Dispatch(t.Context(), address, command("42"), 0); err != nil {
			t.Fatal(err)
		}
	}
	c.Watch(nil)
	close(release)
	for range 2 {
		if err := receive(t, ended, "the calls to end"); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "the link to end in order", func() bool { return c.Stats().Links == 0 })
	if n := c.Stats().LinksLost; n != 0 {
		t.Errorf("%d links lost, want none", n)
	}
}

func TestQuestions(t *testing.T) {
	w := &worker{}
	s, address := server(t, w, peer.ServerOptions{})
	c := client(t, peer.ClientOptions{})
	if next, err := c.Position(t.Context(), address, 7); err != nil || next != 7000 {
		t.Errorf("Position: %d, %v", next, err)
	}
	_, err := c.Position(t.Context(), address, -1)
	expect(t, err, entities.Moved, entities.NotApplied)
	if page, err := c.Status(t.Context(), address); err != nil || page.GetWorker() != "b" {
		t.Errorf("Status: %v, %v", page, err)
	}
	if err := c.Drain(t.Context(), address, false); err != nil || w.drained != 1 {
		t.Errorf("Drain: %v, %d times", err, w.drained)
	}

	type told struct{ name, version string }
	specs, over := make(chan told, 8), make(chan error, 1)
	go func() { // ends with the server; waited for below
		over <- c.Spec(t.Context(), address, "v1", func(spec *cloudstate.EntitySpec, version string) error {
			specs <- told{spec.GetServiceInfo().GetServiceName(), version}
			return nil
		})
	}()
	w.setSpec("one", "v1") // known already: not sent
	w.setSpec("two", "v2")
	if got := receive(t, specs, "the spec"); got != (told{"two", "v2"}) {
		t.Errorf("spec %v", got)
	}
	w.setSpec("three", "v3")
	if got := receive(t, specs, "the changed spec"); got != (told{"three", "v3"}) {
		t.Errorf("spec %v", got)
	}
	enough := errors.New("enough")
	stop := func(*cloudstate.EntitySpec, string) error { return enough }
	if err := c.Spec(t.Context(), address, "", stop); !errors.Is(err, enough) {
		t.Errorf("Spec: %v, want what the function said", err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	// The worker's error, or the end of the connection, whichever comes first.
	if e := entities.AsError(receive(t, over, "the end of Spec")); e.Outcome != entities.NotApplied ||
		(e.Reason != entities.Unavailable && e.Reason != entities.Moved) {
		t.Errorf("Spec ended with %#v, want that the worker is stopping or cannot be reached", e)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	w, began, _ := blocking()
	address := serve(t, w, peer.ServerOptions{})
	c := client(t, peer.ClientOptions{})
	done := start(t, c, address, 1)
	receive(t, began, "the command to begin")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	expect(t, receive(t, done, "the command to end"), entities.LostOutcome, entities.Unknown)
	_, err := c.Dispatch(t.Context(), address, command("42"), 0)
	expect(t, err, entities.Moved, entities.NotApplied)
}

package peer_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/partitions/peer"
	peerv1 "github.com/millrace-io/millrace/proto/gen/millrace/peer/v1"
)

// This file tests peers that violate the protocol, and connections that break.

// strange is a server whose links do what the test chooses.
type strange struct {
	peerv1.UnimplementedPeerServiceServer
	link func(grpc.BidiStreamingServer[peerv1.LinkRequest, peerv1.LinkResponse]) error
}

func (s *strange) Link(stream grpc.BidiStreamingServer[peerv1.LinkRequest, peerv1.LinkResponse]) error {
	return s.link(stream)
}

func welcome() *peerv1.LinkResponse {
	return &peerv1.LinkResponse{Welcome: &peerv1.Welcome{
		Protocol: peer.Protocol, Layout: &peerv1.Layout{App: "shop", Generation: 1, Partitions: 4, Slots: 4096, Hash: "murmur2"}, Worker: "b", Incarnation: 22, MaxInFlight: 10, MaxInFlightBytes: 1 << 20, MaxFrameBytes: 1 << 20,
	}}
}

func startStrange(
	t *testing.T, link func(grpc.BidiStreamingServer[peerv1.LinkRequest, peerv1.LinkResponse]) error,
) string {
	t.Helper()
	s, l := grpc.NewServer(grpc.WaitForHandlers(true)), listen(t)
	peerv1.RegisterPeerServiceServer(s, &strange{link: link})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }() // Stop ends it, the cleanup waits for it
	t.Cleanup(func() {
		s.Stop()
		<-served
	})
	return l.Addr().String()
}

func TestStrangeServers(t *testing.T) {
	for name, test := range map[string]struct {
		opening []*peerv1.LinkResponse
		// answer is what the first command gets.
		answer *peerv1.LinkResponse
		reason entities.Reason
		why    string
	}{
		"no welcome":           {opening: []*peerv1.LinkResponse{{Stopping: true}}, reason: entities.Moved, why: "does not begin with a welcome"},
		"a limit of 0":         {opening: []*peerv1.LinkResponse{{Welcome: &peerv1.Welcome{Protocol: peer.Protocol, Layout: &peerv1.Layout{App: "shop", Generation: 1, Partitions: 4, Slots: 4096, Hash: "murmur2"}, Worker: "b", Incarnation: 22}}}, reason: entities.Moved, why: "limit of 0"},
		"another process":      {opening: []*peerv1.LinkResponse{{Welcome: &peerv1.Welcome{Protocol: peer.Protocol, Layout: &peerv1.Layout{App: "books"}}}}, reason: entities.Moved, why: `app "books"`},
		"a second welcome":     {opening: []*peerv1.LinkResponse{welcome()}, answer: welcome(), reason: entities.LostOutcome, why: "second welcome"},
		"an answer to no call": {opening: []*peerv1.LinkResponse{welcome()}, answer: &peerv1.LinkResponse{Answers: []*peerv1.Answer{{Id: 77}}}, reason: entities.LostOutcome, why: "call 77"},
		"an answer without id": {
			opening: []*peerv1.LinkResponse{welcome()}, answer: &peerv1.LinkResponse{Answers: []*peerv1.Answer{{Token: "t"}}},
			reason: entities.LostOutcome, why: "without an id",
		},
	} {
		t.Run(name, func(t *testing.T) {
			address := startStrange(t, func(stream grpc.BidiStreamingServer[peerv1.LinkRequest, peerv1.LinkResponse]) error {
				if _, err := stream.Recv(); err != nil {
					return err
				}
				for _, m := range test.opening {
					if err := stream.Send(m); err != nil {
						return err
					}
				}
				if _, err := stream.Recv(); err != nil {
					return err
				}
				if err := stream.Send(test.answer); err != nil {
					return err
				}
				<-stream.Context().Done()
				return nil
			})
			lost := make(chan error, 1024)
			c := client(t, peer.ClientOptions{Hooks: peer.Hooks{Lost: func(_, _ string, err error) { lost <- err }}})
			c.Watch(map[string]peer.Peer{"b": {Name: "b", Address: address, Incarnation: 22}})
			outcome := entities.NotApplied
			if test.reason == entities.LostOutcome {
				outcome = entities.Unknown
			}
			_, err := c.Dispatch(t.Context(), address, command("42"), 0)
			expect(t, err, test.reason, outcome)
			if err := receive(t, lost, "the end of the link"); err == nil || !strings.Contains(err.Error(), test.why) {
				t.Errorf("the link ended with %v, want %q", err, test.why)
			}
		})
	}
}

func TestStrangeClients(t *testing.T) {
	hello := &peerv1.Hello{
		Protocol: peer.Protocol,
		Layout:   &peerv1.Layout{App: "shop", Generation: 1, Partitions: 4, Slots: 4096, Hash: "murmur2"},
	}
	call := &peerv1.Call{Id: 1, Service: "shop.v1.CartService", Method: "AddItem", EntityType: "cart", EntityId: "42"}
	w, _, _ := blocking()
	s, address := server(t, w, peer.ServerOptions{MaxInFlight: 2})
	for name, test := range map[string]struct {
		messages []*peerv1.LinkRequest
		why      string
	}{
		"no hello":          {[]*peerv1.LinkRequest{{Calls: []*peerv1.Call{call}}}, "one hello, before everything else"},
		"nothing":           {[]*peerv1.LinkRequest{{}}, "does not begin with a hello"},
		"a call beside it":  {[]*peerv1.LinkRequest{{Hello: hello, Calls: []*peerv1.Call{call}}}, "before everything else"},
		"two hellos":        {[]*peerv1.LinkRequest{{Hello: hello}, {Hello: hello}}, "one hello"},
		"a call twice":      {[]*peerv1.LinkRequest{{Hello: hello}, {Calls: []*peerv1.Call{call, call}}}, "call 1 came twice"},
		"above the limit":   {[]*peerv1.LinkRequest{{Hello: hello}, {Calls: []*peerv1.Call{call, {Id: 2}, {Id: 3, Service: "x"}, {Id: 4}}}}, "above the limits"},
		"cancel without id": {[]*peerv1.LinkRequest{{Hello: hello}, {Cancels: []*peerv1.Cancel{{}}}}, "without an id"},
		"consistency":       {[]*peerv1.LinkRequest{{Hello: hello}, {Calls: []*peerv1.Call{{Id: 1, Consistency: 9}}}}, "consistency 9"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			stream, err := peerv1.NewPeerServiceClient(conn).Link(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range test.messages {
				if err := stream.Send(m); err != nil && !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
			}
			for err == nil {
				_, err = stream.Recv()
			}
			if !strings.Contains(err.Error(), test.why) {
				t.Errorf("the link ended with %v, want %q", err, test.why)
			}
		})
	}
	eventually(t, "the links to be gone, and their commands", func() bool {
		return s.Stats().Links == 0 && s.Stats().InFlight == 0
	})
}

func TestLinksAreBounded(t *testing.T) {
	s, address := server(t, &worker{}, peer.ServerOptions{MaxLinks: 1})
	first, second := client(t, peer.ClientOptions{}), client(t, peer.ClientOptions{MaxPeers: 1})
	if _, err := first.Dispatch(t.Context(), address, command("42"), 0); err != nil {
		t.Fatal(err)
	}
	_, err := second.Dispatch(t.Context(), address, command("42"), 0)
	if e := expect(t, err, entities.Moved, entities.NotApplied); !strings.Contains(e.Cause.Error(), "has 1 link, which is its limit") {
		t.Errorf("cause %v does not name the limit", e.Cause)
	}
	if n := s.Stats().Links; n != 1 {
		t.Errorf("%d links, want one", n)
	}
	second.Watch(map[string]peer.Peer{"b": {Name: "b", Address: address}})
	_, err = second.Dispatch(t.Context(), "127.0.0.1:1", command("42"), 0)
	expect(t, err, entities.Overloaded, entities.NotApplied)
}

// cut is a line between client and server that a test can cut while both go on.
type cut struct {
	address string
	mu      sync.Mutex
	conns   []net.Conn
}

func startCut(t *testing.T, to string) *cut {
	t.Helper()
	l := listen(t)
	c := &cut{address: l.Addr().String()}
	var all sync.WaitGroup
	all.Go(func() { // ends with the listener; the cleanup waits for all
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := new(net.Dialer).DialContext(context.WithoutCancel(t.Context()), "tcp", to)
			if err != nil {
				_ = near.Close()
				continue
			}
			c.mu.Lock()
			c.conns = append(c.conns, near, far)
			c.mu.Unlock()
			for from, to := range map[net.Conn]net.Conn{near: far, far: near} {
				all.Go(func() {
					_, _ = io.Copy(to, from)
					_ = to.Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		c.now()
		all.Wait()
	})
	return c
}

func (c *cut) now() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.conns = nil
}

func TestCutLineIsLostAndComesBack(t *testing.T) {
	ended := make(chan error, 1)
	began := make(chan struct{}, 1)
	w := &worker{dispatch: func(ctx context.Context, cmd *entities.Command, _ int) (*entities.Reply, error) {
		if cmd.Method != "Hang" {
			return &entities.Reply{Payload: cmd.Payload}, nil
		}
		began <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	}}
	line := startCut(t, serve(t, w, peer.ServerOptions{}))
	client, d := watching(t, line.address)
	hanging := make(chan error, 1)
	go func() { // ends with the line; waited for below
		cmd := command("42")
		cmd.Method = "Hang"
		_, err := client.Dispatch(t.Context(), line.address, cmd, 0)
		hanging <- err
	}()
	receive(t, began, "the command to begin")
	line.now()
	expect(t, receive(t, hanging, "the command to end"), entities.LostOutcome, entities.Unknown)
	if err := receive(t, ended, "the end of the command over there"); !errors.Is(err, context.Canceled) {
		t.Errorf("over there the context ended with %v", err)
	}
	receive(t, d.open, "the connection to be back")
	if _, err := client.Dispatch(t.Context(), line.address, command("42"), 0); err != nil {
		t.Errorf("after the cut: %v", err)
	}
	if len(d.dead) > 0 {
		t.Errorf("a process behind a cut line was called dead: %+v", <-d.dead)
	}
	if n := client.Stats().LinksLost; n != 1 {
		t.Errorf("%d links lost, want one", n)
	}
}

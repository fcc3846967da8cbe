package peer_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/partitions/peer"
)

// beChild is a worker in a separate process. It prints its address on a line, shuts down in order
// when its input ends, and otherwise waits to be killed. Commands with the method Hang are not
// answered.
func beChild() {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", os.Getenv(childEnv)) //nolint:forbidigo // a process has no t
	if err != nil {
		fmt.Println("cannot listen:", err) //nolint:forbidigo // to the parent
		os.Exit(1)
	}
	w := &worker{dispatch: func(ctx context.Context, cmd *entities.Command, _ int) (*entities.Reply, error) {
		if cmd.Method == "Hang" {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return &entities.Reply{Payload: cmd.Payload}, nil
	}}
	s := peer.NewServer(w, peer.ServerOptions{Identity: serverID})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	fmt.Println(l.Addr()) //nolint:forbidigo // to the parent
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
	ctx, cancel := context.WithTimeout(context.Background(), patience) //nolint:forbidigo // a process has no t
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		fmt.Println(err) //nolint:forbidigo // to the parent
		os.Exit(1)
	}
	if err := <-served; err != nil {
		os.Exit(1)
	}
}

// child is such a process.
type child struct {
	cmd     *exec.Cmd
	address string
	// end closes its input.
	end func()
}

func startChild(t *testing.T) *child {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=127.0.0.1:0")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: cmd, end: func() { _ = in.Close() }}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := fmt.Fscanln(out, &c.address); err != nil {
		t.Fatalf("the child did not say its address: %v", err)
	}
	return c
}

func (c *child) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// deaths collects the calls of the hooks.
type deaths struct {
	dead chan peer.Peer
	lost chan error
	open chan string
}

func watching(t *testing.T, address string) (*peer.Client, *deaths) {
	t.Helper()
	d := &deaths{dead: make(chan peer.Peer, 16), lost: make(chan error, 1024), open: make(chan string, 1024)}
	c := client(t, peer.ClientOptions{DialTimeout: peer.DefaultDialTimeout, Hooks: peer.Hooks{
		Dead: func(name, address string, incarnation uint64) {
			d.dead <- peer.Peer{Name: name, Address: address, Incarnation: incarnation}
		},
		Lost:      func(_, _ string, err error) { d.lost <- err },
		Connected: func(name, _ string) { d.open <- name },
	}})
	c.Watch(map[string]peer.Peer{"b": {Name: "b", Address: address, Incarnation: serverID.Incarnation}})
	if name := receive(t, d.open, "a connection"); name != "b" {
		t.Fatalf("connected with %q, want b", name)
	}
	return c, d
}

func receive[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("waited %v for %s", patience, what)
		panic("not reached")
	}
}

func TestKilledProcessIsDead(t *testing.T) {
	c := startChild(t)
	client, d := watching(t, c.address)
	hanging := make(chan error, 1)
	go func() { // ends with the child; waited for below
		cmd := command("42")
		cmd.Method = "Hang"
		_, err := client.Dispatch(t.Context(), c.address, cmd, 0)
		hanging <- err
	}()
	eventually(t, "the command to be under way", func() bool { return client.Stats().InFlight == 1 })
	c.signal(t, syscall.SIGKILL)
	want := peer.Peer{Name: "b", Address: c.address, Incarnation: serverID.Incarnation}
	if got := receive(t, d.dead, "the hook to be told of the death"); got != want {
		t.Errorf("dead: %+v, want %+v", got, want)
	}
	expect(t, receive(t, hanging, "the command to end"), entities.LostOutcome, entities.Unknown)
	// Many more attempts are refused, and the same death is not reported again.
	failures := client.Stats().DialFailures
	eventually(t, "five more attempts", func() bool { return client.Stats().DialFailures > failures+5 })
	if len(d.dead) > 0 {
		t.Errorf("told again of the same death: %+v", <-d.dead)
	}
	_, err := client.Dispatch(t.Context(), c.address, command("42"), 0)
	expect(t, err, entities.Moved, entities.NotApplied)
}

func TestStoppedProcessIsNotDead(t *testing.T) {
	c := startChild(t)
	client, d := watching(t, c.address)
	c.signal(t, syscall.SIGSTOP)
	err := unanswered(t, client, c.address, 2*time.Second)
	expect(t, err, entities.Deadline, entities.Unknown)
	c.signal(t, syscall.SIGCONT)
	if _, err := client.Dispatch(t.Context(), c.address, command("42"), 0); err != nil {
		t.Errorf("after the pause: %v", err)
	}
	if len(d.dead) > 0 || len(d.lost) > 0 {
		t.Errorf("a pause of 2 s: %d deaths, %d lost links, want none", len(d.dead), len(d.lost))
	}
}

// unanswered sends commands until one is not answered in time: a signal stops a process a moment
// after it was sent.
func unanswered(t *testing.T, c *peer.Client, address string, patience time.Duration) error {
	t.Helper()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_, err := c.Dispatch(ctx, address, command("42"), 0)
		cancel()
		if err != nil {
			return err
		}
	}
}

// TestBrokenLinkTellsSentFromUnsent stops a process until commands wait in this one, and kills it.
func TestBrokenLinkTellsSentFromUnsent(t *testing.T) {
	c := startChild(t)
	client, d := watching(t, c.address)
	c.signal(t, syscall.SIGSTOP)
	_ = unanswered(t, client, c.address, 100*time.Millisecond)
	const commands = 32 // of 1 MiB: more than the windows and the buffers of the system take
	large := command("42")
	large.Payload.Value = make([]byte, 1<<20)
	ended := make(chan error, commands)
	before := client.Stats().Commands
	for range commands {
		go func() { // ends with the child; waited for below
			_, err := client.Dispatch(t.Context(), c.address, large, 0)
			ended <- err
		}()
	}
	eventually(t, "the commands to be under way", func() bool { return client.Stats().Commands == before+commands })
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := client.Dispatch(ctx, c.address, large, 0)
	expect(t, err, entities.Deadline, entities.NotApplied)
	c.signal(t, syscall.SIGKILL)
	var sent, unsent int
	for range commands {
		e, _ := errors.AsType[*entities.Error](receive(t, ended, "a command to end"))
		switch {
		case e != nil && e.Reason == entities.LostOutcome && e.Outcome == entities.Unknown:
			sent++
		case e != nil && e.Reason == entities.Moved && e.Outcome == entities.NotApplied:
			unsent++
		default:
			t.Errorf("%v: want a lost outcome, or one that was not sent", e)
		}
	}
	if sent == 0 || unsent == 0 {
		t.Errorf("%d sent and %d not, want some of both", sent, unsent)
	}
	receive(t, d.dead, "the hook to be told of the death")
	eventually(t, "even accounts", func() bool { return client.Stats().InFlight == 0 })
}

func TestLongStoppedProcessIsLostAndNotDead(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 15 s")
	}
	t.Parallel()
	c := startChild(t)
	client, d := watching(t, c.address)
	c.signal(t, syscall.SIGSTOP)
	if err := receive(t, d.lost, "the link to be given up"); err == nil {
		t.Error("the link was lost without an error")
	}
	failures := client.Stats().DialFailures
	eventually(t, "an attempt against the stopped process", func() bool { return client.Stats().DialFailures > failures })
	c.signal(t, syscall.SIGCONT)
	receive(t, d.open, "the process to be back")
	if _, err := client.Dispatch(t.Context(), c.address, command("42"), 0); err != nil {
		t.Errorf("after the pause: %v", err)
	}
	if len(d.dead) > 0 {
		t.Errorf("a stopped process was called dead: %+v", <-d.dead)
	}
}

func TestProcessThatHasLeftIsNotDead(t *testing.T) {
	c := startChild(t)
	client, d := watching(t, c.address)
	c.end()
	if err := c.cmd.Wait(); err != nil {
		t.Fatalf("the child's orderly end: %v", err)
	}
	eventually(t, "refused attempts", func() bool { return client.Stats().DialFailures > 3 })
	if len(d.dead) > 0 {
		t.Errorf("a process that sent its leave message was reported dead: %+v", <-d.dead)
	}
	if n := client.Stats().LinksLost; n != 0 {
		t.Errorf("%d links lost, want none", n)
	}
}

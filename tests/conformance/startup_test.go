package conformance_test

import (
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/millrace-io/millrace/internal/app/node"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/eventsourced"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/valueentity"
	"github.com/millrace-io/millrace/tests/conformance/byhand"
	"github.com/millrace-io/millrace/tests/conformance/proto/esmodel"
	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kit"
)

// discoveredWithin is how soon after the function's port opened discovery must have come, as in
// Cloudstate's own tests.
const discoveredWithin = 3 * time.Second

// TestDiscoveryIsRetriedWhileThePortIsClosedAndComesOnce starts millrace first, waits until a
// connection has failed, and then opens the port.
func TestDiscoveryIsRetriedWhileThePortIsClosedAndComesOnce(t *testing.T) {
	f := functions()[0]
	address := kit.FreeAddress(t)
	n := startNode(t, address, nil)
	kit.Await(t, "a failed attempt to connect", func() bool {
		err := n.NotReady()
		return err != nil && strings.Contains(err.Error(), "refused")
	})
	s := &subject{function: f}
	s.intercept(t, address)
	opened := time.Now()
	s.next(t, cloudstate.EntityDiscovery_Discover_FullMethodName)
	if took := time.Since(opened); took > discoveredWithin {
		t.Errorf("discovery came %v after the port was opened, want at most %v", took, discoveredWithin)
	}
	harness.AwaitReady(t, n)
	s.public = n.Status(t.Context()).GetPublicAddress()
	s.connect(t)
	s.quiet(t)
	s.process(t, "entity-1", "")
	s.next(t, eventsourced.EventSourced_Handle_FullMethodName)
	s.quiet(t)
}

// TestStateOfAnEarlierRunIsGone uses the same ids in two ephemeral runs.
func TestStateOfAnEarlierRunIsGone(t *testing.T) {
	for range 2 {
		t.Run("run", func(t *testing.T) {
			s := newSubject(t, functions()[0], inProcess, nil)
			s.process(t, "entity-1", "A", emits("A")...)
			s.change(t, "entity-1", "")
			s.change(t, "entity-1", "A", updates("A")...)
		})
	}
}

// TestStoredStateComesBackBeforeTheNextCommand lets entities leave memory after 100 ms: a journal
// comes back as its last snapshot and the events after it, a value as itself.
func TestStoredStateComesBackBeforeTheNextCommand(t *testing.T) {
	for _, f := range functions() {
		t.Run(f.name, func(t *testing.T) {
			s := newSubject(t, f, inProcess, map[string]string{"passivate-after": "100ms"})
			t.Run("journal", func(t *testing.T) { journalComesBack(t, s) })
			t.Run("value", func(t *testing.T) { valueComesBack(t, s) })
		})
	}
}

func journalComesBack(t *testing.T, s *subject) {
	id := s.entity()
	s.process(t, id, "ABCDEF", emits("A", "B", "C", "D", "E", "F")...)
	x := s.next(t, eventsourced.EventSourced_Handle_FullMethodName)
	x.in(t, esInit(esService, id), esProcess(1, id, emits("A", "B", "C", "D", "E", "F")...))
	x.message(t, &x.Out)
	x.ends(t)

	// The snapshot has the number of the last event of its reply, not that of the event that made
	// it due.
	s.process(t, id, "ABCDEFG", emits("G")...)
	x = s.next(t, eventsourced.EventSourced_Handle_FullMethodName)
	x.in(t, esInitFrom(esService, id, 6, "ABCDEF"), esProcess(1, id, emits("G")...))
	x.message(t, &x.Out)
	x.ends(t)

	s.process(t, id, "ABCDEFG")
	x = s.next(t, eventsourced.EventSourced_Handle_FullMethodName)
	x.in(t, esInitFrom(esService, id, 6, "ABCDEF"), esEvent(7, "G"), esProcess(1, id))
	x.message(t, &x.Out)
	x.ends(t)
	s.quiet(t)
}

func valueComesBack(t *testing.T, s *subject) {
	id := s.entity()
	s.change(t, id, "A", updates("A")...)
	x := s.next(t, valueentity.ValueEntity_Handle_FullMethodName)
	x.in(t, veInit(veService, id), veProcess(1, id, updates("A")...))
	x.message(t, &x.Out)
	x.ends(t)

	s.change(t, id, "", deletes()...)
	x = s.next(t, valueentity.ValueEntity_Handle_FullMethodName)
	x.in(t, veInitWith(veService, id, "A"), veProcess(1, id, deletes()...))
	x.message(t, &x.Out)
	x.ends(t)

	s.change(t, id, "")
	x = s.next(t, valueentity.ValueEntity_Handle_FullMethodName)
	x.in(t, veInit(veService, id), veProcess(1, id))
	x.message(t, &x.Out)
	x.ends(t)
	s.quiet(t)
}

// TestPassivationWaitsForTheFunctionToEnd has a function that takes some time after the half-close,
// and must not be aborted.
func TestPassivationWaitsForTheFunctionToEnd(t *testing.T) {
	slow := &slowJournals{halfClosed: make(chan struct{}), release: make(chan struct{}), ended: make(chan error, 1)}
	s := newSubject(t, slow.function(), inProcess, nil)
	got, err := esmodel.NewEventSourcedConfiguredClient(s.conn).Call(t.Context(), &esmodel.Request{Id: "slow"})
	answered(t, got, err, &esmodel.Response{})
	kit.Receive(t, "the end of the session", slow.halfClosed)
	close(slow.release)
	if err := kit.Receive(t, "the session to be over", slow.ended); err != nil {
		t.Errorf("the stream was cut before the function ended it: %v", err)
	}
	x := s.next(t, eventsourced.EventSourced_Handle_FullMethodName)
	x.in(t, esInit(esConfigured, "slow"), esCommand(1, "slow", "Call", &esmodel.Request{Id: "slow"}))
	x.out(t, esReplied(1, ""))
	x.ends(t)
}

// slowJournals answers one command, signals when the proxy has half-closed, and ends when the test
// says so.
type slowJournals struct {
	eventsourced.UnimplementedEventSourcedServer
	halfClosed, release chan struct{}
	ended               chan error
}

func (j *slowJournals) function() function {
	return function{name: "slow", register: func(_ testing.TB, s *grpc.Server) {
		byhand.RegisterDiscovery(s)
		eventsourced.RegisterEventSourcedServer(s, j)
	}}
}

func (j *slowJournals) Handle(stream eventsourced.EventSourced_HandleServer) error {
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			close(j.halfClosed)
			<-j.release
			j.ended <- stream.Context().Err()
			return nil
		}
		if err != nil {
			return err
		}
		if c := in.GetCommand(); c != nil {
			if err := stream.Send(esReplied(c.GetId(), "")); err != nil {
				return err
			}
		}
	}
}

// TestQueuedCommandsKeepTheirOrderOverARestart holds a command that will ask for a restart until
// two more wait, and wants those two, in order, on the new stream.
func TestQueuedCommandsKeepTheirOrderOverARestart(t *testing.T) {
	held := &heldJournals{arrived: make(chan struct{}), release: make(chan struct{})}
	f := function{name: "held", restarts: true, register: func(_ testing.TB, s *grpc.Server) {
		byhand.RegisterDiscovery(s)
		eventsourced.RegisterEventSourcedServer(s, held)
	}}
	s := &subject{function: f}
	s.intercept(t, "127.0.0.1:0")
	n := startNode(t, s.trace.Addr(), nil)
	harness.AwaitReady(t, n)
	s.public = n.Status(t.Context()).GetPublicAddress()
	s.connect(t)
	s.next(t, cloudstate.EntityDiscovery_Discover_FullMethodName)

	client := esmodel.NewEventSourcedTckModelClient(s.conn)
	call := func(message string) <-chan error {
		ended := make(chan error, 1)
		go func() { // ends with the answer, which is received below
			_, err := client.Process(t.Context(),
				&esmodel.Request{Id: "held", Actions: []*esmodel.RequestAction{esFail(message)}})
			ended <- err
		}()
		return ended
	}
	calls := []<-chan error{call("1")}
	kit.Receive(t, "a command that is held", held.arrived)
	for _, message := range []string{"2", "3"} {
		calls = append(calls, call(message))
		kit.Await(t, "the command to wait in its partition", func() bool { return waiting(t, n) == int64(len(calls)) })
	}
	close(held.release)
	refused(t, kit.Receive(t, "the first answer", calls[0]), "again")
	for _, ended := range calls[1:] {
		if err := kit.Receive(t, "an answer", ended); err != nil {
			t.Errorf("a command that waited: %v", err)
		}
	}

	x := s.next(t, eventsourced.EventSourced_Handle_FullMethodName)
	x.in(t, esInit(esService, "held"), esProcess(1, "held", esFail("1")))
	x.out(t, esRefused(1, "again", true))
	x.ends(t)
	x = s.next(t, eventsourced.EventSourced_Handle_FullMethodName)
	x.in(t, esInit(esService, "held"), esProcess(1, "held", esFail("2")), esProcess(2, "held", esFail("3")))
	x.out(t, esReplied(1, ""), esReplied(2, ""))
	x.silent(t)
	s.quiet(t)
}

// heldJournals holds the first command of all and then asks for a restart; later ones it answers.
type heldJournals struct {
	eventsourced.UnimplementedEventSourcedServer
	once             sync.Once
	arrived, release chan struct{}
}

func (j *heldJournals) Handle(stream eventsourced.EventSourced_HandleServer) error {
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		c := in.GetCommand()
		if c == nil {
			continue
		}
		answer := esReplied(c.GetId(), "")
		j.once.Do(func() {
			close(j.arrived)
			<-j.release
			answer = esRefused(c.GetId(), "again", true)
		})
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
}

// waiting returns how many commands have been submitted and not answered.
func waiting(t *testing.T, n *node.Node) int64 {
	t.Helper()
	var sum int64
	for _, p := range n.Status(t.Context()).GetPartitions() {
		sum += p.GetWaitingCommands()
	}
	return sum
}

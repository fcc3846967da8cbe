package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities"
	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// app is several workers on one log in memory, in one process, with real connections between them.
type app struct {
	t       *testing.T
	world   *simlog.World
	workers []*Node
	logs    []broker.Log
	// endpoint takes spans; empty: there are none but of calls that ask for it.
	endpoint string
	// definitions is the directory that all workers apply; empty: none.
	definitions string
}

func newApp(t *testing.T, workers int) *app {
	t.Helper()
	a := &app{t: t, world: simlog.New(simlog.Options{})}
	for range workers {
		a.add()
	}
	a.balanced()
	return a
}

func (a *app) config() *Config {
	c := testConfig(a.t)
	c.Partitions = 4
	c.Ephemeral = true
	c.TraceEndpoint, c.TraceSample, c.Definitions = a.endpoint, 0, a.definitions
	return c
}

func (a *app) add() *Node {
	a.t.Helper()
	c := a.config()
	c.Worker = fmt.Sprintf("w%d", len(a.workers))
	client := a.world.Client(c.Worker)
	n := launch(a.t, Options{Config: c, Local: local(a.t, "counter"), Log: client})
	a.workers = append(a.workers, n)
	a.logs = append(a.logs, client)
	return n
}

// balanced waits until every worker serves, knows all others, and has its share.
func (a *app) balanced() {
	a.t.Helper()
	for _, n := range a.workers {
		eventually(a.t, n.identity.Worker+" to have its share", func() bool {
			t := n.routes.Current()
			if n.NotReady() != nil || t == nil || len(t.Members) != len(a.workers) {
				return false
			}
			owned := len(t.Owned(n.identity.Worker))
			return owned == 4/len(a.workers) || owned == (4+len(a.workers)-1)/len(a.workers)
		})
	}
}

func (a *app) increment(at string, id string, headers ...string) (int64, error) {
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(a.t.Context(), headers...), patience)
	defer cancel()
	res, err := counterv1.NewCounterServiceClient(dial(a.t, at)).Increment(ctx, &counterv1.IncrementRequest{CounterId: id})
	return res.GetValue(), err
}

// TestWorkersShareAnApp: the owner answers, once, whichever worker is asked.
func TestWorkersShareAnApp(t *testing.T) {
	a := newApp(t, 3)
	before := a.forwarded()
	for i := range 12 {
		id := fmt.Sprint("c", i)
		for want, n := range a.workers {
			if v, err := a.increment(n.PublicAddress(), id); err != nil || v != int64(want+1) {
				t.Fatalf("%s at %s: %d, %v; want %d", id, n.identity.Worker, v, err, want+1)
			}
		}
	}
	for _, id := range []string{"c0", "c1", "c2", "c3", "c4"} { // a caller that was told the owner gets no owner there
		told := map[string]int{}
		for _, n := range a.workers {
			var header metadata.MD
			if _, err := counterv1.NewCounterServiceClient(dial(t, n.PublicAddress())).Get(t.Context(),
				&counterv1.GetRequest{CounterId: id}, grpc.Header(&header)); err != nil {
				t.Fatal(err)
			}
			owner := strings.Join(header.Get("millrace-owner"), ",")
			told[owner]++
			if owned := n.routes.Current().Owned(n.identity.Worker); slices.Contains(owned,
				entities.Partition(id, 4)) != (owner == "") {
				t.Errorf("%s owns %v, and tells %q as the owner of %s", n.identity.Worker, owned, owner, id)
			}
		}
		if len(told) != 2 || told[""] != 1 {
			t.Errorf("callers of %s were told %v, want two of them the same owner", id, told)
		}
	}
	if n := a.forwarded() - before; n != 24+10 {
		t.Errorf("%d commands were forwarded, want two of three", n)
	}
}

// forwarded is how many commands the workers have sent to others.
func (a *app) forwarded() uint64 {
	sum := uint64(0)
	for _, n := range a.workers {
		sum += n.router.Counts().SentOn
	}
	return sum
}

// startGateway starts a gateway that ends with the test.
func startGateway(t *testing.T, a *app) *Gateway {
	t.Helper()
	g, err := StartGateway(context.WithoutCancel(t.Context()), Options{Config: a.config(), Log: a.world.Client("gateway")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	select {
	case <-g.Ready():
	case <-time.After(patience):
		t.Fatalf("not ready: %v", g.NotReady())
	}
	return g
}

// TestGatewayServesByWayOfWorkers: it learns from them what is served, and owns nothing.
func TestGatewayServesByWayOfWorkers(t *testing.T) {
	a := newApp(t, 2)
	g := startGateway(t, a)
	s := g.Status(t.Context())
	for want := int64(1); want < 9; want++ {
		if v, err := a.increment(s.GetPublicAddress(), "x"); err != nil || v != want {
			t.Fatalf("%d, %v; want %d", v, err, want)
		}
	}
	var header metadata.MD
	if _, err := counterv1.NewCounterServiceClient(dial(t, s.GetPublicAddress())).Get(t.Context(),
		&counterv1.GetRequest{CounterId: "x"}, grpc.Header(&header)); err != nil {
		t.Fatal(err)
	}
	owner, _ := g.routes.Current().Owner(entities.Partition("x", 4))
	if told := header.Get("millrace-owner"); len(told) != 1 || told[0] != owner.Public || owner.Public == "" {
		t.Errorf("the gateway tells the owner %q, it is %q", told, owner.Public)
	}
	if len(s.GetServices()) != 1 || s.GetCluster().GetMembers() != 2 || s.GetWorker() != "" {
		t.Errorf("status %v", s)
	}
	admin := adminv1.NewAdminServiceClient(dial(t, s.GetAdminAddress()))
	if _, err := admin.ListParked(t.Context(), &adminv1.ListParkedRequest{}); status.Code(err) != codes.Unimplemented ||
		!strings.Contains(err.Error(), "ask a worker") {
		t.Errorf("what is parked at a gateway: %v", err)
	}
	seen, err := admin.Cluster(t.Context(), &adminv1.ClusterRequest{})
	if err != nil || len(seen.GetMembers()) != 2 || len(seen.GetPartitions()) != 4 {
		t.Fatalf("cluster %v, %v", seen, err)
	}
	for _, m := range seen.GetMembers() {
		if m.GetStatus().GetWorker() != m.GetName() || m.GetError() != "" {
			t.Errorf("worker %s shows the page of %q: %s", m.GetName(), m.GetStatus().GetWorker(), m.GetError())
		}
	}
}

// TestDrainRefusesNoCaller: a worker hands everything over while callers are busy, and goes on
// serving.
func TestDrainRefusesNoCaller(t *testing.T) {
	a := newApp(t, 2)
	var stop atomic.Bool
	type tally struct {
		last int64
		err  error
	}
	done := make(chan tally, 8)
	for i := range cap(done) {
		go func() { // received below
			var sum tally
			for !stop.Load() && sum.err == nil {
				sum.last, sum.err = a.increment(a.workers[i%2].PublicAddress(), fmt.Sprint("c", i))
			}
			done <- sum
		}()
	}
	admin := adminv1.NewAdminServiceClient(dial(t, a.workers[1].AdminAddress()))
	_, err := admin.Drain(t.Context(), &adminv1.DrainRequest{Worker: a.workers[0].identity.Worker})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other worker to own everything", func() bool {
		owned, _ := a.workers[1].manager.Owned()
		return len(owned) == 4 && a.workers[1].NotReady() == nil
	})
	if v, err := a.increment(a.workers[0].PublicAddress(), "after"); err != nil || v != 1 {
		t.Errorf("the drained worker: %d, %v", v, err)
	}
	if err := a.workers[0].NotReady(); err == nil || !strings.Contains(err.Error(), "drained") {
		t.Errorf("a drained worker is ready: %v", err)
	}
	stop.Store(true)
	for range cap(done) {
		if sum := <-done; sum.err != nil || sum.last == 0 {
			t.Errorf("a caller got %d and then %v", sum.last, sum.err)
		}
	}
	if _, err := admin.Drain(t.Context(), &adminv1.DrainRequest{Worker: "absent"}); status.Code(err) != codes.NotFound {
		t.Errorf("draining a worker that is not there: %v", err)
	}
}

// TestFollowersServeReads: at_least shows the caller's own write wherever it is asked.
func TestFollowersServeReads(t *testing.T) {
	a := newApp(t, 2)
	eventually(t, "every partition to be followed", func() bool {
		followed := 0
		for _, n := range a.workers {
			for _, p := range n.manager.Partitions() {
				if s := p.Status(); s.Followed && s.Lag == 0 {
					followed++
				}
			}
		}
		return followed == 4
	})
	for i := range 20 {
		id := fmt.Sprint("c", i%4)
		var header metadata.MD
		client := counterv1.NewCounterServiceClient(dial(t, a.workers[0].PublicAddress()))
		res, err := client.Increment(t.Context(), &counterv1.IncrementRequest{CounterId: id}, grpc.Header(&header))
		if err != nil || len(header.Get("millrace-token")) != 1 {
			t.Fatal(err, header)
		}
		for _, n := range a.workers {
			ctx := metadata.AppendToOutgoingContext(t.Context(), "millrace-min-token", header.Get("millrace-token")[0])
			got, err := counterv1.NewCounterServiceClient(dial(t, n.PublicAddress())).Get(ctx,
				&counterv1.GetRequest{CounterId: id})
			if err != nil || got.GetValue() != res.GetValue() {
				t.Fatalf("%s at %s: %d, %v; want %d", id, n.identity.Worker, got.GetValue(), err, res.GetValue())
			}
		}
	}
	reads := uint64(0)
	for _, n := range a.workers {
		for _, p := range n.manager.Partitions() {
			reads += p.Counts().FollowerReads()
		}
	}
	if reads == 0 {
		t.Error("no follower has answered a read")
	}
	client := counterv1.NewCounterServiceClient(dial(t, a.workers[0].PublicAddress()))
	eventually(t, "both to show what they promised and measured", func() bool {
		for i := range 8 {
			ctx := metadata.AppendToOutgoingContext(t.Context(), "millrace-max-staleness", "30s")
			if _, err := client.Get(ctx, &counterv1.GetRequest{CounterId: fmt.Sprint("c", i)}); err != nil {
				t.Fatal(err)
			}
		}
		byFollower := stalenessOf(t, a.workers[0], "bounded", "follower")
		return stalenessOf(t, a.workers[0], "at_least", "follower") != nil && byFollower.GetRecentAnswers() > 0 &&
			byFollower.GetPromisedSeconds() == 30 && byFollower.GetMaxSeconds() <= 30 &&
			byFollower.GetP99Seconds() <= byFollower.GetMaxSeconds()
	})
}

// stalenessOf finds what was measured in a worker's status; nil for nothing.
func stalenessOf(t *testing.T, n *Node, consistency, by string) *adminv1.StalenessStatus {
	t.Helper()
	for _, s := range n.Status(t.Context()).GetStaleness() {
		if s.GetEntityType() == "counter" && s.GetConsistency() == consistency && s.GetBy() == by {
			return s
		}
	}
	return nil
}

// TestAdvertisedPublic: callers are told an address that may lead somewhere, or none.
func TestAdvertisedPublic(t *testing.T) {
	for _, c := range []struct{ configured, listening, peers, want string }{
		{"", "127.0.0.1:9000", "127.0.0.1:9002", "127.0.0.1:9000"},
		{"", "127.0.0.1:9000", "localhost:9002", "127.0.0.1:9000"},
		{"", "127.0.0.1:9000", "worker-1.example:9002", ""},
		{"", "[::]:9000", "worker-1.example:9002", ""},
		{"", "10.0.0.1:9000", "worker-1.example:9002", "10.0.0.1:9000"},
		{"api.example:443", "[::]:9000", "worker-1.example:9002", "api.example:443"},
	} {
		if got := advertisedPublic(c.configured, c.listening, c.peers); got != c.want {
			t.Errorf("listening at %s, peers at %s: %q, want %q", c.listening, c.peers, got, c.want)
		}
	}
}

// TestEntitiesElsewhere: every process answers about an entity: the worker that owns it, one that
// follows it, one that has no image of it, and a gateway.
func TestEntitiesElsewhere(t *testing.T) {
	a := newApp(t, 3) // one owns, one follows
	if _, err := a.increment(a.workers[0].PublicAddress(), "x"); err != nil {
		t.Fatal(err)
	}
	asked := []string{startGateway(t, a).AdminAddress()}
	for _, n := range a.workers {
		asked = append(asked, n.AdminAddress())
	}
	for _, address := range asked {
		admin := adminv1.NewAdminServiceClient(dial(t, address))
		eventually(t, "an answer of "+address, func() bool { // a follower may be behind for a moment
			got, err := admin.GetEntity(t.Context(), &adminv1.GetEntityRequest{Type: "counter", Id: "x"})
			return err == nil && got.GetExists()
		})
		records, err := admin.History(t.Context(), &adminv1.HistoryRequest{Type: "counter", Id: "x"})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, err = records.Recv(); err == nil; _, err = records.Recv() {
			n++
		}
		if !errors.Is(err, io.EOF) || n != 1 {
			t.Errorf("%s: a history of %d records, %v", address, n, err)
		}
		if _, err := admin.GetEntity(t.Context(),
			&adminv1.GetEntityRequest{Type: "counter", Id: "absent"}); status.Code(err) != codes.NotFound {
			t.Errorf("%s: an entity without records: %v", address, err)
		}
	}
}

package fire

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kafkaserver"
	"github.com/millrace-io/millrace/tests/kit"
)

// clusterFaults are what can happen to one of several workers, gateways and brokers; the others go
// on meanwhile.
func clusterFaults() []fault {
	return []fault{
		{"killed for a while", (*world).away},
		{"paused beyond session", (*world).pauseBeyondSession},
		{"stopped for a while", (*world).leave},
		{"drained", (*world).drain},
		{"fourth worker", (*world).joinAndLeave},
		{"gateway killed", (*world).killGateway},
		{"broker killed", (*world).killBroker},
		{"broker paused", (*world).pauseOneBroker},
		{"broker and worker killed", (*world).killBrokerAndWorker},
	}
}

// goOn waits until the remaining workers have answered some calls. Not many: every caller soon
// waits for the slowest partition.
func (w *world) goOn(without ...*harness.Process) {
	w.t.Helper()
	w.awaitMore(int64(least+w.rng.IntN(least)), func() { w.revive(without...) })
}

// awaitMembers waits until the group has so many workers, or fewer: one may have ended by itself.
func (w *world) awaitMembers(n int, what string) {
	w.t.Helper()
	kit.AwaitWithin(w.t, healing, what, func() bool {
		has := w.kafka.members(w.t)
		return has >= 0 && has <= n
	})
}

// away kills a worker with kill -9 and waits until others have taken over.
func (w *world) away() bool {
	p := w.worker()
	p.Kill(w.t)
	w.awaitMembers(len(w.workers)-1, "the group to put the dead worker out")
	w.goOn(p)
	w.restart(p)
	return true
}

// leave stops a worker in order and waits until others have taken over.
func (w *world) leave() bool {
	p := w.worker()
	code := p.Stop(w.t)
	w.goOn(p)
	w.restart(p)
	return code == 0
}

// drain drains a worker, which goes on serving through the others, and then ends.
func (w *world) drain() bool {
	p := w.worker()
	ctx, cancel := context.WithTimeout(w.ctx, healing)
	defer cancel()
	if _, err := adminv1.NewAdminServiceClient(w.admins[slices.Index(w.workers, p)]).Drain(ctx,
		&adminv1.DrainRequest{}); err != nil {
		w.t.Fatalf("drain %s: %v", p, err)
	}
	w.goOn()
	code := p.Stop(w.t)
	w.restart(p)
	return code == 0
}

// joinAndLeave adds a worker for as long as it takes it to own something, and then ends it in one
// way or the other.
func (w *world) joinAndLeave() bool {
	w.revive()
	if w.fourth == nil {
		w.fourth = w.member("w4")
		w.fourthAdmin = w.fourth.DialAdmin(w.t)
	} else {
		w.fourth.Respawn(w.t)
	}
	kit.AwaitWithin(w.t, healing, "the fourth worker to own something", func() bool {
		s := w.status(w.fourthAdmin, callTimeout)
		return slices.ContainsFunc(s.GetPartitions(), func(p *adminv1.PartitionStatus) bool {
			return p.GetState() == "active"
		})
	})
	w.goOn()
	if w.rng.IntN(2) == 0 {
		w.fourth.Kill(w.t)
		w.awaitMembers(len(w.workers), "the group to put the fourth worker out")
		w.outcome("fourth worker killed")
		return true
	}
	return w.fourth.Stop(w.t) == 0
}

func (w *world) killGateway() bool {
	w.revive()
	p := w.gateways[w.rng.IntN(len(w.gateways))]
	p.Kill(w.t)
	w.goOn(p)
	p.Restart(w.t)
	return true
}

// killBrokerAndWorker is kill -9 of both at the same moment.
func (w *world) killBrokerAndWorker() bool {
	p := w.worker()
	take := func(s *kafkaserver.Server) {
		p.Kill(w.t)
		w.end9(s)
	}
	giveBack := func(s *kafkaserver.Server) {
		s.MustRestart(w.t)
		w.restart(p)
	}
	if len(w.kafka.servers) > 1 {
		return w.withoutBroker(take, giveBack, p)
	}
	take(w.kafka.servers[0])
	giveBack(w.kafka.servers[0])
	return true
}

// pauseOneBroker is SIGSTOP of a broker: for a moment, or until the others have fenced it.
func (w *world) pauseOneBroker() bool {
	if w.rng.IntN(3) == 0 {
		w.revive()
		s := w.kafka.broker(w)
		w.freeze(s)
		w.wait(time.Duration(200+w.rng.IntN(800)) * time.Millisecond)
		w.thaw(s)
		return true
	}
	w.revive()
	return w.withoutBroker(w.freeze, w.thaw)
}

func (w *world) freeze(s *kafkaserver.Server) {
	if err := s.Pause(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) thaw(s *kafkaserver.Server) {
	if err := s.Resume(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) end9(s *kafkaserver.Server) {
	if err := s.Kill(); err != nil {
		w.t.Fatal(err)
	}
}

// withoutBroker stops a broker until the others have taken over what it led, and starts it again.
func (w *world) withoutBroker(take, giveBack func(*kafkaserver.Server), without ...*harness.Process) bool {
	w.t.Helper()
	k := w.kafka
	s := k.broker(w)
	id := int32(s.Node())
	led, coordinates := kafkaserver.AskLayout(w.ctx, k.client).Leads[id], k.coordinator(w.ctx) == id
	take(s)
	kit.AwaitWithin(w.t, healing, "the other brokers to take over", func() bool {
		l := kafkaserver.AskLayout(w.ctx, k.client)
		return l.Partitions > 0 && l.Leads[id] == 0 && l.InSync[id] == 0 && (!coordinates || k.coordinator(w.ctx) != id)
	})
	if led > 0 {
		w.outcome("leaders moved")
	}
	if coordinates {
		w.outcome("coordinator moved")
	}
	w.goOn(without...)
	giveBack(s)
	return true
}

// askTimeout bounds a question: it may be put to a broker that is stopped.
const askTimeout = time.Second

// coordinator is the broker that coordinates the workers' group, -1 when that is not known.
func (k *kafka) coordinator(ctx context.Context) int32 {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.CoordinatorKey, req.CoordinatorKeys = group, []string{group}
	resp, err := req.RequestWith(ctx, k.client)
	if err != nil || len(resp.Coordinators) != 1 || resp.Coordinators[0].ErrorCode != 0 {
		return -1
	}
	return resp.Coordinators[0].NodeID
}

// broker picks the broker of the next fault, when each has everything: the coordinator of the
// group, or any.
func (k *kafka) broker(w *world) *kafkaserver.Server {
	w.t.Helper()
	if len(k.servers) == 1 {
		return k.servers[0]
	}
	kit.AwaitWithin(w.t, healing, "every broker to have everything in sync", func() bool {
		return kafkaserver.AskLayout(w.ctx, k.client).AllInSync(k.servers)
	})
	if id := k.coordinator(w.ctx); id > 0 && w.rng.IntN(2) == 0 {
		return k.servers[id-1]
	}
	return k.servers[w.rng.IntN(len(k.servers))]
}

package fire

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kafkaserver"
	"github.com/millrace-io/millrace/tests/kit"
)

const (
	brokers = 3
	members = 3
	// clusterSession is longer than that of one worker: six processes and three brokers start on
	// the same processors.
	clusterSession = 2 * time.Second
	// brokerSession, in milliseconds, is how long brokers may be silent before the others fence them:
	// longer than elsewhere in tests, for the same reason.
	brokerSession = "3000"
	// littlePatience is how long the second gateway waits for a partition that moves.
	littlePatience = 500 * time.Millisecond
	// clusterOperations bounds a world; so many processes and brokers take long to start.
	clusterOperations = 10 * worldOperations
	// ciFaults is how many faults happen when no more are asked for.
	ciFaults = 7
	// scrapeEvery is how often workers are asked what they have answered as followers,
	// scrapeTimeout bounds it.
	scrapeEvery   = 500 * time.Millisecond
	scrapeTimeout = 300 * time.Millisecond
)

// cluster is three workers with their function in them, and two gateways, on three brokers: every
// record is on three of them, and is acknowledged when two have it.
func (r *run) cluster(t *testing.T, w *world) {
	t.Helper()
	if r.calls == nil {
		r.calls = newCalls()
	}
	w.relaxed = true
	started := time.Now()
	w.kafka = &kafka{log: newJournal(), servers: kafkaserver.StartCluster(t, brokers, map[string]string{"broker.session.timeout.ms": brokerSession}).Servers}
	w.kafka.client = newKafkaClient(t, w.kafka.addresses())
	for i := range members {
		w.workers = append(w.workers, w.member(fmt.Sprintf("w%d", i+1)))
	}
	for i := range 2 {
		o := harness.Options{
			Tags: w.tags, Command: "gateway", Env: w.env,
			Args: []string{"--app", group, "--brokers", w.kafka.addresses()},
		}
		if i == 1 {
			o.Args = append(o.Args, "--move-patience", littlePatience.String())
		}
		w.gateways = append(w.gateways, harness.Launch(t, o))
	}
	for _, p := range w.workers {
		p.AwaitReady(t)
		w.doors = append(w.doors, door{conn: p.Dial(t)})
		w.admins = append(w.admins, p.DialAdmin(t))
	}
	for _, p := range w.gateways {
		p.AwaitReady(t)
		w.doors = append(w.doors, door{conn: p.Dial(t), gateway: true})
	}
	w.awaitShares()
	w.debugf("%s: everything is up after %v", w.name, time.Since(started).Round(time.Millisecond))
	w.kafka.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: fromStart()})
	w.start(r.clients, 2*r.clients)
	w.clients.Go(w.watchFollowers)
	faults := slices.Concat(processFaults(), storeFaults(), clusterFaults(), callerFaults(), w.kafka.operatorFaults())
	if r.faults < len(faults) && r.lasts <= time.Second {
		faults = w.some(faults, max(r.faults, ciFaults), mustHappen)
	}
	w.inject(faults, r.enough(clusterOperations))
	w.end()
	w.readLog()
	if r.calls.followed.Load() == 0 {
		t.Error("no follower has answered a read")
	}
	w.finish()
}

// member starts a worker of the cluster and does not wait for it.
func (w *world) member(name string) *harness.Process {
	w.t.Helper()
	return harness.Launch(w.t, harness.Options{Program: program, Tags: w.tags, Command: "run", Env: w.env, Args: []string{
		"--app", group, "--brokers", w.kafka.addresses(), "--partitions", fmt.Sprint(partitions), "--worker", name,
		"--session-timeout", clusterSession.String(), "--contract-check", contract.String(),
	}})
}

// mustHappen are faults that happen in every run on a cluster: a worker is down in each of the ways
// in which it can be.
var mustHappen = []string{"killed for a while", "paused beyond session", "stopped for a while", "drained"}

// some chooses n of the faults, among them those that must happen.
func (w *world) some(faults []fault, n int, must []string) []fault {
	faults = slices.DeleteFunc(faults, func(f fault) bool { return !w.chosen(f.name) })
	w.rng.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
	var some []fault
	for _, f := range faults {
		if slices.Contains(must, f.name) {
			some = append(some, f)
		}
	}
	for _, f := range faults {
		if !slices.Contains(must, f.name) && len(some) < n {
			some = append(some, f)
		}
	}
	return some
}

// awaitShares waits until every worker owns something and every partition is followed.
func (w *world) awaitShares() {
	w.t.Helper()
	admin := adminv1.NewAdminServiceClient(w.gateways[0].DialAdmin(w.t))
	kit.AwaitWithin(w.t, healing, "every worker to own something, and every partition to be followed", func() bool {
		ctx, cancel := context.WithTimeout(w.ctx, callTimeout)
		defer cancel()
		seen, err := admin.Cluster(ctx, &adminv1.ClusterRequest{})
		owners := map[string]bool{}
		for _, p := range seen.GetPartitions() {
			if p.GetOwner() == "" || len(p.GetStandbys()) == 0 {
				return false
			}
			owners[p.GetOwner()] = true
		}
		return err == nil && len(owners) == len(w.workers)
	})
}

// watchFollowers adds up what workers have answered for partitions of others, until the world
// stops.
func (w *world) watchFollowers() {
	again := time.NewTicker(scrapeEvery)
	defer again.Stop()
	before := make([]int64, len(w.admins))
	for {
		for i, admin := range w.admins {
			s := w.status(admin, scrapeTimeout)
			if s == nil {
				continue // it is down now
			}
			n := int64(0)
			for _, p := range s.GetPartitions() {
				n += int64(p.GetFollowerReads())
			}
			if n < before[i] {
				before[i] = 0 // another start of it
			}
			w.calls.followed.Add(n - before[i])
			before[i] = n
		}
		select {
		case <-again.C:
		case <-w.stop:
			return
		}
	}
}

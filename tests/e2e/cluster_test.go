package e2e_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kafkaserver"
	"github.com/millrace-io/millrace/tests/kit"
)

// cluster is three workers with their function in process, and a gateway, on one broker.
type cluster struct {
	t       *testing.T
	workers []*harness.Process
	gateway *harness.Process
}

// clusterSession is short, so that a worker that is stopped loses its partitions while a test
// waits.
const clusterSession = 2 * time.Second

// clusterPartitions is what a journal has that a worker makes.
const clusterPartitions = 16

func startCluster(t *testing.T) *cluster {
	t.Helper()
	return startClusterOn(t, kafkaserver.Start(t, kafkaserver.Options{}).Addr())
}

func startClusterOn(t *testing.T, brokers string) *cluster {
	t.Helper()
	c := &cluster{t: t}
	for range 3 {
		c.add(brokers, harness.Options{})
	}
	c.gateway = harness.Start(t,
		harness.Options{Command: "gateway", Args: []string{"--app", "counters", "--brokers", brokers}})
	c.settled()
	return c
}

// add starts one more worker, with the options added to the usual ones.
func (c *cluster) add(brokers string, o harness.Options) *harness.Process {
	c.t.Helper()
	o.Program, o.Command = harness.Counter, "run"
	o.Args = append(o.Args, "--app", "counters", "--brokers", brokers, "--worker", fmt.Sprintf("w%d", len(c.workers)), "--session-timeout", clusterSession.String())
	w := harness.Start(c.t, o)
	c.workers = append(c.workers, w)
	return w
}

// settled waits until every worker has its share, and every partition is followed by one that is
// close behind.
func (c *cluster) settled() {
	c.t.Helper()
	admin := adminv1.NewAdminServiceClient(c.gateway.DialAdmin(c.t))
	kit.AwaitWithin(c.t, time.Minute, "the workers to have even shares, and followers", func() bool {
		seen, err := admin.Cluster(c.t.Context(), &adminv1.ClusterRequest{})
		if err != nil || len(seen.GetMembers()) != len(c.workers) {
			return false
		}
		owned := map[string]int{}
		for _, p := range seen.GetPartitions() {
			if p.GetOwner() == "" || len(p.GetStandbys()) == 0 {
				return false
			}
			owned[p.GetOwner()]++
		}
		for _, m := range seen.GetMembers() {
			if n := owned[m.GetName()]; !m.GetStatus().GetReady() || n < 5 || n > 6 {
				return false
			}
			for _, p := range m.GetStatus().GetPartitions() {
				if p.GetFollowed() && p.GetLagRecords() > 100 {
					return false
				}
			}
		}
		return true
	})
}

func (c *cluster) drain(w *harness.Process) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), kit.Patience)
	defer cancel()
	if _, err := adminv1.NewAdminServiceClient(w.DialAdmin(c.t)).Drain(ctx, &adminv1.DrainRequest{}); err != nil {
		c.t.Fatalf("drain: %v", err)
	}
}

// TestRollingRestartFailsNoCall restarts all workers in order, one after the other, under load
// through a gateway: no call fails, and how long the slowest one took is printed.
func TestRollingRestartFailsNoCall(t *testing.T) {
	c := startCluster(t)
	p := c.probe()
	for _, w := range c.workers {
		w.Stop(t)
		w.Restart(t)
		c.settled()
	}
	p.stop()
	t.Logf("cluster: rolling restart of %d workers, %d calls, none failed; slowest call %v", len(c.workers), p.total,
		p.longest().Round(time.Millisecond))
}

package e2e_test

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/tests/kafkaserver"
	"github.com/millrace-io/millrace/tests/kit"
)

// TestBrokerThatHangs freezes brokers out of three, one at a time, as a hung disk does: the kernel
// still accepts connections. It prints how long after that each counter was answered again. Every
// call has an id and is sent until it is answered: each counts once. The next one is frozen when
// all have everything again: with fewer than two in sync a broker refuses what is appended.
func TestBrokerThatHangs(t *testing.T) {
	brokers := kafkaserver.StartCluster(t, 3)
	c := startClusterOn(t, brokers.String())
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers.Addrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	p := c.patientProbe(time.Second)
	p.awaitAll()
	var waits, worst []time.Duration
	rounds := kit.PauseRounds.NumberOr(t, 1)
	for i := range rounds {
		kit.AwaitWithin(t, time.Minute, "every broker to have everything in sync", func() bool {
			return kafkaserver.AskLayout(t.Context(), client).AllInSync(brokers.Servers)
		})
		s := brokers.Servers[i%len(brokers.Servers)]
		frozen := time.Now()
		if err := s.Pause(); err != nil {
			t.Fatal(err)
		}
		now := p.awaitAgain(everyPartition(), frozen)
		if err := s.Resume(); err != nil {
			t.Fatal(err)
		}
		waits, worst = append(waits, now...), append(worst, slices.Max(now))
		t.Logf("broker %d of %d frozen: %v", i%len(brokers.Servers)+1, len(brokers.Servers), now)
		c.settled()
		p.awaitAll()
	}
	p.stop()
	t.Logf("cluster: a broker of three frozen %d times, %d calls, %d sent again; %d keys answered again after %s; the last of each time %s",
		rounds, p.total, p.tries.Load(), len(waits), quantiles(waits), quantiles(worst))
}

package kafka

import (
	"errors"
	"testing"
	"time"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/brokertest"
)

// longSession does not end during a test.
const longSession = 5 * time.Minute

func conformance(addrs []string, shareAfter time.Duration) brokertest.Options {
	open := func(t *testing.T) broker.Log {
		l, err := Open(Options{Brokers: addrs, Settings: Settings{SessionTimeout: longSession}})
		if err != nil {
			t.Fatal(err)
		}
		l.shareAfter = shareAfter
		return l
	}
	again := func(t *testing.T, _ broker.Log) broker.Log { return open(t) }
	return brokertest.Options{Open: open, Join: again, Reopen: again, Kill: kill}
}

// kill ends memberships like the death of the process: the group is not told and waits for their
// sessions to end.
func kill(t *testing.T, log broker.Log) {
	t.Helper()
	l, ok := log.(*Log)
	if !ok {
		t.Fatalf("kill a %T", log)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.memberships {
		s.ended <- errors.New("killed")
	}
}

// TestConformance runs the suite on a real broker.
func TestConformance(t *testing.T) {
	o := conformance(brokers(t), defaultShareAfter)
	o.Compact = compactSoon
	brokertest.Run(t, o)
}

// compactSoon has the broker roll a segment at each record that is 100 ms after the one before, and
// clean what has rolled, and waits as long as its cleaner needs to come by.
func compactSoon(t *testing.T, log broker.Log, p broker.Partition) {
	t.Helper()
	l, ok := log.(*Log)
	if !ok {
		t.Fatalf("compact a %T", log)
	}
	found, err := l.configs(deadline(t), p.Topic)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []entry{{compactionLag, "0"}, {deleteRetention, "100"}, {dirtyRatio, "0.0"}, {segmentMS, "100"}} {
		if found[e.name].value != e.value {
			alter(t, l, p.Topic, e.name, e.value)
		}
	}
	pause(deadline(t), 200*time.Millisecond)
}

// TestConformanceInTheTail runs it with readers that join the tail as soon as they can.
func TestConformanceInTheTail(t *testing.T) { brokertest.Run(t, conformance(brokers(t), 0)) }

// TestConformanceOnFake runs it on the in-process fake, on which other tests of this package rely.
// The fake is not asked to compact: it moves the start of the log to the first record that is left,
// which no broker does.
func TestConformanceOnFake(t *testing.T) {
	for name, shareAfter := range map[string]time.Duration{"own clients": defaultShareAfter, "in the tail": 0} {
		t.Run(name, func(t *testing.T) {
			o := conformance(fake(t, 3).ListenAddrs(), shareAfter)
			o.RestartBalances = true // it compares all join data, not only the protocol's name
			brokertest.Run(t, o)
		})
	}
}

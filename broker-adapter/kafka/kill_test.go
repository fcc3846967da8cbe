package kafka

import (
	"fmt"
	"sync"
	"testing"
	"time"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/tests/kafkaserver"
)

// acknowledged holds the acknowledged records of one writer.
type acknowledged struct {
	sync.Mutex
	at map[int64]string
	// next is the offset after the last acknowledged record.
	next int64
	errs []error
}

func (a *acknowledged) count() int {
	a.Lock()
	defer a.Unlock()
	return len(a.at)
}

// load is one writer for each partition of a topic, with appends in flight all the time.
type load struct {
	log   *Log
	topic string
	acked []*acknowledged
	stop  chan struct{}
	done  sync.WaitGroup
}

func startLoad(l *Log, topic string, partitions, inFlight int) *load {
	w := &load{log: l, topic: topic, acked: make([]*acknowledged, partitions), stop: make(chan struct{})}
	for id := range w.acked {
		w.acked[id] = &acknowledged{at: map[int64]string{}}
		w.done.Go(func() { // ends with stop, or with the first error; check waits for it
			write(l, broker.Partition{Topic: topic, ID: int32(id)}, w.acked[id], inFlight, w.stop)
		})
	}
	return w
}

// more waits until each partition has acknowledged n records more.
func (w *load) more(t *testing.T, n int) {
	t.Helper()
	ctx := deadline(t)
	for _, a := range w.acked {
		for want := a.count() + n; a.count() < want; {
			if !pause(ctx, 10*time.Millisecond) {
				t.Fatalf("a writer has %d acknowledged records, want %d; errors %v", a.count(), want, a.errs)
			}
		}
	}
}

// check ends the load and reads everything back: each acknowledged record is at its offset, without
// a gap.
func (w *load) check(t *testing.T) {
	t.Helper()
	close(w.stop)
	w.done.Wait()
	for id, a := range w.acked {
		for _, err := range a.errs {
			t.Errorf("partition %d: %v", id, err)
		}
		if int(a.next) != len(a.at) {
			t.Errorf("partition %d: %d records acknowledged, offsets up to %d", id, len(a.at), a.next)
		}
		got := values(t, newReader(t, w.log, broker.Partition{Topic: w.topic, ID: int32(id)}, 0), len(a.at))
		for offset, want := range a.at {
			if got[offset] != want {
				t.Errorf("partition %d, offset %d: the log holds %q, %q was acknowledged", id, offset, got[offset], want)
			}
		}
	}
}

// TestKillUnderLoad kills the only broker with appends in flight and starts it again. Nothing
// acknowledged is missing or has moved, and offsets have no gap: the client retries inside the same
// session, without an error to the caller.
func TestKillUnderLoad(t *testing.T) {
	server := kafkaserver.Start(t, kafkaserver.Options{})
	l := open(t, Options{Brokers: []string{server.Addr()}})
	writers := startLoad(l, newTestTopic(t, l, 4).Topic, 4, 16)
	writers.more(t, 2000)
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	server.MustRestart(t)
	writers.more(t, 500)
	t.Logf("every partition was acknowledged again %v after the kill", time.Since(killed).Round(time.Millisecond))
	writers.check(t)
}

// TestKillLeaderUnderLoad kills one of three brokers, with all that it leads, and lets it come
// back. Others lead on, and nothing acknowledged is missing or has moved.
func TestKillLeaderUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("three brokers take up to 20 s on a busy machine")
	}
	cluster := kafkaserver.StartCluster(t, 3)
	l := open(t, Options{Brokers: cluster.Addrs()})
	p := newTestTopic(t, l, 6)
	if info := describe(t, l, p.Topic); len(info.Violations) != 0 {
		t.Fatalf("violations of the contract: %+v", info.Violations)
	}
	writers := startLoad(l, p.Topic, 6, 16)
	writers.more(t, 500)
	leader, err := l.presentLeader(deadline(t), p)
	if err != nil {
		t.Fatal(err)
	}
	victim := cluster.Servers[leader.node-1]
	if err := victim.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	writers.more(t, 500)
	t.Logf("every partition was acknowledged again %v after the kill of broker %d",
		time.Since(killed).Round(time.Millisecond), leader.node)
	if next, err := l.presentLeader(deadline(t), p); err != nil || next.node == leader.node || next.epoch <= leader.epoch {
		t.Errorf("the leader was %+v, and is %+v (%v)", leader, next, err)
	}
	victim.MustRestart(t)
	writers.more(t, 200)
	writers.check(t)
}

// write keeps appends in flight until stop, and waits for all of them.
func write(l *Log, p broker.Partition, a *acknowledged, inFlight int, stop <-chan struct{}) {
	slots := make(chan struct{}, inFlight)
	for i := 0; ; i++ {
		select {
		case slots <- struct{}{}:
		case <-stop:
			for range inFlight {
				slots <- struct{}{}
			}
			return
		}
		first, second := fmt.Sprintf("%d/%d/a", p.ID, i), fmt.Sprintf("%d/%d/b", p.ID, i)
		l.Append(p, []broker.Record{text("%s", first), text("%s", second)}, func(r broker.AppendResult) {
			defer func() { <-slots }()
			a.Lock()
			defer a.Unlock()
			switch {
			case r.Err != nil:
				a.errs = append(a.errs, r.Err)
			case r.Base != a.next || r.Last != a.next+1:
				a.errs = append(a.errs, fmt.Errorf("append %d got offsets %d to %d, want them from %d", i, r.Base, r.Last, a.next))
			default:
				a.at[r.Base], a.at[r.Last] = first, second
				a.next = r.Last + 1
			}
		})
	}
}

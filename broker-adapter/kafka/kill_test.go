package kafka

import (
	"fmt"
	"sync"
	"testing"
	"time"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/tests/kafkaserver"
)

// acknowledged is what one writer knows to be in the log.
type acknowledged struct {
	sync.Mutex
	at map[int64]string
	// next is the offset behind the last acknowledged record.
	next int64
	errs []error
}

func (a *acknowledged) count() int {
	a.Lock()
	defer a.Unlock()
	return len(a.at)
}

// TestKillUnderLoad kills the only broker with appends in flight and starts it again. Nothing acknowledged is missing or
// has moved, and offsets have no gap: the client sends again inside the same session, and nobody hears of it.
func TestKillUnderLoad(t *testing.T) {
	const partitions, inFlight, before, after = 4, 16, 2000, 500
	server := kafkaserver.Start(t, kafkaserver.Options{})
	l := open(t, Options{Brokers: []string{server.Addr()}})
	topic := newTestTopic(t, l, partitions).Topic

	acked := make([]*acknowledged, partitions)
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for id := range acked {
		acked[id] = &acknowledged{at: map[int64]string{}}
		writers.Go(func() { // ends with stop, or with the first error; waited for below
			write(l, broker.Partition{Topic: topic, ID: int32(id)}, acked[id], inFlight, stop)
		})
	}
	reachAll := func(n int) {
		t.Helper()
		ctx := deadline(t)
		for _, a := range acked {
			for want := a.count() + n; a.count() < want; {
				if !pause(ctx, 10*time.Millisecond) {
					t.Fatalf("a writer stands at %d acknowledged records, want %d; errors %v", a.count(), want, a.errs)
				}
			}
		}
	}
	reachAll(before)
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	server.MustRestart(t)
	reachAll(after)
	t.Logf("every partition was acknowledged again %v after the kill", time.Since(killed).Round(time.Millisecond))
	close(stop)
	writers.Wait()

	for id, a := range acked {
		for _, err := range a.errs {
			t.Errorf("partition %d: %v", id, err)
		}
		if int(a.next) != len(a.at) {
			t.Errorf("partition %d: %d records acknowledged, offsets up to %d", id, len(a.at), a.next)
		}
		got := values(t, newReader(t, l, broker.Partition{Topic: topic, ID: int32(id)}, 0), len(a.at))
		for offset, want := range a.at {
			if got[offset] != want {
				t.Errorf("partition %d, offset %d: the log holds %q, %q was acknowledged", id, offset, got[offset], want)
			}
		}
	}
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

package kafka

import (
	"bytes"
	"context"
	"errors"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/tests/kit"
)

// inTail waits until a number of readers wait in the tail.
func inTail(t *testing.T, l *Log, want int) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) { //nolint:forbidigo // there is nothing to wait on
		l.tail.mu.Lock()
		n := len(l.tail.inboxes)
		l.tail.mu.Unlock()
		if n == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d readers in the tail, want %d", n, want)
		}
	}
}

// reading calls Next in a goroutine of its own, which ends with the test's context.
func reading(t *testing.T, r broker.Reader) (values <-chan string, done func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	c := make(chan string, 1<<16)
	running.Go(func() { // ends with ctx
		for {
			batch, err := r.Next(ctx)
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("next: %v", err)
				}
				return
			}
			for i := range batch.Records {
				c <- string(batch.Records[i].Value)
			}
		}
	})
	return c, func() { cancel(); running.Wait() }
}

// TestReadersShareAClient lets many readers come to the end: they wait with one client, and each
// gets its own records. The test says what they cost.
func TestReadersShareAClient(t *testing.T) {
	readers := kit.Readers.Number(t)
	for name, shareAfter := range map[string]time.Duration{"own clients": time.Hour, "in the tail": 0} {
		t.Run(name, func(t *testing.T) {
			cluster := fake(t, 1)
			l := openFake(t, cluster)
			l.shareAfter = shareAfter
			first := newTestTopic(t, l, int32(readers))
			before := costs()
			var all []<-chan string
			for id := range readers {
				p := broker.Partition{Topic: first.Topic, ID: int32(id)}
				mustAppend(t, l, p, text("%d", id))
				c, stop := reading(t, newReader(t, l, p, 0))
				defer stop()
				all = append(all, c)
			}
			for round := range 2 {
				for id, c := range all {
					if got := wait(t, "record", c); got != strconv.Itoa(id+round) {
						t.Fatalf("reader %d got %q", id, got)
					}
				}
				if round == 0 {
					if shareAfter == 0 {
						inTail(t, l, readers)
					}
					t.Logf("%d readers at rest: %s", readers, idle(t, cluster, before))
					for id := range readers {
						mustAppend(t, l, broker.Partition{Topic: first.Topic, ID: int32(id)}, text("%d", id+1))
					}
				}
			}
		})
	}
}

// cost is what a process holds.
type cost struct{ sockets, goroutines, heap int }

func costs() (c cost) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	c.goroutines, c.heap = runtime.NumGoroutine(), int(m.HeapAlloc+m.StackInuse)
	files, _ := os.ReadDir("/proc/self/fd")
	c.sockets = len(files)
	return c
}

// idle reports what was added, and how often the brokers are asked for records meanwhile. It
// includes the fake's side of each connection.
func idle(t *testing.T, cluster *kfake.Cluster, before cost) string {
	t.Helper()
	var mu sync.Mutex
	fetches := 0
	cluster.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		fetches++
		return nil, nil, false
	})
	const length = 2 * time.Second
	time.Sleep(length) //nolint:forbidigo // a measurement takes its time
	mu.Lock()
	defer mu.Unlock()
	now := costs()
	return strconv.Itoa((now.sockets-before.sockets)/2) + " connections, " +
		strconv.Itoa(now.goroutines-before.goroutines) + " goroutines, " +
		strconv.Itoa((now.heap-before.heap)>>10) + " KiB, " +
		strconv.FormatFloat(float64(fetches)/length.Seconds(), 'f', 1, 64) + " fetches/s"
}

// TestSlowReaderLeavesTheTail: what waits for one reader is bounded, and it misses nothing.
func TestSlowReaderLeavesTheTail(t *testing.T) {
	cluster := fake(t, 1)
	l := openFake(t, cluster)
	l.shareAfter = 0
	p := newTestTopic(t, l, 1)
	mustAppend(t, l, p, text("0"))
	r := newReader(t, l, p, 0)
	values(t, r, 1)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.Next(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("next at the end: %v", err)
	}
	inTail(t, l, 1)
	large := bytes.Repeat([]byte("x"), 200<<10)
	const records = 12 // above inboxBytes
	for range records {
		mustAppend(t, l, p, broker.Record{Value: large})
	}
	inTail(t, l, 0)
	next := int64(1)
	for next <= records {
		batch, err := r.Next(deadline(t))
		if err != nil {
			t.Fatal(err)
		}
		for i := range batch.Records {
			if batch.Records[i].Offset != next {
				t.Fatalf("offset %d after %d", batch.Records[i].Offset, next-1)
			}
			next++
		}
	}
	_, done := reading(t, r)
	defer done()
	inTail(t, l, 1) // it has caught up
	l.tail.mu.Lock()
	defer l.tail.mu.Unlock()
	if l.tail.bytes != 0 {
		t.Errorf("%d bytes wait without a reader", l.tail.bytes)
	}
}

// TestTailTakesOneReader: one reader of a partition at a time, and none at an offset below what the
// client may still have.
func TestTailTakesOneReader(t *testing.T) {
	l := openFake(t, fake(t, 1))
	p := newTestTopic(t, l, 1)
	for range 3 {
		mustAppend(t, l, p, text("x"))
	}
	in := l.tail.join(p, 2, -1)
	if in == nil || l.tail.join(p, 2, -1) != nil {
		t.Fatal("a second reader was taken")
	}
	if found, err := in.take(deadline(t)); err != nil || found.count != 1 {
		t.Fatalf("took %+v, %v", found, err)
	}
	in.close()
	if _, err := in.take(deadline(t)); !errors.Is(err, errLeft) {
		t.Errorf("an inbox that was left: %v", err)
	}
	if l.tail.join(p, 2, -1) != nil {
		t.Error("a reader was taken at an offset below what was delivered")
	}
	if in = l.tail.join(p, 3, -1); in == nil {
		t.Fatal("a reader at the end was not taken")
	}
	mustAppend(t, l, p, text("y"))
	if found, err := in.take(deadline(t)); err != nil || found.count != 1 || found.records[0][0].Offset != 3 {
		t.Errorf("took %+v, %v", found, err)
	}
}

// TestTailRests: records wait while the tail rests, unless Expedite is called.
func TestTailRests(t *testing.T) {
	l := openFake(t, fake(t, 1))
	l.shareAfter, l.rest = 0, time.Hour
	p := newTestTopic(t, l, 1)
	end := l.Expedite()
	mustAppend(t, l, p, text("caught up"))
	r := newReader(t, l, p, 0)
	values(t, r, 1)
	c, done := reading(t, r)
	defer done()
	inTail(t, l, 1)
	end()
	put := func(value string) { mustAppend(t, l, p, text("%s", value)) }
	comes := func(want string) {
		t.Helper()
		if got := wait(t, "record", c); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	put("first after a while")
	comes("first after a while")
	resting := func() bool {
		l.tail.mu.Lock()
		defer l.tail.mu.Unlock()
		return l.tail.resting
	}
	until(t, "it rests", resting)
	put("while it rests")
	until(t, "the client has it", func() bool { return l.tail.client.BufferedFetchRecords() == 1 })
	if !resting() || len(c) > 0 {
		t.Fatal("what came while it rests was handed out")
	}
	end = l.Expedite()
	comes("while it rests")
	put("expedited")
	comes("expedited")
	end()
	put("in an hour")
	defer l.Expedite()()
	comes("in an hour")
}

// TestTailReportsErrors: an error that is not transient goes to the reader.
func TestTailReportsErrors(t *testing.T) {
	cluster := fake(t, 1)
	l := openFake(t, cluster)
	p := newTestTopic(t, l, 1)
	in := l.tail.join(p, 0, -1)
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: p.Topic, Err: kerr.TopicAuthorizationFailed, Count: 1})
	mustAppend(t, l, p, text("x"))
	for { // the record may be quicker than the fault
		found, err := in.take(deadline(t))
		if errors.Is(err, kerr.TopicAuthorizationFailed) {
			return
		}
		if err != nil {
			t.Fatalf("took %+v, %v", found, err)
		}
	}
}

package kafka

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/goleak"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/tests/kafkaserver"
)

// patience bounds each wait of these tests.
const patience = time.Minute

// realBroker is the one broker that all tests of this package share, except those that kill theirs.
var realBroker struct {
	once sync.Once
	dir  string
	*kafkaserver.Cluster
	err error
}

// withBroker ends the shared broker after the last test.
type withBroker struct{ *testing.M }

func (m withBroker) Run() int {
	code := m.M.Run()
	if realBroker.Cluster != nil {
		if err := realBroker.Kill(); err != nil {
			code = 1
		}
	}
	if realBroker.dir != "" && os.RemoveAll(realBroker.dir) != nil {
		code = 1
	}
	return code
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(withBroker{m}) }

// brokers returns the addresses of the shared real broker.
func brokers(t *testing.T) []string {
	t.Helper()
	kafkaserver.Require(t)
	realBroker.once.Do(func() {
		if realBroker.dir, realBroker.err = os.MkdirTemp("", "kafka-test-"); realBroker.err != nil { //nolint:usetesting // outlives this test
			return
		}
		realBroker.Cluster, realBroker.err = kafkaserver.Launch(context.WithoutCancel(t.Context()),
			kafkaserver.Options{Dir: realBroker.dir})
	})
	if realBroker.err != nil {
		t.Fatalf("start the shared broker: %v", realBroker.err)
	}
	return realBroker.Addrs()
}

// fake returns an in-process cluster of n brokers.
func fake(t *testing.T, n int) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(n), kfake.GroupMinSessionTimeout(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// open returns a Log that is closed with the test.
func open(t *testing.T, o Options) *Log {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // some tests have closed it already
	return l
}

func openFake(t *testing.T, c *kfake.Cluster) *Log {
	t.Helper()
	return open(t, Options{Brokers: c.ListenAddrs()})
}

// deadline returns a context that ends with the tests' patience.
func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func unique(prefix string) string { return prefix + "." + strings.ToLower(rand.Text()) }

// newTopic creates a topic and returns its first partition.
func newTestTopic(t *testing.T, l *Log, partitions int32) broker.Partition {
	t.Helper()
	spec := broker.TopicSpec{Name: unique("test"), Partitions: partitions, MaxRecordBytes: 1 << 20}
	if err := l.Create(deadline(t), spec); err != nil {
		t.Fatal(err)
	}
	return broker.Partition{Topic: spec.Name}
}

func text(format string, args ...any) broker.Record {
	return broker.Record{Value: fmt.Appendf(nil, format, args...)}
}

// start appends; the channel gets the result.
func start(l *Log, p broker.Partition, records ...broker.Record) <-chan broker.AppendResult {
	result := make(chan broker.AppendResult, 1)
	l.Append(p, records, func(r broker.AppendResult) { result <- r })
	return result
}

func wait[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s within %v", what, patience)
		panic("not reached")
	}
}

func mustAppend(t *testing.T, l *Log, p broker.Partition, records ...broker.Record) broker.AppendResult {
	t.Helper()
	r := wait(t, "result of an append", start(l, p, records...))
	if r.Err != nil {
		t.Fatalf("append to %v: %v", p, r.Err)
	}
	return r
}

func newReader(t *testing.T, l *Log, p broker.Partition, from int64) broker.Reader {
	t.Helper()
	r, err := l.Read(p, from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// values reads n records and returns their values.
func values(t *testing.T, r broker.Reader, n int) []string {
	t.Helper()
	var got []string
	for len(got) < n {
		batch, err := r.Next(deadline(t))
		if err != nil {
			t.Fatalf("after %d of %d records: %v", len(got), n, err)
		}
		for i := range batch.Records {
			got = append(got, string(batch.Records[i].Value))
		}
	}
	return got
}

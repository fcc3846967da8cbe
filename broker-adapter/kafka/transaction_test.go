package kafka

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestForeignTransactionsLeaveNoGaps: the marker of a transaction has an offset. A reader returns
// it as a record, committed or aborted, so that every offset has one, and no reader waits for a
// marker at the end of the log.
func TestForeignTransactionsLeaveNoGaps(t *testing.T) {
	for name, shareAfter := range map[string]time.Duration{"own client": time.Hour, "in the tail": 0} {
		t.Run(name, func(t *testing.T) {
			cluster := fake(t, 1)
			l := openFake(t, cluster)
			l.shareAfter = shareAfter
			p := newTestTopic(t, l, 1)
			mustAppend(t, l, p, text("own"))
			foreign, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.TransactionalID("foreign"),
				kgo.RecordPartitioner(kgo.ManualPartitioner()))
			if err != nil {
				t.Fatal(err)
			}
			defer foreign.Close()
			for _, commit := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
				if err := foreign.BeginTransaction(); err != nil {
					t.Fatal(err)
				}
				if err := foreign.ProduceSync(deadline(t),
					&kgo.Record{Topic: p.Topic, Value: []byte("foreign")}).FirstErr(); err != nil {
					t.Fatal(err)
				}
				if err := foreign.EndTransaction(context.WithoutCancel(t.Context()), commit); err != nil {
					t.Fatal(err)
				}
			}
			end, err := l.End(deadline(t), p)
			if err != nil || end != 5 {
				t.Fatalf("the log ends at %d, %v; want 5: a record, and two transactions of two each", end, err)
			}
			r, next := newReader(t, l, p, 0), int64(0)
			for next < end {
				batch, err := r.Next(deadline(t))
				if err != nil {
					t.Fatalf("from offset %d: %v", next, err)
				}
				for i := range batch.Records {
					if batch.Records[i].Offset != next {
						t.Fatalf("offset %d comes where %d was expected", batch.Records[i].Offset, next)
					}
					next++
				}
			}
		})
	}
}

package kafka

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// appendAfter appends once the failure before it is delivered: while its callback still runs,
// appends are refused.
func appendAfter(t *testing.T, l *Log, p broker.Partition) (r broker.AppendResult) {
	t.Helper()
	until(t, "an append after a failure", func() bool {
		r = wait(t, "result", start(l, p, text("after")))
		return !errors.Is(r.Err, errBehind)
	})
	if r.Err != nil {
		t.Fatalf("append after a failure: %v", r.Err)
	}
	return r
}

// TestProduceCodes answers one produce request with each code that a broker may return, and checks
// the results of that append and of the next.
func TestProduceCodes(t *testing.T) {
	const (
		retried = "retried in the same session"
		failed  = "failed, outcome unknown"
		stopped = "failed, outcome unknown, and a new producer for the next"
	)
	for _, c := range []struct {
		code *kerr.Error
		want string
	}{
		{kerr.UnknownTopicOrPartition, retried},
		{kerr.NotLeaderForPartition, retried},
		{kerr.RequestTimedOut, retried}, // after it was stored
		{kerr.NotEnoughReplicas, retried},
		{kerr.NotEnoughReplicasAfterAppend, retried}, // after it was stored
		{kerr.KafkaStorageError, retried},
		{kerr.LeaderNotAvailable, retried},
		{kerr.MessageTooLarge, failed},
		{kerr.TopicAuthorizationFailed, failed},
		{kerr.InvalidRecord, failed},
		{kerr.UnknownServerError, failed},
		{kerr.OutOfOrderSequenceNumber, stopped},
		{kerr.InvalidProducerEpoch, stopped},
		{kerr.UnknownProducerID, stopped},
		{kerr.ProducerFenced, stopped},
	} {
		t.Run(c.code.Message, func(t *testing.T) {
			t.Parallel()
			cluster := fake(t, 1)
			l := openFake(t, cluster)
			p := newTestTopic(t, l, 1)
			mustAppend(t, l, p, text("before"))

			fault := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: p.Topic, Err: c.code})
			r := wait(t, "result", start(l, p, text("x"), text("y")))
			if fault.Hits() != 1 {
				t.Fatalf("the fault was injected %d times", fault.Hits())
			}
			next := appendAfter(t, l, p)
			stops := l.Stats().ProducersStopped
			switch c.want {
			case retried:
				if r.Err != nil || r.Base != 1 || r.Last != 2 || next.Base != 3 || stops != 0 {
					t.Errorf("result %+v, then %+v, producers stopped %d", r, next, stops)
				}
			default:
				if !errors.Is(r.Err, c.code) && !errors.Is(r.Err, errNoOffset) {
					t.Errorf("error %v does not name the code", r.Err)
				}
				for _, definite := range []error{broker.ErrNotWritten, broker.ErrTooLarge, broker.ErrUnknownTopic} {
					if errors.Is(r.Err, definite) {
						t.Errorf("error %v claims that nothing was written", r.Err)
					}
				}
				if (stops == 1) != (c.want == stopped) {
					t.Errorf("producers stopped: %d", stops)
				}
			}
		})
	}
}

// TestNoOffset answers like a broker that takes a batch for a duplicate whose offset it no longer
// knows. The client reports success, but without an offset the append must fail.
func TestNoOffset(t *testing.T) {
	cluster := fake(t, 1)
	l := openFake(t, cluster)
	p := newTestTopic(t, l, 1)
	cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		asked := req.(*kmsg.ProduceRequest)                  //nolint:forcetypeassert // by its key
		resp := asked.ResponseKind().(*kmsg.ProduceResponse) //nolint:forcetypeassert // by its key
		topic := kmsg.NewProduceResponseTopic()
		topic.Topic, topic.TopicID = asked.Topics[0].Topic, asked.Topics[0].TopicID
		part := kmsg.NewProduceResponseTopicPartition()
		part.ErrorCode, part.BaseOffset = kerr.DuplicateSequenceNumber.Code, -1
		topic.Partitions = append(topic.Partitions, part)
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
	r := wait(t, "result", start(l, p, text("x")))
	if !errors.Is(r.Err, errNoOffset) || errors.Is(r.Err, broker.ErrNotWritten) {
		t.Errorf("result %+v", r)
	}
	appendAfter(t, l, p)
	if s := l.Stats(); s.ProducersStopped != 1 {
		t.Errorf("producers stopped: %d", s.ProducersStopped)
	}
}

// TestFailureFailsWhatIsBehind keeps appends in flight on several partitions when the broker
// contradicts the producer: everything sent before the failures are delivered fails too, in order,
// and later appends succeed.
func TestFailureFailsWhatIsBehind(t *testing.T) {
	cluster := fake(t, 1)
	l := openFake(t, cluster)
	p := newTestTopic(t, l, 2)
	q := broker.Partition{Topic: p.Topic, ID: 1}
	mustAppend(t, l, p, text("before"))
	mustAppend(t, l, q, text("before"))

	hold := make(chan struct{}) // holds the broker's answer until all appends are made
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.SleepControl(func() { <-hold })
		return nil, nil, false
	})
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Partitions: []int32{0}, Err: kerr.OutOfOrderSequenceNumber})
	const n = 20
	type result struct {
		call int
		err  error
	}
	onP, onQ := make(chan result, n), make(chan result, n)
	again := make(chan (<-chan broker.AppendResult), 1)
	for i := range n {
		l.Append(p, []broker.Record{text("p%d", i)}, func(r broker.AppendResult) {
			if i == 0 { // while the first failure is being delivered: this one must not be written either
				again <- start(l, p, text("too early"))
			}
			onP <- result{i, r.Err}
		})
		l.Append(q, []broker.Record{text("q%d", i)}, func(r broker.AppendResult) { onQ <- result{i, r.Err} })
	}
	close(hold)
	for i := range n {
		if r := wait(t, "result", onP); r.call != i || r.err == nil {
			t.Fatalf("result %d on the failed partition: %+v", i, r)
		}
		if r := wait(t, "result", onQ); r.call != i { // may have been written, or not
			t.Fatalf("result %d on the other partition: %+v", i, r)
		}
	}
	if r := wait(t, "result", wait(t, "append", again)); !errors.Is(r.Err, broker.ErrNotWritten) ||
		!errors.Is(r.Err, errBehind) {
		t.Errorf("append during the callback of a failure: %+v", r)
	}
	if r := appendAfter(t, l, p); r.Base != 1 {
		t.Errorf("next append got offset %d, want 1", r.Base)
	}
	appendAfter(t, l, q)
	if got := values(t, newReader(t, l, p, 0), 2); !slices.Equal(got, []string{"before", "after"}) {
		t.Errorf("the log holds %q", got)
	}
}

// TestFetchCodes answers some fetches with each code. Reading goes on without loss, or fails with a
// reason.
func TestFetchCodes(t *testing.T) {
	for _, c := range []struct {
		code  *kerr.Error
		fails bool
	}{
		{code: kerr.OffsetOutOfRange}, // from a former leader: the present one knows better
		{code: kerr.UnknownTopicOrPartition},
		{code: kerr.LeaderNotAvailable},
		{code: kerr.NotLeaderForPartition},
		{code: kerr.ReplicaNotAvailable},
		{code: kerr.KafkaStorageError},
		{code: kerr.FencedLeaderEpoch},
		{code: kerr.UnknownLeaderEpoch},
		{code: kerr.UnknownTopicID},
		{code: kerr.OffsetNotAvailable},
		{code: kerr.TopicAuthorizationFailed, fails: true},
		{code: kerr.UnknownServerError, fails: true},
	} {
		for name, shareAfter := range map[string]time.Duration{"": defaultShareAfter, " in the tail": 0} {
			t.Run(c.code.Message+name, func(t *testing.T) {
				t.Parallel()
				cluster := fake(t, 1)
				l := openFake(t, cluster)
				l.shareAfter = shareAfter
				p := newTestTopic(t, l, 1)
				for i := range 3 {
					mustAppend(t, l, p, text("%d", i))
				}
				r := newReader(t, l, p, 0)
				if got := values(t, r, 3); !slices.Equal(got, []string{"0", "1", "2"}) {
					t.Fatalf("read %q", got)
				}
				mustAppend(t, l, p, text("3")) // a reader that has it is in the tail if shareAfter is 0
				if got := values(t, r, 1); got[0] != "3" {
					t.Fatalf("read %q", got)
				}
				fault := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: p.Topic, Err: c.code, Count: 2})
				mustAppend(t, l, p, text("4"))
				failures := 0
				for {
					batch, err := r.Next(deadline(t))
					if err == nil {
						if len(batch.Records) != 1 || batch.Records[0].Offset != 4 || batch.Next != 5 || batch.End != 5 {
							t.Errorf("read %+v", batch)
						}
						break
					}
					if failures++; !c.fails || !errors.Is(err, c.code) || failures > 2 {
						t.Fatalf("next: %v", err)
					}
				}
				if c.fails && failures == 0 {
					t.Error("no error was reported")
				}
				if fault.Hits() == 0 {
					t.Error("the fault was not injected")
				}
				for more := range 10 { // records that were fetched before the fault come before it
					if !errors.Is(c.code, kerr.OffsetOutOfRange) || l.Stats().StaleLeaders > 0 {
						return
					}
					mustAppend(t, l, p, text("%d", more))
					values(t, r, 1)
				}
				t.Errorf("the former leader was not counted: %+v", l.Stats())
			})
		}
	}
}

// TestBoundCodes answers requests for offsets with each code several times: the client asks again
// at most once, because its knowledge of leaders is fresh then.
func TestBoundCodes(t *testing.T) {
	for _, c := range []struct {
		code  *kerr.Error
		fails bool
	}{
		{code: kerr.UnknownTopicOrPartition},
		{code: kerr.LeaderNotAvailable},
		{code: kerr.NotLeaderForPartition},
		{code: kerr.ReplicaNotAvailable},
		{code: kerr.KafkaStorageError},
		{code: kerr.FencedLeaderEpoch},
		{code: kerr.OffsetNotAvailable},
		{code: kerr.TopicAuthorizationFailed, fails: true},
	} {
		t.Run(c.code.Message, func(t *testing.T) {
			t.Parallel()
			cluster := fake(t, 3)
			l := openFake(t, cluster)
			p := newTestTopic(t, l, 1)
			mustAppend(t, l, p, text("0"))
			fault := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: p.Topic, Err: c.code, Count: 5})
			end, err := l.End(deadline(t), p)
			switch {
			case c.fails && !errors.Is(err, c.code):
				t.Errorf("end: %v, want %v", err, c.code)
			case !c.fails && (err != nil || end != 1 || fault.Hits() != 5):
				t.Errorf("end is %d, %v, after %d faults", end, err, fault.Hits())
			}
		})
	}
}

// TestLeaderMoves moves the leader while a writer and a reader are at work.
func TestLeaderMoves(t *testing.T) {
	cluster := fake(t, 3)
	l := openFake(t, cluster)
	p := newTestTopic(t, l, 1)
	r := newReader(t, l, p, 0)
	for round := range 12 {
		if err := cluster.MoveTopicPartition(p.Topic, 0, int32(round%3)); err != nil {
			t.Fatal(err)
		}
		if res := mustAppend(t, l, p, text("%d", round)); res.Base != int64(round) {
			t.Fatalf("round %d got offset %d", round, res.Base)
		}
		if got := values(t, r, 1); got[0] != fmt.Sprint(round) {
			t.Fatalf("round %d read %q", round, got)
		}
	}
}

// TestMetadataOutage makes all look-ups fail for a while: appends to a topic that is new to the
// client wait for it.
func TestMetadataOutage(t *testing.T) {
	cluster := fake(t, 1)
	p := newTestTopic(t, openFake(t, cluster), 1)
	l := openFake(t, cluster)
	fault := cluster.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Metadata}, Topic: p.Topic, Err: kerr.LeaderNotAvailable, Count: 2,
	})
	mustAppend(t, l, p, text("x"))
	if fault.Hits() != 2 {
		t.Errorf("look-ups that failed: %d", fault.Hits())
	}
}

// TestSettingsOfANewTopic asks a broker that learns of a topic later than the one that described
// it.
func TestSettingsOfANewTopic(t *testing.T) {
	cluster := fake(t, 1)
	l := openFake(t, cluster)
	p := newTestTopic(t, l, 1)
	const late = 10
	fault := cluster.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.DescribeConfigs}, Err: kerr.UnknownTopicOrPartition, Count: late,
	})
	if _, err := l.Describe(deadline(t), p.Topic); err != nil {
		t.Error(err)
	}
	if fault.Hits() != late {
		t.Errorf("questions that failed: %d", fault.Hits())
	}
}

// TestReaderEnds: a reader fails for good, with the reason, when the log was replaced or lost
// records.
func TestReaderEnds(t *testing.T) {
	for name, c := range map[string]struct {
		from int64
		do   func(*testing.T, *kfake.Cluster, string) error
		want error
	}{
		"topic deleted": {0, func(_ *testing.T, c *kfake.Cluster, topic string) error { return c.DeleteTopic(topic) }, broker.ErrUnknownTopic},
		"topic deleted and created again": {0, func(_ *testing.T, c *kfake.Cluster, topic string) error {
			return errors.Join(c.DeleteTopic(topic), c.CreateTopic(topic, 1, nil))
		}, broker.ErrRegressed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := fake(t, 1)
			l := openFake(t, cluster)
			p := newTestTopic(t, l, 1)
			mustAppend(t, l, p, text("x"))
			r := newReader(t, l, p, c.from)
			values(t, r, 1)
			if err := c.do(t, cluster, p.Topic); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if _, err := r.Next(deadline(t)); !errors.Is(err, c.want) {
					t.Fatalf("next: %v, want %v", err, c.want)
				}
			}
		})
	}
}

// TestReaderBeforeStart reads records that were deleted.
func TestReaderBeforeStart(t *testing.T) {
	cluster := fake(t, 1)
	l := openFake(t, cluster)
	p := newTestTopic(t, l, 1)
	for i := range 5 {
		mustAppend(t, l, p, text("%d", i))
	}
	if err := cluster.DeleteRecords(p.Topic, 0, 3); err != nil {
		t.Fatal(err)
	}
	if _, err := newReader(t, l, p, 1).Next(deadline(t)); !errors.Is(err, broker.ErrOutOfRange) {
		t.Errorf("next below the first offset: %v", err)
	}
	if got := values(t, newReader(t, l, p, 3), 2); !slices.Equal(got, []string{"3", "4"}) {
		t.Errorf("read %q", got)
	}
}

// TestLogLostItsTail: the leader with the highest epoch says that the log ends before what a reader
// has read.
func TestLogLostItsTail(t *testing.T) {
	cluster := fake(t, 1)
	l := openFake(t, cluster)
	p := newTestTopic(t, l, 1)
	mustAppend(t, l, p, text("0"), text("1"))
	r := newReader(t, l, p, 0)
	values(t, r, 2)
	cluster.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		asked := req.(*kmsg.ListOffsetsRequest)                  //nolint:forcetypeassert // by its key
		resp := asked.ResponseKind().(*kmsg.ListOffsetsResponse) //nolint:forcetypeassert // by its key
		topic := kmsg.NewListOffsetsResponseTopic()
		topic.Topic = p.Topic
		part := kmsg.NewListOffsetsResponseTopicPartition()
		if part.Offset = 1; asked.Topics[0].Partitions[0].Timestamp == earliest {
			part.Offset = 0
		}
		topic.Partitions = append(topic.Partitions, part)
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: p.Topic, Err: kerr.OffsetOutOfRange})
	for range 2 {
		if _, err := r.Next(deadline(t)); !errors.Is(err, broker.ErrRegressed) {
			t.Fatalf("next: %v", err)
		}
	}
	if _, err := newReader(t, l, p, 1<<30).Next(deadline(t)); !errors.Is(err, broker.ErrOutOfRange) {
		t.Errorf("a reader that has seen nothing: %v", err)
	}
}

// TestAppendWaitsForSpace makes more appends than the buffer takes while the broker does not
// answer.
func TestAppendWaitsForSpace(t *testing.T) {
	cluster := fake(t, 1)
	l := open(t, Options{Brokers: cluster.ListenAddrs(), BufferRecords: 4})
	p := newTestTopic(t, l, 1)
	mustAppend(t, l, p, text("before"))
	hold := make(chan struct{})
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.SleepControl(func() { <-hold })
		return nil, nil, false
	})
	first := start(l, p, text("1"), text("2"), text("3"))
	blocked := make(chan (<-chan broker.AppendResult), 1)
	go func() { blocked <- start(l, p, text("4"), text("5")) }() // ends when there is room; waited for below
	close(hold)
	if r := wait(t, "result", first); r.Err != nil {
		t.Fatal(r.Err)
	}
	if r := wait(t, "result", wait(t, "append", blocked)); r.Err != nil || r.Last != 5 {
		t.Fatalf("%+v", r)
	}
	tooMany := wait(t, "result", start(l, p, slices.Repeat([]broker.Record{text("x")}, 5)...))
	if !errors.Is(tooMany.Err, broker.ErrTooLarge) {
		t.Errorf("more records than the buffer takes: %v", tooMany.Err)
	}
	until(t, "no append is open", func() bool { return l.Stats().AppendsOpen == 0 }) // counted down after the callback
	if s := l.Stats(); s.BytesOpen != 0 || s.Appends != 3 || s.Records != 6 || s.AppendErrors != 1 {
		t.Errorf("stats %+v", s)
	}
}

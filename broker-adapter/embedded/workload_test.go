package embedded

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// seeds is how many seeds each randomised test runs; nightly runs raise it. The seed is part of
// each test's name.
var seeds = flag.Uint64("seeds", 4, "seeds per randomised test")

const (
	testTopic      = "orders"
	testPartitions = 3
)

// ledger is the result of each append, to be compared with the log later.
type ledger struct {
	mu sync.Mutex
	// acked is the value at each acknowledged offset; refused holds values that were definitely not
	// written.
	acked   map[broker.Partition]map[int64]string
	refused map[string]bool
	unknown int
}

func newLedger() *ledger {
	l := &ledger{acked: map[broker.Partition]map[int64]string{}, refused: map[string]bool{}}
	for id := range int32(testPartitions) {
		l.acked[broker.Partition{Topic: testTopic, ID: id}] = map[int64]string{}
	}
	return l
}

// clone returns a copy of the ledger.
func (l *ledger) clone() *ledger {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &ledger{acked: map[broker.Partition]map[int64]string{}, refused: maps.Clone(l.refused), unknown: l.unknown}
	for p, offsets := range l.acked {
		c.acked[p] = maps.Clone(offsets)
	}
	return c
}

func (l *ledger) enter(t testing.TB, p broker.Partition, records []broker.Record, r broker.AppendResult) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case r.Err == nil:
		for i := range records {
			l.acked[p][r.Base+int64(i)] = string(records[i].Value)
		}
	case errors.Is(r.Err, ErrOutcomeUnknown):
		l.unknown++
	case errors.Is(r.Err, ErrFailed), errors.Is(r.Err, broker.ErrClosed):
		for i := range records {
			l.refused[string(records[i].Value)] = true
		}
	default:
		t.Errorf("an error that says nothing about the outcome: %v", r.Err)
	}
}

// write appends groups of 1 to 3 records to random partitions until n were sent, or more is false;
// several are in flight.
func (l *ledger) write(t testing.TB, log *Log, writer string, rng *rand.Rand, n int, more func() bool) {
	inflight := make(chan struct{}, 8)
	var open sync.WaitGroup
	defer open.Wait()
	for i := range n {
		if !more() {
			return
		}
		p := broker.Partition{Topic: testTopic, ID: rng.Int32N(testPartitions)}
		records := make([]broker.Record, 1+rng.IntN(3))
		pad := make([]byte, rng.IntN(300))
		for j := range records {
			records[j] = broker.Record{
				Key: fmt.Appendf(nil, "key-%d", rng.IntN(50)), Value: fmt.Appendf(nil, "%s %d %d %d", writer, i, j, len(records)),
				Headers: []broker.Header{{Key: "pad", Value: pad}},
			}
		}
		inflight <- struct{}{}
		open.Add(1)
		log.Append(p, records, func(r broker.AppendResult) {
			defer open.Done()
			l.enter(t, p, records, r)
			<-inflight
		})
	}
}

// writers runs some writers and waits for them.
func (l *ledger) writers(t testing.TB, log *Log, name string, seed uint64, writers, n int, more func() bool) {
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			l.write(t, log, fmt.Sprintf("%s%d", name, w), rand.New(rand.NewPCG(seed, uint64(w))), n, more)
		})
	}
	all.Wait()
}

// verify reads everything: what was acknowledged is at its offset, nothing refused is there,
// nothing is there twice, offsets have no gap (the reader says so), and the records of an append
// are there together or not at all.
func (l *ledger) verify(t testing.TB, log *Log) {
	t.Helper()
	seen := map[string]bool{}
	for p, acked := range l.acked {
		values, err := readAll(t.Context(), log, p)
		if err != nil {
			t.Fatal(err)
		}
		for offset, want := range acked {
			if offset >= int64(len(values)) || values[offset] != want {
				t.Fatalf("%v: acknowledged %q at offset %d is not there; the log ends at %d", p, want, offset, len(values))
			}
		}
		next, size := 0, 0
		for offset, value := range values {
			var writer string
			var i, j, count int
			if _, err := fmt.Sscanf(value, "%s %d %d %d", &writer, &i, &j, &count); err != nil {
				t.Fatalf("%v: offset %d holds %q", p, offset, value)
			}
			if seen[value] || l.refused[value] {
				t.Fatalf("%v: offset %d holds %q, which is there twice (%t) or was refused (%t)", p, offset, value, seen[value],
					l.refused[value])
			}
			seen[value] = true
			if j != next%max(size, 1) {
				t.Fatalf("%v: offset %d holds %q in the middle of a group", p, offset, value)
			}
			next, size = j+1, count
		}
		if next != size {
			t.Fatalf("%v: the log ends in the middle of a group of %d", p, size)
		}
	}
}

// readAll returns the values of a partition.
func readAll(ctx context.Context, log *Log, p broker.Partition) ([]string, error) {
	end, err := log.End(ctx, p)
	if err != nil {
		return nil, err
	}
	r, err := log.Read(p, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	values := make([]string, 0, end)
	for int64(len(values)) < end {
		batch, err := r.Next(ctx)
		if err != nil {
			return values, err
		}
		for i := range batch.Records {
			if batch.Records[i].Offset != int64(len(values)) {
				return values, fmt.Errorf("read offset %d, want %d", batch.Records[i].Offset, len(values))
			}
			values = append(values, string(batch.Records[i].Value))
		}
	}
	return values, nil
}

func createTestTopic(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Create(t.Context(), broker.TopicSpec{Name: testTopic, Partitions: testPartitions}); err != nil {
		t.Fatal(err)
	}
}

// appendWait appends one value and waits for the result.
func appendWait(l *Log, id int32, value string) broker.AppendResult {
	result := make(chan broker.AppendResult, 1)
	l.Append(broker.Partition{Topic: testTopic, ID: id}, []broker.Record{{Value: []byte(value)}},
		func(r broker.AppendResult) { result <- r })
	return <-result
}

func always() bool { return true }

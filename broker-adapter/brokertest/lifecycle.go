package brokertest

import (
	"context"
	"errors"
	"sync/atomic"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// testCloseDelivers closes during a burst of appends. When Close returns, each append has had
// exactly one result, in order: successes first, then ErrClosed.
func testCloseDelivers(f *fixture) {
	p := f.partition()
	const n = 500
	var delivered, repeated atomic.Int64
	results := make([]*broker.AppendResult, n)
	for i := range n {
		f.log.Append(p, []broker.Record{text("%d", i)}, func(r broker.AppendResult) {
			delivered.Add(1)
			if results[i] != nil {
				repeated.Add(1)
			}
			results[i] = &r
		})
	}
	if err := f.log.Close(); err != nil {
		f.Fatalf("close: %v", err)
	}
	if delivered.Load() != n || repeated.Load() != 0 {
		f.Fatalf("when Close returned %d of %d results were delivered, %d of them again", delivered.Load(), n,
			repeated.Load())
	}
	open := false
	for i, r := range results {
		switch {
		case r.Err == nil && open:
			f.Fatalf("append %d succeeded after one that did not", i)
		case r.Err != nil:
			open = true
			f.wantError("append open at Close", r.Err, broker.ErrClosed)
		}
	}
}

func testCloseWakesReaders(f *fixture) {
	p := f.partition()
	f.append(p, text("x"))
	r := f.reader(p, 0)
	f.take(r, 0, 1)
	ended, ctx := make(chan error, 1), f.context()
	go func() { // ends when the log is closed; waited for below
		_, err := r.Next(ctx)
		ended <- err
	}()
	if err := f.log.Close(); err != nil {
		f.Fatalf("close: %v", err)
	}
	f.wantError("next of a closed log", <-ended, broker.ErrClosed)
}

func testClosedRefuses(f *fixture) {
	p := f.partition()
	f.append(p, text("x"))
	if err := f.log.Close(); err != nil {
		f.Fatalf("close: %v", err)
	}
	f.wantError("append", f.wait(start(f.log, p, text("y"))).Err, broker.ErrClosed)
	f.wantError("read", f.firstError(p, 0), broker.ErrClosed)
	_, err := f.log.Start(f.context(), p)
	f.wantError("start", err, broker.ErrClosed)
	_, err = f.log.End(f.context(), p)
	f.wantError("end", err, broker.ErrClosed)
	_, err = f.log.Describe(f.context(), p.Topic)
	f.wantError("describe", err, broker.ErrClosed)
	f.wantError("create", f.log.Create(f.context(), broker.TopicSpec{Name: unique("topic"), Partitions: 1}),
		broker.ErrClosed)
	ctx, cancel := context.WithCancel(f.context())
	defer cancel()
	m := broker.Membership{Group: unique("group"), Worker: "worker-1", Topic: p.Topic}
	f.wantError("assignments", f.log.Assignments(ctx, m, func(broker.AssignmentEvent) {}), broker.ErrClosed)
	if err := f.log.Close(); err != nil && !errors.Is(err, broker.ErrClosed) {
		f.Errorf("second close: %v", err)
	}
}

// testReopen writes, closes and opens three times; records, topic id and offsets persist.
func testReopen(f *fixture) {
	topic := f.topic(3)
	id := f.describe(topic).ID
	const rounds = 3
	for round := range int64(rounds) {
		for part := range int32(3) {
			p := broker.Partition{Topic: topic, ID: part}
			if end := f.end(p); end != 2*round {
				f.Fatalf("opening %d: end of %v is %d, want %d", round, p, end, 2*round)
			}
			if r := f.append(p, text("%d/%d/a", part, round), text("%d/%d/b", part, round)); r.Base != 2*round {
				f.Fatalf("opening %d: append to %v got offset %d, want %d", round, p, r.Base, 2*round)
			}
		}
		if err := f.log.Close(); err != nil {
			f.Fatalf("close %d: %v", round, err)
		}
		f.log = f.opts.Reopen(f.T, f.log)
		if again := f.describe(topic); again.ID != id || again.Partitions != 3 {
			f.Fatalf("opening %d: topic is %+v, its id was %s", round, again, id)
		}
	}
	for part := range int32(3) {
		for i, r := range f.read(broker.Partition{Topic: topic, ID: part}, 0, 2*rounds) {
			want := text("%d/%d/%c", part, i/2, 'a'+i%2)
			if string(r.Value) != string(want.Value) {
				f.Errorf("partition %d offset %d holds %q, want %q", part, i, r.Value, want.Value)
			}
		}
	}
}

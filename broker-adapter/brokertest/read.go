package brokertest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

func testRoundTrip(f *fixture) {
	p := f.partition()
	want := []broker.Record{
		{Key: nil, Value: []byte("no key")},
		{Key: []byte{}, Value: []byte("empty key")},
		{Key: []byte("cart/42"), Value: []byte{}},
		{Key: nil, Value: []byte{}},
		{Key: []byte("Wagen/Grüße-日本-🛒"), Value: []byte("Wert ✓")},
		{Key: []byte{0, 0xff, 0x80}, Value: []byte{0xfe, 0, 1}},
		{Value: []byte("headers"), Headers: []broker.Header{
			{Key: "mr", Value: []byte{1, 2, 3}},
			{Key: "größe", Value: []byte{}},
			{Key: "", Value: []byte("nameless")},
			{Key: "mr", Value: []byte("again")},
			{Key: "long", Value: bytes.Repeat([]byte("0123456789"), 1000)},
		}},
		{Key: bytes.Repeat([]byte("k"), 1024), Value: bytes.Repeat([]byte("v"), 100_000)},
	}
	f.append(p, want...)
	for i, got := range f.read(p, 0, len(want)) {
		w := want[i]
		if (got.Key == nil) != (w.Key == nil) || !bytes.Equal(got.Key, w.Key) {
			f.Errorf("record %d: key %q (nil: %t), want %q (nil: %t)", i, got.Key, got.Key == nil, w.Key, w.Key == nil)
		}
		if !bytes.Equal(got.Value, w.Value) {
			f.Errorf("record %d: value %.60q, want %.60q", i, got.Value, w.Value)
		}
		if !slices.EqualFunc(got.Headers, w.Headers, equalHeader) {
			f.Errorf("record %d: headers %.200q, want %.200q", i, got.Headers, w.Headers)
		}
	}
}

func equalHeader(a, b broker.Header) bool { return a.Key == b.Key && bytes.Equal(a.Value, b.Value) }

func testAppendTime(f *fixture) {
	p := f.partition()
	before := f.opts.Now()
	f.append(p, text("x"), text("y"))
	after := f.opts.Now()
	for _, r := range f.read(p, 0, 2) {
		if r.Time.Before(before.Add(-clockSkew)) || r.Time.After(after.Add(clockSkew)) {
			f.Errorf("offset %d has append time %v, appended between %v and %v", r.Offset, r.Time, before, after)
		}
	}
}

func testReadPositions(f *fixture) {
	p := f.partition()
	const n = 300
	for i := range n / 3 {
		f.append(p, text("%d", 3*i), text("%d", 3*i+1), text("%d", 3*i+2))
	}
	for _, from := range []int64{0, 1, 100, n - 1} {
		for i, r := range f.read(p, from, n-int(from)) {
			if want := strconv.FormatInt(from+int64(i), 10); string(r.Value) != want {
				f.Fatalf("reading from %d: offset %d holds %q, want %q", from, r.Offset, r.Value, want)
			}
		}
	}
	end := f.reader(p, n)
	f.append(p, text("%d", n))
	if got := f.take(end, n, 1); string(got[0].Value) != strconv.Itoa(n) {
		f.Errorf("reading from the end got %q", got[0].Value)
	}
}

// testExpedite: a reader gets everything while two calls of Expedite are active, while one is, and
// afterwards.
func testExpedite(f *fixture) {
	p := f.partition()
	r := f.reader(p, 0)
	first, second := f.log.Expedite(), f.log.Expedite()
	f.append(p, text("two"))
	f.take(r, 0, 1)
	first()
	f.append(p, text("one"))
	f.take(r, 1, 1)
	second()
	f.append(p, text("afterwards"))
	f.take(r, 2, 1)
}

// testReadWaits lets the context of Next end, on an empty and on a filled partition; the reader
// stays usable.
func testReadWaits(f *fixture) {
	p := f.partition()
	r := f.reader(p, 0)
	for i := range int64(2) {
		ctx, cancel := context.WithTimeout(f.Context(), quiet)
		_, err := r.Next(ctx)
		cancel()
		f.wantError("next at the end of an idle partition", err, context.DeadlineExceeded)
		f.append(p, text("%d", i))
		f.take(r, i, 1)
	}
	canceled, cancel := context.WithCancel(f.Context())
	cancel()
	_, err := r.Next(canceled)
	f.wantError("next with a context that has ended", err, context.Canceled)
}

func testReadWakes(f *fixture) {
	p := f.partition()
	r, ctx := f.reader(p, 0), f.context()
	const n = 50
	seen, failed := make(chan int64), make(chan error, 1)
	var reading sync.WaitGroup
	reading.Go(func() { // ends after n records or with ctx
		defer close(seen)
		for i := range int64(n) {
			if _, err := collect(ctx, r, i, 1); err != nil {
				failed <- err
				return
			}
			seen <- i
		}
	})
	defer reading.Wait()
	for i := range int64(n) {
		f.append(p, text("%d", i))
		if _, ok := <-seen; !ok {
			f.Fatalf("waiting reader after append %d: %v", i, <-failed)
		}
	}
}

func testReadOutOfRange(f *fixture) {
	p := f.partition()
	f.append(p, text("0"), text("1"))
	for _, from := range []int64{3, 1 << 40, -1} {
		f.wantError(fmt.Sprintf("read of two records from offset %d", from), f.firstError(p, from), broker.ErrOutOfRange)
	}
}

func testReadUnknownTopic(f *fixture) {
	f.wantError("read of a missing topic", f.firstError(broker.Partition{Topic: unique("missing")}, 0),
		broker.ErrUnknownTopic)
	f.wantError("read of a missing partition", f.firstError(broker.Partition{Topic: f.topic(2), ID: 2}, 0),
		broker.ErrUnknownTopic)
}

// testConcurrent runs writers and readers on all partitions at once. Readers must see exactly what
// was acknowledged, at the acknowledged offsets.
func testConcurrent(f *fixture) {
	const partitions, writers, appends = 4, 4, 100
	topic, ctx := f.topic(partitions), f.context()
	var (
		mu    sync.Mutex
		acked [partitions]map[int64]string
		all   sync.WaitGroup
	)
	for id := range int32(partitions) {
		acked[id] = map[int64]string{}
		p := broker.Partition{Topic: topic, ID: id}
		for w := range writers {
			all.Go(func() { // ends by itself; waited for below
				for i := range appends {
					first, second := fmt.Sprintf("%d/%d/%d/a", id, w, i), fmt.Sprintf("%d/%d/%d/b", id, w, i)
					r := f.wait(start(f.log, p, text("%s", first), text("%s", second)))
					if r.Err != nil {
						f.Errorf("append to %v: %v", p, r.Err)
						return
					}
					mu.Lock()
					acked[id][r.Base], acked[id][r.Last] = first, second
					mu.Unlock()
				}
			})
		}
	}
	var seen [partitions][]broker.Record
	for id := range int32(partitions) {
		reader := f.reader(broker.Partition{Topic: topic, ID: id}, 0)
		all.Go(func() { // ends when it has seen everything, or with ctx; waited for below
			var err error
			if seen[id], err = collect(ctx, reader, 0, writers*appends*2); err != nil {
				f.Errorf("partition %d: %v", id, err)
			}
		})
	}
	all.Wait()
	for id := range seen {
		for _, r := range seen[id] {
			if want, ok := acked[id][r.Offset]; !ok || string(r.Value) != want {
				f.Fatalf("partition %d offset %d: read %q, acknowledged %q", id, r.Offset, r.Value, want)
			}
		}
	}
}

func testPartitionsApart(f *fixture) {
	var all []broker.Partition
	for range 3 {
		topic := f.topic(5)
		for id := range int32(5) {
			all = append(all, broker.Partition{Topic: topic, ID: id})
		}
	}
	for round := range 3 {
		for _, p := range all {
			f.append(p, text("%s/%d/%d", p.Topic, p.ID, round))
		}
	}
	for _, p := range all {
		for round, r := range f.read(p, 0, 3) {
			if want := text("%s/%d/%d", p.Topic, p.ID, round); !bytes.Equal(r.Value, want.Value) {
				f.Errorf("%v offset %d holds %q", p, round, r.Value)
			}
		}
	}
}

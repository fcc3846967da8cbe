package brokertest

import (
	"slices"
	"sync"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

func testContiguous(f *fixture) {
	p := f.partition()
	next := int64(0)
	for i := range 20 {
		records := slices.Repeat([]broker.Record{text("%d", i)}, 1+i%3)
		r := f.append(p, records...)
		if r.Base != next || r.Last != next+int64(len(records))-1 {
			f.Fatalf("append %d of %d records got offsets %d to %d, want them from %d", i, len(records), r.Base, r.Last, next)
		}
		next = r.Last + 1
	}
}

func testAppendIsOneRun(f *fixture) {
	p := f.partition()
	const writers, appends, size = 8, 20, 5
	bases := make([][]int64, writers)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() { // ends by itself; all.Wait waits for it
			for i := range appends {
				var records []broker.Record
				for j := range size {
					records = append(records, text("%d/%d/%d", w, i, j))
				}
				r := f.wait(start(f.log, p, records...))
				if r.Err != nil || r.Last-r.Base != size-1 {
					f.Errorf("writer %d, append %d: %+v", w, i, r)
					return
				}
				bases[w] = append(bases[w], r.Base)
			}
		})
	}
	all.Wait()
	if f.Failed() {
		return
	}
	got := f.read(p, 0, writers*appends*size)
	for w, bases := range bases {
		for i, base := range bases {
			for j := range int64(size) {
				if want := string(text("%d/%d/%d", w, i, j).Value); string(got[base+j].Value) != want {
					f.Fatalf("offset %d holds %q, want %q", base+j, got[base+j].Value, want)
				}
			}
		}
	}
}

func testResultsInOrder(f *fixture) {
	p := broker.Partition{Topic: f.topicWithLimit(1, smallLimit)}
	const n = 1000
	type result struct {
		call int
		broker.AppendResult
	}
	results := make(chan result, n)
	for i := range n {
		record := text("%d", i)
		if i%100 == 50 {
			record.Value = noise(2 * smallLimit) // refused, and reported in order
		}
		f.log.Append(p, []broker.Record{record}, func(r broker.AppendResult) { results <- result{i, r} })
	}
	ctx, next := f.context(), int64(0)
	for i := range n {
		select {
		case r := <-results:
			if r.call != i {
				f.Fatalf("result %d belongs to append %d", i, r.call)
			}
			if i%100 == 50 {
				f.wantError("append above the limit", r.Err, broker.ErrTooLarge)
				continue
			}
			if r.Err != nil || r.Base != next || r.Last != next {
				f.Fatalf("append %d: %+v, want offset %d", i, r.AppendResult, next)
			}
			next++
		case <-ctx.Done():
			f.Fatalf("%d of %d results within %v", i, n, f.opts.Timeout)
		}
	}
}

// testResultIsAsynchronous appends under a lock that the callback takes: a log that calls back
// inside Append deadlocks.
func testResultIsAsynchronous(f *fixture) {
	p := f.partition()
	var mu sync.Mutex
	done := make(chan broker.AppendResult, 1)
	mu.Lock()
	f.log.Append(p, []broker.Record{text("x")}, func(r broker.AppendResult) {
		mu.Lock()
		defer mu.Unlock()
		done <- r
	})
	mu.Unlock()
	if r := f.wait(done); r.Err != nil {
		f.Fatalf("append: %v", r.Err)
	}
}

func testBuffersAreLent(f *fixture) {
	p := f.partition()
	buf := []byte("first-key first-value first-head")
	records := []broker.Record{{Key: buf[:9], Value: buf[10:21], Headers: []broker.Header{{Key: "h", Value: buf[22:]}}}}
	f.append(p, records...)
	for i := range buf {
		buf[i] = '#'
	}
	records[0].Headers[0] = broker.Header{}
	got := f.read(p, 0, 1)[0]
	if string(got.Key) != "first-key" || string(got.Value) != "first-value" || string(got.Header("h")) != "first-head" {
		f.Fatalf("the log kept a buffer beyond the result: read %q, %q, %q", got.Key, got.Value, got.Header("h"))
	}
}

func testTooLarge(f *fixture) {
	p := broker.Partition{Topic: f.topicWithLimit(1, smallLimit)}
	f.append(p, text("before"))
	one := f.wait(start(f.log, p, broker.Record{Value: noise(2 * smallLimit)}))
	f.wantError("one record above the limit", one.Err, broker.ErrTooLarge)
	var many []broker.Record
	for range 8 {
		many = append(many, broker.Record{Value: noise(smallLimit / 4)})
	}
	f.wantError("records above the limit together", f.wait(start(f.log, p, many...)).Err, broker.ErrTooLarge)
	if r := f.append(p, text("after")); r.Base != 1 {
		f.Errorf("an append after refused ones got offset %d, want 1: something was written", r.Base)
	}
	got := f.read(p, 0, 2)
	if string(got[0].Value) != "before" || string(got[1].Value) != "after" {
		f.Errorf("read %q and %q", got[0].Value, got[1].Value)
	}
}

// testAtTheLimit appends exactly as much as Describe says a topic takes, as broker.Size counts it,
// in one record and in many small ones. One byte more is refused and affects no other append.
func testAtTheLimit(f *fixture) {
	p := broker.Partition{Topic: f.topicWithLimit(1, smallLimit)}
	limit := f.describe(p.Topic).MaxAppendBytes
	if limit != smallLimit {
		f.Fatalf("a topic with a limit of %d says %d", smallLimit, limit)
	}
	small := broker.Record{
		Key: []byte("k"), Value: []byte("v"), Headers: []broker.Header{{Key: "mr", Value: []byte("envelope")}},
	}
	var many []broker.Record
	for next := append(many, small); broker.Size(next) <= limit; next = append(next, small) {
		many = next
	}
	offset := int64(0)
	for name, records := range map[string][]broker.Record{"one record": {small}, "many records": many} {
		last := &records[len(records)-1]
		value := last.Value
		last.Value = append(noise(limit-broker.Size(records)), value...)
		before := f.append(p, text("before"))
		if r := f.append(p, records...); r.Base != before.Last+1 || r.Last-r.Base+1 != int64(len(records)) {
			f.Errorf("%s of exactly the limit got offsets %d to %d, after %d", name, r.Base, r.Last, before.Last)
		}
		last.Value = append(last.Value, 'x')
		results := []<-chan broker.AppendResult{
			start(f.log, p, text("a")), start(f.log, p, records...), start(f.log, p, text("b")),
		}
		a, above, b := f.wait(results[0]), f.wait(results[1]), f.wait(results[2])
		f.wantError(name+" one byte above the limit", above.Err, broker.ErrTooLarge)
		if a.Err != nil || b.Err != nil || b.Base != a.Last+1 {
			f.Errorf("appends around one that is refused: %+v and %+v", a, b)
		}
		offset = b.Last + 1
	}
	f.read(p, 0, int(offset))
}

func testJustBelowLimit(f *fixture) {
	p := f.partition()
	value := noise(900 << 10) // the largest commit of millrace, under a limit of 1 MiB
	f.append(p, broker.Record{Value: value})
	if got := f.read(p, 0, 1)[0]; !slices.Equal(got.Value, value) {
		f.Errorf("a value of %d bytes came back changed (%d bytes)", len(value), len(got.Value))
	}
}

func testAppendUnknownTopic(f *fixture) {
	missing := broker.Partition{Topic: unique("missing")}
	f.wantError("append to a missing topic", f.wait(start(f.log, missing, text("x"))).Err, broker.ErrUnknownTopic)
	for _, id := range []int32{2, -1} {
		p := broker.Partition{Topic: f.topic(2), ID: id}
		f.wantError("append to a missing partition", f.wait(start(f.log, p, text("x"))).Err, broker.ErrUnknownTopic)
	}
}

// testTwoClients interleaves two writers: each sees a gap where the other wrote, and both read the
// same.
func testTwoClients(f *fixture) {
	p := f.partition()
	other := f.opts.Join(f.T, f.log)
	defer func() {
		if err := other.Close(); err != nil {
			f.Errorf("close the second client: %v", err)
		}
	}()
	want := []string{"a0", "b0", "b1", "a1"}
	for i, value := range want {
		log := f.log
		if value[0] == 'b' {
			log = other
		}
		r := f.wait(start(log, p, text("%s", value)))
		if r.Err != nil || r.Base != int64(i) {
			f.Fatalf("append %s: %+v, want offset %d", value, r, i)
		}
	}
	for _, log := range []broker.Log{f.log, other} {
		r, err := log.Read(p, 0)
		if err != nil {
			f.Fatalf("read %v: %v", p, err)
		}
		got := f.take(r, 0, len(want))
		closeReader(f.T, r)
		for i := range want {
			if string(got[i].Value) != want[i] {
				f.Errorf("offset %d holds %q, want %q", i, got[i].Value, want[i])
			}
		}
	}
}

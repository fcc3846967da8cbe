package brokertest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// tick is the key of the records that the suite writes so that a log has something to compact
// before them.
const tick = "tick"

// compactedTopic is a compacted partition and everything that was appended to it, by offset.
type compactedTopic struct {
	*fixture
	part    broker.Partition
	written []broker.Record
}

// compacted creates a compacted topic with one partition. It is named like the deltas of an app,
// because some logs tell a compacted topic by its name.
func (f *fixture) compacted() *compactedTopic {
	f.Helper()
	spec := broker.TopicSpec{
		Name: unique("topic") + ".deltas", Partitions: 1, Compacted: true, MaxRecordBytes: maxRecordBytes,
	}
	if err := f.log.Create(f.context(), spec); err != nil {
		f.Fatalf("create topic %s: %v", spec.Name, err)
	}
	return &compactedTopic{fixture: f, part: broker.Partition{Topic: spec.Name}}
}

// put appends records as one batch and remembers them.
func (c *compactedTopic) put(records ...broker.Record) {
	c.Helper()
	r := c.append(c.part, records...)
	if want := int64(len(c.written)); r.Base != want {
		c.Fatalf("append at %d, want %d", r.Base, want)
	}
	c.written = append(c.written, records...)
}

// fill writes and deletes a few keys several times. The last record is not a tombstone.
func (c *compactedTopic) fill(seed uint64) {
	c.Helper()
	c.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // a test
	for i := range 30 {
		r := broker.Record{Key: fmt.Appendf(nil, "key %d", rng.IntN(6))}
		if rng.IntN(3) > 0 {
			r.Value = fmt.Appendf(nil, "value %d", i)
		}
		c.put(r)
	}
	c.put(keyed(tick, "0"))
}

func keyed(key, value string) broker.Record {
	return broker.Record{Key: []byte(key), Value: []byte(value)}
}

// superseded returns how many of the offsets have a newer record of their key, or are tombstones.
func (c *compactedTopic) superseded(offsets map[int64]bool) (n int) {
	newest := c.newest()
	for offset := range offsets {
		r := &c.written[offset]
		if string(r.Key) != tick && (r.Value == nil || newest[string(r.Key)] != offset) {
			n++
		}
	}
	return n
}

func (c *compactedTopic) newest() map[string]int64 {
	newest := map[string]int64{}
	for offset, r := range c.written {
		newest[string(r.Key)] = int64(offset)
	}
	return newest
}

// check reads from an offset to the end and returns the offsets that have a record: each is what
// was written there, in order, and the newest record of each key is among them unless it is a
// tombstone.
func (c *compactedTopic) check(from int64) map[int64]bool {
	c.Helper()
	end, r, found := int64(len(c.written)), c.reader(c.part, from), map[int64]bool{}
	for next := from; next < end; {
		batch, err := r.Next(c.context())
		if err != nil {
			c.Fatalf("next from %d of %d: %v", next, end, err)
		}
		for i := range batch.Records {
			got := &batch.Records[i]
			if got.Offset < next || got.Offset >= batch.Next {
				c.Fatalf("offset %d in a batch from %d to %d", got.Offset, next, batch.Next)
			}
			c.compare(got)
			next, found[got.Offset] = got.Offset+1, true
		}
		if batch.Next < next || batch.End < batch.Next {
			c.Fatalf("a batch goes on at %d of %d, after %d", batch.Next, batch.End, next)
		}
		next = batch.Next
	}
	for key, offset := range c.newest() {
		if offset >= from && c.written[offset].Value != nil && !found[offset] {
			c.Fatalf("from %d: the newest record of %q, at %d, is gone", from, key, offset)
		}
	}
	return found
}

func (c *compactedTopic) compare(got *broker.Record) {
	c.Helper()
	want := &c.written[got.Offset]
	if !bytes.Equal(got.Key, want.Key) || !bytes.Equal(got.Value, want.Value) ||
		(got.Value == nil) != (want.Value == nil) {
		c.Fatalf("offset %d holds %q=%q (nil: %t), want %q=%q", got.Offset, got.Key, got.Value, got.Value == nil,
			want.Key, want.Value)
	}
}

func testCompacted(f *fixture) {
	c := f.compacted()
	c.fill(1)
	c.check(0)
	if f.opts.Compact != nil {
		ctx := f.context()
		for left := 1; left > 0; left = c.superseded(c.check(0)) {
			if ctx.Err() != nil {
				f.Fatalf("within %v %d superseded records and tombstones have not gone", f.opts.Timeout, left)
			}
			c.put(keyed(tick, strconv.Itoa(len(c.written))))
			f.opts.Compact(f.T, f.log, c.part)
		}
	}
	for from := int64(0); from <= 8; from++ { // also from offsets that have no record
		c.check(from)
	}
	if end := f.end(c.part); end != int64(len(c.written)) {
		f.Errorf("the log ends at %d, %d records were written", end, len(c.written))
	}
	c.put(keyed("after", "1"))
	c.check(0)
}

func testTombstone(f *fixture) {
	c := f.compacted()
	c.put(broker.Record{Key: []byte("empty"), Value: []byte{}}, broker.Record{Key: []byte("gone")})
	c.check(0)
	c.put(broker.Record{Key: []byte("gone")}, keyed("gone", "no more"))
	c.check(0)
}

func testKeyNeeded(f *fixture) {
	c := f.compacted()
	r := f.wait(start(f.log, c.part, keyed("a", "1"), text("no key")))
	f.wantError("append without a key", r.Err, broker.ErrNoKey)
	c.put(keyed("a", "2"))
	c.check(0)
}

func testReopenCompacted(f *fixture) {
	c := f.compacted()
	c.fill(2)
	c.put(broker.Record{Key: []byte("key 1")}) // a tombstone is the last record
	for range 2 {
		if err := f.log.Close(); err != nil {
			f.Fatalf("close: %v", err)
		}
		f.log = f.opts.Reopen(f.T, f.log)
		c.check(0)
		c.put(keyed("key 2", "again"), broker.Record{Key: []byte("key 3")})
		c.check(0)
	}
}

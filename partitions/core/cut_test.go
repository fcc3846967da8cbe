package core

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
)

// decide runs a command on a new entity with this outcome.
func decide(c *Core, id string, out *entities.Outcome) *Call {
	cmd := command(id, "")
	cmd.ID, cmd.Principal, cmd.TraceParent = "id-"+id, "alice", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	call := &Call{Caller: &seat{}, Command: cmd}
	c.Submitted(call)
	c.Decided(call, &Opening{}, out, nil)
	return call
}

// events is the outcome of a command that stores so many events of so many bytes each.
func events(n, size int) *entities.Outcome {
	out := &entities.Outcome{Reply: reply("done")}
	for range n {
		out.Events = append(out.Events, entities.Payload{TypeURL: "type.googleapis.com/t.Event", Value: make([]byte, size)})
	}
	return out
}

// appends takes the batches from the core's effects, and checks that the log takes each of them.
func appends(t *testing.T, c *Core) []*Batch {
	t.Helper()
	var sent []*Batch
	for _, e := range c.effects {
		b, is := e.Do.(Append)
		if !is {
			continue
		}
		sent = append(sent, b.Batch)
		b.Encode()
		if size := broker.Size(b.records); size > c.limits.AppendBytes || len(b.records) > c.limits.AppendRecords {
			t.Fatalf("an append has %d bytes in %d records; the log takes %d in %d",
				size, len(b.records), c.limits.AppendBytes, c.limits.AppendRecords)
		}
	}
	c.effects = nil
	return sent
}

// acknowledgeAll acknowledges what is sent until nothing is left, and returns all records in the
// order of the log.
func acknowledgeAll(t *testing.T, c *Core) []materializer.Entry {
	t.Helper()
	var all []materializer.Entry
	for c.Flush(); len(c.sent) > 0; c.Flush() {
		appends(t, c)
		b := c.sent[0]
		all = append(all, b.Entries...)
		c.Acked(b, broker.AppendResult{Base: c.next, Last: c.next + int64(len(b.Entries)) - 1})
		if c.state != Active {
			t.Fatalf("the core is %s: %s", c.state, c.lastFence)
		}
		c.tellOperators()
	}
	appends(t, c)
	return all
}

// tellOperators does what the loop does for operators whose request is in the log.
func (c *Core) tellOperators() {
	for i := range c.effects {
		if r, is := c.effects[i].Do.(ReportResolved); is {
			r.Done(r.Logged)
			c.effects[i].Do = Rest{}
		}
	}
}

// TestBatchesAreCut: whatever is decided while batches are on their way, the log takes each append.
// The records of a command stay together and in order, and each answer leaves with the batch that
// has its records. Before, one append held all of it.
func TestBatchesAreCut(t *testing.T) {
	for _, limit := range []struct{ bytes, records int }{{8 << 10, 8192}, {1 << 20, 7}} {
		c := activeCore(t, false)
		c.limits.AppendBytes, c.limits.AppendRecords, c.limits.Inflight = limit.bytes, limit.records, 2
		c.limits.MaxCommit = limit.bytes - broker.AppendOverhead
		var calls []*Call
		for i := range 40 {
			calls = append(calls, decide(c, fmt.Sprint("e", i), events(1+i%5, 500+i)))
			if i%10 == 3 {
				calls = append(calls, decide(c, fmt.Sprint("r", i), &entities.Outcome{Reply: reply("read")}))
			}
		}
		c.Flush()
		if sent := appends(t, c); len(sent) != 2 || len(c.full) < 5 {
			t.Fatalf("%d batches are sent and %d wait; want 2 on their way and the rest behind them", len(sent), len(c.full))
		}
		for finished := 0; len(c.sent) > 0; {
			b := c.sent[0]
			want := append(slices.Clone(calls[:finished]), b.Calls...)
			c.Acked(b, broker.AppendResult{Base: c.next, Last: c.next + int64(len(b.Entries)) - 1})
			finished = len(want)
			for i, call := range calls {
				if call.finished != (i < finished) || (i < finished && call != want[i]) {
					t.Fatalf("call %d is finished: %v, after %d calls whose batches are committed", i, call.finished, finished)
				}
			}
			for i := 0; i < len(b.Entries); i += int(b.Entries[i].Envelope.Size()) {
				env := &b.Entries[i].Envelope
				if env.Index != 0 || i+int(env.Size()) > len(b.Entries) {
					t.Fatalf("record %d of %d is number %d of %d: a command is cut in two", i, len(b.Entries), env.Index, env.Size())
				}
			}
			c.Flush()
			appends(t, c)
		}
		if !c.Quiet() || c.ordinal != uint64(c.next)-1 {
			t.Errorf("quiet: %v; %d records were decided, and the log has them below %d", c.Quiet(), c.ordinal, c.next)
		}
	}
}

// TestACutKeepsWhatBelongsToTheRecords: timers and effects have the offset of their record, in
// every batch.
func TestACutKeepsWhatBelongsToTheRecords(t *testing.T) {
	c := activeCore(t, true)
	c.limits.AppendBytes = 4 << 10
	for i := range 5 {
		out := events(1, 1500)
		out.Timers = []entities.TimerChange{{Name: "t", After: time.Hour}}
		out.Effects = []entities.SideEffect{{Target: entities.Target{Method: "x"}}}
		decide(c, fmt.Sprint("e", i), out)
	}
	all := acknowledgeAll(t, c)
	if len(all) != 15 || len(c.timers.known) != 5 || len(c.outbox.byOffset) != 5 {
		t.Fatalf("%d records, %d timers, %d effects; want 15, 5 and 5", len(all), len(c.timers.known), len(c.outbox.byOffset))
	}
	for i := range all {
		offset := int64(1 + i)
		_, timer := c.timers.known[offset]
		if kind := all[i].Envelope.Kind; timer != (kind == record.TimerSet) ||
			(c.outbox.byOffset[offset] != nil) != (kind == record.Effect) {
			t.Errorf("offset %d holds a %s; a timer of this offset is known: %v, an effect: %v",
				offset, kind, timer, c.outbox.byOffset[offset] != nil)
		}
	}
}

// TestWhatBecameOfManyEffectsIsCut: an operator resolves, and targets refuse, thousands of effects
// between two appends.
func TestWhatBecameOfManyEffectsIsCut(t *testing.T) {
	c := activeCore(t, true)
	c.limits.AppendBytes = 124 << 10
	const n = 4000
	for i := range n {
		c.keep(&Delivery{Offset: int64(i) * 1_000_000_000, state: deliveryWaiting})
	}
	for i := range n {
		offset := int64(i) * 1_000_000_000
		if i%2 == 0 {
			c.Delivered(
				offset, nil, entities.Errorf(entities.InvalidCommand, entities.NotApplied, "%s", strings.Repeat("\xffx", 512)),
			)
		} else {
			c.Delivered(offset, nil, nil)
		}
	}
	resolved := 0
	for i := 0; i < n; i += 4 {
		offset := int64(i) * 1_000_000_000
		c.Resolve(&Resolution{Offset: offset, Effects: []*Delivery{{Offset: offset}}, Drop: i%8 == 0, Done: func(found bool) {
			if !found || len(c.sent) == 0 && len(c.full) > 0 {
				t.Error("an operator is told before the log has it, or that it was not parked")
			}
			resolved++
		}})
	}
	c.settleNow = true
	var parked, replayed, done int
	for _, e := range acknowledgeAll(t, c) {
		said, err := record.ParseSettled(e.Value)
		if err != nil {
			t.Fatal(err)
		}
		parked, replayed, done = parked+len(said.GetParked()), replayed+len(said.GetReplayed()), done+len(said.GetDone())
	}
	if parked != n/2 || replayed != n/8 || done != n/2+n/8 || resolved != n/4 {
		t.Errorf("parked %d, replayed %d, done %d, resolved %d", parked, replayed, done, resolved)
	}
}

// TestAFenceRefusesWhatWaitsToBeSent: a command that was never sent was not applied.
func TestAFenceRefusesWhatWaitsToBeSent(t *testing.T) {
	c := activeCore(t, false)
	c.limits.AppendBytes, c.limits.Inflight = 4<<10, 1
	var calls []*Call
	for i := range 6 {
		calls = append(calls, decide(c, fmt.Sprint("e", i), events(1, 1500)))
	}
	c.Flush()
	first := len(c.sent[0].Calls)
	c.fence("for a test", false)
	for i, call := range calls {
		want := entities.NotApplied
		if i < first {
			want = entities.Unknown
		}
		if !call.finished || call.Err == nil || call.Err.Outcome != want {
			t.Errorf("call %d ends with %v; want %s", i, call.Err, want)
		}
	}
	if len(c.full) != 0 || !c.open.empty() {
		t.Error("something of the ownership that ended is left to be sent")
	}
}

// TestAReleaseSendsWhatWaits: everything that is decided is committed before the release.
func TestAReleaseSendsWhatWaits(t *testing.T) {
	c := activeCore(t, false)
	c.limits.AppendBytes, c.limits.Inflight = 4<<10, 1
	var calls []*Call
	for i := range 6 {
		calls = append(calls, decide(c, fmt.Sprint("e", i), events(1, 1500)))
	}
	c.Flush()
	c.Revoked()
	for c.state == Releasing {
		b := c.sent[0]
		c.Acked(b, broker.AppendResult{Base: c.next, Last: c.next + int64(len(b.Entries)) - 1})
		c.Flush()
	}
	for i, call := range calls {
		if !call.finished || call.Err != nil {
			t.Errorf("call %d ends with %v; want it committed", i, call.Err)
		}
	}
	if !asks[ReportReleased](c) {
		t.Error("the partition is not released")
	}
}

// TestACommandCountsWhatTheLogCounts: timers and names count for a command's limit as they
// do for the log's, and a command that the topic would not take is refused alone, however large the
// limit of a command is.
func TestACommandCountsWhatTheLogCounts(t *testing.T) {
	limits := Limits{MaxCommit: 3 << 20, MaxCommitRecords: 100_000}.WithDefaults().Within(broker.TopicInfo{
		MaxAppendBytes: 64 << 10, MaxAppendRecords: 300,
	})
	timers := &entities.Outcome{Reply: reply("done")}
	for i := range 100 {
		timers.Timers = append(timers.Timers, entities.TimerChange{
			Name: fmt.Sprint(strings.Repeat("n", 600), i), After: time.Hour,
		})
	}
	for name, out := range map[string]*entities.Outcome{
		"bytes": events(1, 64<<10), "records": events(301, 1), "names of timers": timers, "envelopes": events(290, 40),
	} {
		c := activeCore(t, true)
		c.limits = limits
		before := decide(c, "before", events(1, 1000))
		large := decide(c, "large", out)
		after := decide(c, "after", events(1, 1000))
		acknowledgeAll(t, c)
		if large.Err == nil || large.Err.Reason != entities.TooLarge || large.Err.Outcome != entities.NotApplied {
			t.Errorf("too many %s: the command ends with %v", name, large.Err)
		}
		if before.Err != nil || after.Err != nil || c.next != 3 {
			t.Errorf("too many %s: commands beside it end with %v and %v, the log ends at %d",
				name, before.Err, after.Err, c.next)
		}
	}
}

// TestBarriersOfARepairFit: they are counted, and not measured.
func TestBarriersOfARepairFit(t *testing.T) {
	c := activeCore(t, true)
	c.limits.AppendBytes = 124 << 10
	c.owner = record.Owner{Epoch: 1 << 62, Nonce: 1 << 63}
	c.now.Log, c.ordinal = 1<<62, 1<<62
	c.floor = c.next + 10*passBatch
	c.pass()
	if sent := appends(t, c); len(sent) != 1 || len(sent[0].Entries) != passBatch {
		t.Errorf("%d appends", len(sent))
	}
}

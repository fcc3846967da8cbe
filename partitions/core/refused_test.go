package core

import (
	"testing"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
)

// TestRefusalAndItsCommandAreOneGroup: the end of an effect and the command with its refusal are in
// the log together or not at all: otherwise a refusal could be lost, or sent twice.
func TestRefusalAndItsCommandAreOneGroup(t *testing.T) {
	c := activeCore(t, true)
	c.keep(&Delivery{Offset: 1, from: entities.Key{Type: "words", ID: "a"}, onRefused: "test.Words/Refused"})
	c.pump()
	c.next = 2
	c.Delivered(1, nil, &entities.Error{Reason: entities.FunctionRefused, Outcome: entities.Refused, Message: "no"})
	c.Ticked()
	c.Flush()
	if len(c.sent) != 1 {
		t.Fatal("nothing was written about the refusal")
	}
	entries := c.sent[0].Entries
	if len(entries) != 2 {
		t.Fatalf("%d records, want an effect and a settled record", len(entries))
	}
	for i, kind := range []record.Kind{record.Effect, record.Settled} {
		if env := entries[i].Envelope; env.Kind != kind || env.Index != uint32(i) || env.Count != 2 {
			t.Errorf("record %d is %s, %d of %d; want %s, %d of 2", i, env.Kind, env.Index, env.Count, kind, i)
		}
	}
	c.Acked(c.sent[0], broker.AppendResult{Base: 2, Last: 3})
	if d := c.outbox.byOffset[2]; d == nil || d.Effect.Method != "Refused" {
		t.Fatalf("the outbox has %+v at the offset of the command that tells of the refusal", d)
	}
	if w := c.progress().Through; w != 2 {
		t.Errorf("the progress is %d, want 2: the effect is done, and what tells of it is not", w)
	}
}

// TestRefusalsAreBounded: the oldest are dropped, by a record in the log.
func TestRefusalsAreBounded(t *testing.T) {
	c := activeCore(t, true)
	offsets := make([]int64, MaxRefusals+3)
	for i := range offsets {
		offsets[i] = int64(i + 10)
	}
	c.RefusalsLoaded(offsets)
	if got := c.outbox.results.GetRefused(); len(got) != 3 || got[0] != 10 || got[2] != 12 {
		t.Errorf("the log will say that %v are dropped, want the oldest three", got)
	}
	if len(c.outbox.kept) != MaxRefusals || c.outbox.kept[0] != 13 {
		t.Errorf("%d are kept, the first is %d", len(c.outbox.kept), c.outbox.kept[0])
	}
}

package core

import (
	"testing"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
)

// TestAConcludedForwardIsNotParked: whatever else is under way for a forward when it is concluded,
// it does not count as parked afterwards, is not sent again, and no later record marks it as
// parked.
func TestAConcludedForwardIsNotParked(t *testing.T) {
	const (
		park = iota
		flush
		commit
		conclude
		replay
		drop
	)
	for name, steps := range map[string][]int{
		"no record says yet that it is parked":   {park, conclude, commit},
		"such a record is on its way":            {park, flush, conclude, commit},
		"the log has such a record":              {park, commit, conclude, commit},
		"an operator has it sent again":          {park, commit, replay, conclude, commit},
		"that is on its way":                     {park, commit, replay, flush, conclude, commit},
		"an operator drops it":                   {park, commit, drop, conclude, commit},
		"that it is dropped is on its way":       {park, commit, drop, flush, conclude, commit},
		"an operator has it sent again too late": {park, commit, conclude, replay, commit},
		"an operator drops it too late":          {park, commit, conclude, flush, drop, commit},
	} {
		c := activeCore(t, true)
		from := entities.Key{Type: "words", ID: "a"}
		target := func() *Delivery {
			return &Delivery{Offset: 1, from: from, forward: true, asker: &record.Asker{Entity: []byte("words/a"), CommandID: "id"}}
		}
		d := target()
		d.state = deliveryHeld
		c.keep(d)
		c.next = 2
		call := seated(withID(command("a", "pass b x"), "id"))
		call.Forward, call.Outcome = 1, &entities.Outcome{Reply: reply("y")}
		resolved, asked, ended := 0, 0, false
		for _, step := range steps {
			switch step {
			case park:
				c.park(d, entities.Errorf(entities.FunctionFailed, entities.NotApplied, "it crashed"))
			case flush:
				c.settleNow = true
				c.Flush()
			case commit:
				c.settleNow = true
				for c.Flush(); len(c.sent) > 0; c.Flush() {
					b := c.sent[0]
					for i := range b.Entries {
						if b.Entries[i].Envelope.Kind != record.Settled {
							continue
						}
						said, err := record.ParseSettled(b.Entries[i].Value)
						if err != nil {
							t.Fatal(err)
						}
						if ended && len(said.GetParked()) > 0 {
							t.Errorf("%s: a record says that it is parked after it has ended", name)
						}
						ended = ended || len(said.GetDone()) > 0
					}
					c.Acked(b, broker.AppendResult{Base: c.next, Last: c.next + int64(len(b.Entries)) - 1})
				}
			case conclude:
				call.Parked = c.outbox.byOffset[1] == nil
				c.Concluded(call)
			case replay, drop:
				asked++
				c.Resolve(&Resolution{Drop: step == drop, Effects: []*Delivery{target()}, Done: func(ok bool) {
					if ok {
						resolved++
					}
				}})
			}
		}
		c.tellOperators()
		if n, open := c.outbox.parked, len(c.outbox.byOffset); n != 0 || open != 0 || asks[Send](c) ||
			resolved != asked || !call.finished {
			t.Errorf("%s: %d are parked, %d open, sent again: %v, %d of %d operators answered, the caller: %v",
				name, n, open, asks[Send](c), resolved, asked, call.finished)
		}
	}
}

package partitions

import (
	"testing"
	"testing/synctest"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
)

// TestARepeatEndsAParkedForward: a forward is parked, its target works again, and the caller sends the
// command again under its id. That ends the forward, and it is not counted as parked any more.
func TestARepeatEndsAParkedForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		broken := true
		f.words.act = func(inv entities.Invocation) (*entities.Outcome, error) {
			if broken {
				return nil, entities.Errorf(entities.FunctionFailed, entities.NotApplied, "it crashed")
			}
			return acts(inv)
		}
		f.await(Active)
		f.ask(withID(command("a", "act done"), "id"))
		f.ask(withID(command("b", "act done"), "id"))
		f.until("the forwards are parked", func() bool { return f.m.CountParked() == 2 })
		broken = false
		if got := f.ask(withID(command("a", "act done"), "id")); got != "done" {
			t.Fatalf("%q; want what the forward is answered", got)
		}
		f.pass(2 * tick)
		counted, err := materializer.Partition{Rows: f.store, Address: f.p.address}.CountParked()
		if n := f.m.CountParked(); n != 1 || counted != 1 || err != nil {
			t.Errorf("%d are parked, %d in the store, %v; want the other one", n, counted, err)
		}
	})
}

// TestAConcludedForwardIsNotParked: whatever else is on its way about a forward when it is concluded,
// it is not counted as parked afterwards, not sent again, and no later record says that it is parked.
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
		target := func() *delivery {
			return &delivery{offset: 1, from: from, forward: true, asker: &record.Asker{Entity: []byte("words/a"), CommandID: "id"}}
		}
		d := target()
		d.state = deliveryHeld
		c.keep(d)
		c.next = 2
		call := newCall(withID(command("a", "pass b x"), "id"))
		call.forward, call.outcome = 1, &entities.Outcome{Reply: reply("y")}
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
					for i := range b.entries {
						if b.entries[i].Envelope.Kind != record.Settled {
							continue
						}
						said, err := record.ParseSettled(b.entries[i].Value)
						if err != nil {
							t.Fatal(err)
						}
						if ended && len(said.GetParked()) > 0 {
							t.Errorf("%s: a record says that it is parked after it has ended", name)
						}
						ended = ended || len(said.GetDone()) > 0
					}
					c.Acked(b, broker.AppendResult{Base: c.next, Last: c.next + int64(len(b.entries)) - 1})
				}
			case conclude:
				call.parked = c.outbox.byOffset[1] == nil
				c.Concluded(call)
			case replay, drop:
				asked++
				c.Resolve(&resolution{drop: step == drop, effects: []*delivery{target()}, done: func(ok bool) {
					if ok {
						resolved++
					}
				}})
			}
		}
		c.tellOperators()
		if n, open := c.outbox.parked, len(c.outbox.byOffset); n != 0 || open != 0 || c.asks(doSend) || resolved != asked || !call.finished {
			t.Errorf("%s: %d are parked, %d open, sent again: %v, %d of %d operators answered, the caller: %v",
				name, n, open, c.asks(doSend), resolved, asked, call.finished)
		}
	}
}

// TestTheTotalsOfAResolution: when an operator is told that an effect is sent again or dropped, the
// totals do not count it any more, although no time has passed.
func TestTheTotalsOfAResolution(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(Active)
		const parked, refused = 4, 3
		for range parked {
			f.want(f.submit(command("a", "quiet nowhere x")), "ok")
		}
		for range refused {
			f.want(f.submit(command("a", "quiet b refuse x")), "ok")
		}
		f.until("all are listed", func() bool { return f.m.CountParked() == parked && f.m.CountRefused() == refused })
		for i, e := range f.parked(parked) {
			if i == parked-1 {
				break
			}
			if err := f.m.Resolve(t.Context(), 0, e.Offset, true); err != nil {
				t.Fatal(err)
			}
			if n := f.m.CountParked(); n != parked-1-i {
				t.Errorf("%d are dropped, and %d of %d are counted", i+1, n, parked)
			}
		}
		if n := f.resolveAll(materializer.ParkedFilter{}, true); n != 1 || f.m.CountParked() != 0 {
			t.Errorf("%d are dropped at last, and %d are counted", n, f.m.CountParked())
		}
		for i, e := range f.refusals() {
			if err := f.m.ResolveRefusal(t.Context(), 0, e.Offset, true); err != nil {
				t.Fatal(err)
			}
			if n := f.m.CountRefused(); n != refused-1-i {
				t.Errorf("%d refusals are dropped, and %d of %d are counted", i+1, n, refused)
			}
		}
	})
}

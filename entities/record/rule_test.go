package record

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func claim(epoch, nonce uint64) Envelope { return Envelope{Kind: Claim, Epoch: epoch, Nonce: nonce} }

func event(epoch, nonce uint64, index, count uint32) Envelope {
	return Envelope{Kind: Event, Epoch: epoch, Nonce: nonce, Index: index, Count: count}
}

// number sets ordinals that the test has not set: 1, 2, 3, ... for each ownership.
func number[S any](steps []S, envelope func(*S) *Envelope) {
	last := map[Owner]uint64{}
	for i := range steps {
		e := envelope(&steps[i])
		owner := Owner{e.Epoch, e.Nonce}
		if e.Kind == Claim {
			last[owner] = 0
			continue
		}
		if e.Ordinal == 0 {
			e.Ordinal = last[owner] + 1
		}
		last[owner] = e.Ordinal
	}
}

// at sets the ordinal of a record.
func at(ordinal uint64, e Envelope) Envelope {
	e.Ordinal = ordinal
	return e
}

// TestReaderRule checks the rules one by one: each line is a record and its verdict.
func TestReaderRule(t *testing.T) {
	type step struct {
		env     Envelope
		verdict Verdict
		dropped bool
	}
	tests := map[string][]step{
		"R1 a claim is valid when its epoch is higher": {
			{claim(1, 7), Claimed, false}, {claim(2, 8), Claimed, false}, {claim(2, 9), Void, false}, {claim(1, 7), Void, false},
		},
		"R1 a claim too far above the owner's epoch is void": {
			{claim(1<<32+1, 6), Void, false},
			{claim(1, 7), Claimed, false},
			{claim(1<<64-1, 8), Void, false},
			{claim(1<<32+2, 8), Void, false},
			{claim(1<<32+1, 8), Claimed, false},
			{claim(1<<32+2, 9), Claimed, false},
		},
		"R2 records of others are void": {
			{event(0, 0, 0, 0), Void, false},
			{event(1, 7, 0, 0), Void, false},
			{claim(1, 7), Claimed, false},
			{event(1, 9, 0, 0), Void, false}, // of another who claimed the same epoch, and lost
			{event(1, 7, 0, 0), Complete, false},
			{event(1, 8, 0, 0), Void, false},
			{event(2, 7, 0, 0), Void, false},
			{claim(2, 9), Claimed, false},
			{event(1, 7, 0, 0), Void, false},
			{event(2, 9, 0, 0), Complete, false},
		},
		"R3 a group takes effect with its last record": {
			{claim(1, 7), Claimed, false}, {event(1, 7, 0, 3), Pending, false}, {event(1, 7, 1, 3), Pending, false}, {event(1, 7, 2, 3), Complete, false},
		},
		"R3 void records do not break a group": {
			{claim(1, 7), Claimed, false}, {event(1, 7, 0, 2), Pending, false}, {event(1, 5, 0, 0), Void, false}, {event(1, 7, 1, 2), Complete, false},
		},
		"R1 a claim drops an incomplete group": {
			{claim(1, 7), Claimed, false}, {event(1, 7, 0, 2), Pending, false}, {claim(2, 8), Claimed, true}, {event(1, 7, 1, 2), Void, false}, {event(2, 8, 0, 0), Complete, false},
		},
		"R3 a new group drops an incomplete one and is an alarm": {
			{claim(1, 7), Claimed, false}, {event(1, 7, 0, 2), Pending, false}, {event(1, 7, 0, 2), Pending, true}, {event(1, 7, 1, 2), Complete, false},
		},
		"R3 a group without its beginning is void": {
			{claim(1, 7), Claimed, false}, {event(1, 7, 1, 2), Void, true}, {event(1, 7, 0, 0), Complete, false},
		},
		"R2 a record that does not follow on the owner's last one is void, and so is what was built on it": {
			{claim(1, 7), Claimed, false},
			{event(1, 7, 0, 0), Complete, false},
			{at(3, event(1, 7, 0, 0)), Void, false},
			{at(4, event(1, 7, 0, 0)), Void, false},
			{claim(2, 8), Claimed, false},
			{event(2, 8, 0, 0), Complete, false},
		},
		"R2 a record that is there twice counts once": {
			{claim(1, 7), Claimed, false}, {at(1, event(1, 7, 0, 0)), Complete, false}, {at(1, event(1, 7, 0, 0)), Void, false}, {at(2, event(1, 7, 0, 0)), Complete, false},
		},
		"barriers and releases change nothing": {
			{claim(1, 7), Claimed, false},
			{Envelope{Kind: Barrier, Epoch: 1, Nonce: 7}, Control, false},
			{Envelope{Kind: Release, Epoch: 1, Nonce: 7}, Control, false},
			{Envelope{Kind: Barrier, Epoch: 1, Nonce: 8}, Void, false},
			{event(1, 7, 0, 0), Complete, false},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			var rule Rule
			number(steps, func(s *step) *Envelope { return &s.env })
			for i, s := range steps {
				verdict, dropped := rule.Step(&s.env)
				if verdict != s.verdict || dropped != s.dropped {
					t.Fatalf("record %d (%s e%d n%d %d/%d): verdict %d, dropped %v; want %d, %v",
						i, s.env.Kind, s.env.Epoch, s.env.Nonce, s.env.Index, s.env.Count, verdict, dropped, s.verdict, s.dropped)
				}
			}
		})
	}
}

// TestValidityIsPrefixStable: the verdict on a record depends only on the records before it, and at
// each offset at most one owner's records are valid. It compares the verdicts on random logs with
// those on each prefix.
func TestValidityIsPrefixStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Envelope {
			e := Envelope{
				Kind:  rapid.SampledFrom([]Kind{Event, Event, Event, Claim, Barrier, Snapshot}).Draw(t, "kind"),
				Epoch: rapid.Uint64Range(1, 4).Draw(t, "epoch"), Nonce: rapid.Uint64Range(1, 3).Draw(t, "nonce"),
			}
			if e.Kind == Event {
				e.Count = rapid.Uint32Range(1, 3).Draw(t, "count")
				e.Index = rapid.Uint32Range(0, e.Count-1).Draw(t, "index")
			}
			return e
		}), 0, 30).Draw(t, "log")
		number(log, func(e *Envelope) *Envelope { return e })
		judge := func(log []Envelope) (verdicts []string) {
			var rule Rule
			for i := range log {
				v, dropped := rule.Step(&log[i])
				if v == Complete || v == Pending {
					if owner := (Owner{log[i].Epoch, log[i].Nonce}); owner != rule.Current {
						t.Fatalf("record %d of %v is valid under owner %v", i, owner, rule.Current)
					}
				}
				verdicts = append(verdicts, fmt.Sprint(v, dropped))
			}
			return verdicts
		}
		whole := judge(log)
		for n := range log {
			if prefix := judge(log[:n]); !slices.Equal(prefix, whole[:n]) {
				t.Fatalf("the first %d records judged alone: %v, in the whole log: %v", n, prefix, whole[:n])
			}
		}
	})
}

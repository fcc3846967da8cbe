//go:build !race

package core

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/tests/kit"
)

// The model check of the log protocol: every interleaving of what can happen to one partition, at
// small bounds, breadth first, so that a violation comes with its shortest trace. It is the
// explicit-state model with which the protocol was designed, and it drives the real code: the
// workers are values of core, validity is what record.Rule returns.
//
// # What is real
//
// The core's inputs and effects, each step of it, and the reader rule; committed() on the way to
// the caller, with the stored answer of a repeated command. The core runs with the limits of a
// scenario: how many batches may be under way, and batches that are full with the first record, so
// that they pipeline.
//
// # What is modelled
//
//   - The log: a slice of records. It takes a worker's requests in their order, at any later time,
//     whether or not the worker still lives or owns anything. It may refuse one; its answer may
//     get lost. A faulty client library may send a request twice (anything may come in between),
//     two in the wrong order, or split one. In one scenario the log loses its tail. Answers arrive
//     in the order of sending, as the port guarantees.
//   - The shell around the core (model_worker_test.go), as in partition.go and loop.go: commits
//     and skips go to the store first, then the other effects run in order; the store keeps what a
//     restart finds, which never ends inside a group. Catching up and reading a gap take time,
//     reading back takes none: what stands below an offset does not change.
//   - The user function: one counter. It decides at once; a session begins with what the store
//     holds and goes on in memory.
//   - Time: an old end of the log is shown once before it is believed.
//   - Clients: they send increments and reads to any worker and, if commands have ids, send them
//     again while the answer is not a good one, also while the first is under way.
//
// # What is checked
//
// In every state: an increment that was answered has in the fold of the log the value that was
// answered; a read was not below what was acknowledged when it began, nor is it above what the fold
// reaches; one that was answered "not applied" does not count, now or later; what counts was
// computed on the state before it, its events are without a gap, its group is complete, and its id
// counts once; nothing of an owner counts after its release. No call is answered twice, no session
// is used after it was closed, a revoked partition reports its release once, and no core waits for
// an input that will never come. What claims state about the log before them proves a loss only
// where there was one. When the log has lost its tail: no worker that has folded what is lost gives
// an answer that was written later.
//
// # What is not
//
// More than one entity; user functions that take time, fail, forward or have effects; callers that
// leave; snapshots; the passing of time (patience and passivation are steps that may come at any
// time); failures of the store, and of reading; reuse of batches; encoding. Simulation and unit
// tests have those. And the protocol is known not to detect one case, scenario "refilled": a log
// that loses its tail and is filled up by others exactly to the offset that an owner expects.
//
// # Ordinals
//
// The model with which the protocol was designed has none (ADR 0008). They repair none of its
// broken variants. One is detected differently: if own records in a gap are tolerated, a duplicate
// no longer counts twice; what is wrong then is that a caller gets "not applied" for a record that
// counts. Without ordinals the violations of the rules themselves are detected, after one refused
// append, because this model requires events without a gap.

// The sizes of the model: every test run explores small; full has the bounds of the model beside
// the log protocol (SIZE=full make prove PART=model); big ends where there are too many states.
const (
	small = ""
	full  = "full"
	big   = "big"
)

// most bounds the states of one scenario. They take 2.5 GB and some minutes.
const most = 30_000_000

// base is the beginning of all scenarios: the claims and the crash that the subtlest of the broken
// builds needs.
func base(size string) scenario {
	s := scenario{workers: 2, log: 5, claims: 3, ops: 2, tries: 1, reads: 1, calls: 2, inflight: 2, crashes: 1, losses: 1}
	switch size {
	case full:
		s.log, s.ops = 6, 3
	case big:
		s.log, s.ops, s.reads, s.claims, s.crashes = 8, 3, 2, 4, 2
	}
	return s
}

// scenarios are the scenarios to explore. Each adds one thing to base. If it is not one of the
// bounds in the log protocol, other things are left out, so that it stays small.
func scenarios(size string) []*scenario {
	thin := func(s *scenario) { s.losses, s.reads = 0, 0 }
	if size != small {
		thin = func(*scenario) {}
	}
	var all []*scenario
	add := func(name string, change ...func(*scenario)) {
		s := base(size)
		s.name = name
		for _, c := range change {
			c(&s)
		}
		all = append(all, &s)
	}
	add("spec")
	add("duplicates", thin, func(s *scenario) { s.duplicates = 1 })
	add("reorder", thin, func(s *scenario) { s.reorders = 1 })
	add("faults", func(s *scenario) { s.silences, s.refusals, s.losses, s.reads = 1, 1, 0, 0 })
	add("groups", thin, func(s *scenario) { s.pairs, s.splits, s.log = true, 1, s.log+1 })
	add("batches", func(s *scenario) { s.inflight, s.calls, s.splits, s.losses, s.ops = 1, 3, 1, 0, 2 })
	add("values", func(s *scenario) { s.values, s.passivations, s.early, s.crashes, s.reads = true, 1, true, 0, 0 })
	add("retries", func(s *scenario) { s.identified, s.tries, s.ops, s.early, s.reads = 1, 2, s.ops-1, true, 0 })
	add("release", func(s *scenario) { s.revokes, s.takeaways, s.losses, s.reads, s.ops = 1, 1, 0, 0, s.ops-1 })
	add("truncation", func(s *scenario) { s.cuts, s.crashes, s.losses, s.ops = 1, 0, 0, 2 })
	add("refilled", func(s *scenario) { s.cuts, s.crashes, s.losses, s.ops, s.refill, s.unseen = 1, 0, 0, 2, true, true })
	add("late", func(s *scenario) { s.late, s.silences, s.reads, s.crashes = true, 1, 0, 0 })
	if size == big {
		add("three", func(s *scenario) { s.workers, s.log, s.ops, s.reads, s.crashes = 3, 6, 2, 1, 1 })
	}
	return all
}

// TestModel explores every scenario. Without a safety line (internal/mutation) it fails where that
// line matters, with the shortest trace. MILLRACE_MODEL=full or big widens the bounds; .ci/model
// checks the result of every variant. The race detector is left out: there is one goroutine, and it
// would take ten times as long.
func TestModel(t *testing.T) {
	size := kit.Model.Text()
	if !slices.Contains([]string{small, full, big}, size) {
		t.Fatalf("MILLRACE_MODEL=%s: take full or big, or leave it out", size)
	}
	limit := map[string]int{small: 1_000_000, full: most, big: most}[size]
	for _, s := range scenarios(size) {
		t.Run(s.name, func(t *testing.T) { explore(t, s, limit) })
	}
}

func explore(t *testing.T, s *scenario, limit int) {
	t.Helper()
	began := time.Now()
	f := search(s, limit)
	t.Logf("model | %s | %s | %d | %.1f", s.name, f.verdict(), f.states, time.Since(began).Seconds())
	switch {
	case f.fault != "" && s.unseen:
		t.Logf("the protocol does not see this:\n%s\nthen: %s", strings.Join(f.trace, "\n"), f.fault)
	case f.fault != "":
		t.Errorf("the shortest way to a violation:\n%s\nthen: %s", strings.Join(f.trace, "\n"), f.fault)
	case s.unseen:
		t.Error("nothing was found: if the protocol sees this now, say so in the log protocol and here")
	case f.unfinished && limit < most:
		t.Errorf("more than %d states: choose smaller bounds", limit)
	}
}

// TestModelStatesAreApart: a step does not change the state that it begins with, and the same steps
// lead to the same state. Otherwise the search would visit impossible states, and take different
// ones for one.
func TestModelStatesAreApart(t *testing.T) {
	for _, s := range scenarios(small) {
		s.prepare()
		const states = 2000
		worlds := []*world{newWorld(s)}
		for i := 0; i < len(worlds) && i < states; i++ {
			x := worlds[i]
			before, _ := x.fingerprint(nil)
			for _, a := range x.actions(nil) {
				y := x.step(a)
				first, _ := y.fingerprint(nil)
				second, _ := x.step(a).fingerprint(nil)
				if first != second {
					t.Fatalf("%s: %s leads to two states", s.name, a)
				}
				worlds = append(worlds, y)
			}
			if after, _ := x.fingerprint(nil); after != before {
				t.Fatalf("%s: a step changes the state that it begins with", s.name)
			}
		}
	}
}

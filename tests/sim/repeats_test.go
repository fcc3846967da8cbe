package sim

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// askForward returns a command that is forwarded, with or without storing something, to a target
// that writes, only reads, or refuses.
func (w *world) askForward(key string, n, amount int) string {
	verb := "bare"
	if w.rng.IntN(2) == 0 {
		verb = "note"
	}
	target := fmt.Sprint("e", w.rng.IntN(2))
	switch {
	case n < 3:
		return fmt.Sprintf("pass %d g%s", amount, key[1:])
	case n < 5:
		return fmt.Sprintf("%s %s add %d", verb, target, amount)
	case n < 7:
		return fmt.Sprintf("%s %s cas %d %d", verb, target, w.rng.IntN(6), w.rng.IntN(6))
	default:
		return fmt.Sprintf("%s %s get", verb, target)
	}
}

// compareAnswer checks the answer to a repeated command. If the command stored or forwarded
// something, it gets the same bytes again.
func (w *world) compareAnswer(a *attempt, r result) {
	o := a.operation
	differs := r.text != o.result.text || r.class != o.result.class
	if o.text != "get" && differs && (r.class == done || (a.alone && r.class != unknown)) {
		w.wrong("%s is answered %+v, and sent again %+v", o, o.result, r)
	}
}

// repeat makes a client repeat a command that was answered.
func (w *world) repeat(*testing.T) {
	var able []*operation
	for _, o := range w.history {
		if o.repeatable() && !w.open(o) {
			able = append(able, o)
		}
	}
	if len(able) == 0 {
		return
	}
	w.fault("caller repeated")
	w.attempt(able[w.rng.IntN(len(able))])
}

func (w *world) open(o *operation) bool {
	return slices.ContainsFunc(w.waiting, func(a *attempt) bool { return a.operation == o })
}

// repeatAll makes clients repeat answered commands after the targets have forgotten the effects
// that are done.
func (w *world) repeatAll(t *testing.T) {
	t.Helper()
	if w.rng.IntN(4) == 0 {
		w.goOn(2 * time.Minute)
	}
	for _, o := range w.history {
		if !o.repeatable() {
			continue
		}
		a := w.attempt(o)
		w.bring(t, "a repeat is answered", func() bool { return len(w.waiting) == 0 })
		if a.err != nil && !unkept(a.err) && w.judge(a).class != o.result.class {
			w.wrong("%s is answered %+v, and after the faults %v", o, o.result, a.err)
		}
	}
}

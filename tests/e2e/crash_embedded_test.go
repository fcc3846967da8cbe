package e2e_test

import (
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/millrace-io/millrace/tests/e2e/harness"

	"github.com/millrace-io/millrace/tests/kit"
)

// defaultRounds is how often a test of the embedded log kills, if the environment says nothing.
const defaultRounds = 5

// TestCrashOfTheWorkerLosesNothing kills a worker on the embedded log under load, again and again, now and then while it
// still opens its data.
func TestCrashOfTheWorkerLosesNothing(t *testing.T) {
	crashWorker(t, loadOptions{counters: true, carts: true, mayFail: []codes.Code{codes.Unavailable}})
}

// TestCrashDoesNotRepeatCommandsWithIDs does the same to callers who send a command without an answer again under its id:
// they all get their answer, and every command has happened once.
func TestCrashDoesNotRepeatCommandsWithIDs(t *testing.T) {
	crashWorker(t, loadOptions{counters: true, carts: true, ids: true, mayFail: []codes.Code{codes.Unavailable}})
}

func crashWorker(t *testing.T, o loadOptions) {
	t.Helper()
	p := harness.Start(t, harness.Options{})
	o.conn = p.Dial(t)
	l := newLoad(t, o)
	l.start()
	n := kit.CrashRounds.NumberOr(t, defaultRounds)
	for range n {
		l.awaitAnswers()
		l.expectTrouble()
		p.Kill(t)
		if l.rng.IntN(3) == 0 {
			p.KillInStart(t)
		}
		p.Restart(t)
	}
	l.awaitAnswers()
	l.stop()
	l.check()
	p.Kill(t) // nobody waits for anything now: what is there was durable
	p.Restart(t)
	l.check()
	l.report(n)
}

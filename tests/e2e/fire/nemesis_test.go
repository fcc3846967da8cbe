package fire

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/millrace-io/millrace/internal/failpoint"
	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kit"
)

// fault is one kind of fault. run injects it and repairs it, and reports whether an effect of it
// was seen.
type fault struct {
	name string
	run  func(w *world) bool
}

const (
	// failpointWithin is how long a worker may run until it reaches the failpoint that kills it,
	// failpointMost how often it may pass it before. One of several workers has less to do, on slower
	// brokers.
	failpointWithin = 60 * time.Second
	failpointMost   = 300
	// pauseFor is how long a worker is stopped; longer than a call may take.
	pauseFor = callTimeout + time.Second
	// least and most are the answers between two faults; how many is up to the seed. When many
	// operations are asked for, most grows.
	least, most = 50, 400
)

// inject injects every fault, in an order that the seed decides, and then again until there were
// enough faults and enough operations.
func (w *world) inject(faults []fault, enough func() bool) {
	w.t.Helper()
	faults = slices.DeleteFunc(faults, func(f fault) bool { return !w.chosen(f.name) })
	for n := 0; len(faults) > 0 && (n < len(faults) || !enough()); {
		for _, i := range w.rng.Perm(len(faults)) {
			if n >= len(faults) && enough() {
				break
			}
			w.awaitAnswers(int64(least + w.rng.IntN(w.most-least)))
			w.fails(anything)
			w.injectOne(faults[i])
			if w.t.Failed() {
				return // what follows would only repeat it
			}
			n++
		}
	}
	w.awaitAnswers(most)
}

// injectOne injects one fault.
func (w *world) injectOne(f fault) {
	w.t.Helper()
	began := time.Now()
	w.debugf("%s: %s", w.name, f.name)
	if f.run(w) {
		w.happened(f.name)
	} else {
		w.totals.mu.Lock()
		w.idle[f.name]++
		w.totals.mu.Unlock()
	}
	w.debugf("%s: %s took %v", w.name, f.name, time.Since(began).Round(time.Millisecond))
}

// processFaults are what can happen to a worker on any log.
func processFaults() []fault {
	faults := []fault{
		{"kill", (*world).kill},
		{"kill in start", (*world).killInStart},
		{"stop in order", (*world).stopInOrder},
	}
	for name, signal := range map[string]syscall.Signal{
		"clock set on":   syscall.SIGUSR1,
		"clock set back": syscall.SIGUSR2,
	} {
		faults = append(faults, fault{name, func(w *world) bool { return w.setClock(signal) }})
	}
	// The seed chooses from a fixed order.
	slices.SortFunc(faults, func(a, b fault) int { return strings.Compare(a.name, b.name) })
	for _, point := range []string{failpoint.BeforeSend, failpoint.AfterSend, failpoint.AfterAck, failpoint.AfterApply} {
		faults = append(faults, fault{"kill " + point, func(w *world) bool { return w.killAt(point) }})
	}
	return faults
}

// kill is kill -9 at any moment.
func (w *world) kill() bool {
	p := w.worker()
	p.Kill(w.t)
	w.restart(p)
	return true
}

func (w *world) killInStart() bool {
	p := w.worker()
	p.Kill(w.t)
	p.KillInStart(w.t)
	w.restart(p)
	return true
}

func (w *world) stopInOrder() bool {
	p := w.worker()
	code := p.Stop(w.t)
	w.restart(p)
	return code == 0
}

// killAt starts the worker with a moment at which it kills itself.
func (w *world) killAt(point string) bool {
	p := w.worker()
	p.Kill(w.t)
	p.Arm(fmt.Sprintf("%s=%s:%d", failpoint.Variable, point, 1+w.rng.IntN(failpointMost/len(w.workers)/len(w.workers))))
	p.Respawn(w.t)
	code := p.AwaitExitWithin(w.t, time.Duration(len(w.workers))*failpointWithin)
	p.Arm()
	w.restart(p)
	return code == -1 // a signal
}

// setClock sets the wall clock of a worker on or back, by so much that it notices, and waits until
// it has.
func (w *world) setClock(signal syscall.Signal) bool {
	p := w.worker()
	direction := map[syscall.Signal]string{syscall.SIGUSR1: "forward", syscall.SIGUSR2: "back"}[signal]
	before := w.clockJumps(p, direction)
	p.Signal(w.t, signal)
	kit.AwaitWithin(w.t, healing, "the worker to notice that its clock was set "+direction, func() bool {
		return p.Ended() || w.clockJumps(p, direction) != before
	})
	w.awaitAllReady("to go on when a clock was set")
	return true
}

// clockJumps is what a worker shows of its clock.
func (w *world) clockJumps(p *harness.Process, direction string) string {
	ctx, cancel := context.WithTimeout(w.ctx, callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Admin()+"/metrics", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return ""
	}
	defer res.Body.Close()
	all, _ := io.ReadAll(res.Body)
	for line := range strings.Lines(string(all)) {
		if strings.HasPrefix(line, "millrace_clock_jumps_seconds_total") && strings.Contains(line, direction) {
			return line
		}
	}
	return ""
}

// restart starts a worker that has ended and waits until it serves. One that finds damage in its
// store ends once more, by itself.
func (w *world) restart(p *harness.Process) {
	w.t.Helper()
	for p.Respawn(w.t); !w.ready(p); p.Respawn(w.t) {
		w.mustHaveFoundDamage(p)
	}
}

// ready waits until a worker is ready, or returns false when it has ended.
func (w *world) ready(p *harness.Process) bool {
	w.t.Helper()
	is := false
	kit.AwaitWithin(w.t, healing, "the worker to be ready, or to end: "+p.String(), func() bool {
		if p.Ended() {
			return true
		}
		is = p.Ready(w.t)
		return is
	})
	return is
}

// mustHaveFoundDamage: a worker has ended that was not killed. Damage in its store is the only good
// reason.
func (w *world) mustHaveFoundDamage(p *harness.Process) {
	w.t.Helper()
	said := lastLines(p.Output(w.t))
	if w.disks != nil && strings.Contains(said, "the store has failed; check its disk, then restart") {
		return
	}
	if !strings.Contains(said, "the store was damaged while it was in use; restart") {
		w.t.Fatalf("a worker ended that was not killed, with code %d: %s\n%s", p.ExitCode(), lastWords(said), said)
	}
	w.outcome("store damage ended the worker")
}

// lastWords are the line with which a process ended: that of a panic, else its last one. A reader
// that cuts the output of the tests leaves it at the beginning.
func lastWords(said string) string {
	lines := strings.Split(strings.TrimSpace(said), "\n")
	for _, line := range lines {
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			return line
		}
	}
	return lines[len(lines)-1]
}

// revive starts workers again that have ended by themselves; without are those that are to stay
// down.
func (w *world) revive(without ...*harness.Process) {
	w.t.Helper()
	for _, p := range w.workers {
		if p.Ended() && !slices.Contains(without, p) && !slices.Contains(w.refused, p) {
			w.mustHaveFoundDamage(p)
			w.restart(p)
		}
	}
	for _, p := range w.gateways {
		if p.Ended() && !slices.Contains(without, p) {
			w.t.Fatalf("a gateway ended that was not killed:\n%s", lastLines(p.Output(w.t)))
		}
	}
}

// pause is SIGSTOP, for longer than callers wait, and SIGCONT.
func (w *world) pause() bool { return w.paused(func() { w.wait(pauseFor) }) }

// paused runs f while the worker is stopped, and reports whether it stood still.
func (w *world) paused(f func()) bool {
	w.t.Helper()
	p := w.worker()
	p.Pause(w.t)
	answers := w.answers.Load()
	f()
	stood := w.answers.Load()-answers < 2*int64(w.callers) // those that were under way
	p.Resume(w.t)
	return stood
}

// worker picks the worker of the next fault.
func (w *world) worker() *harness.Process {
	w.t.Helper()
	w.revive()
	return w.workers[w.rng.IntN(len(w.workers))]
}

// wait waits for a time: for a fault that is defined by how long it lasts.
func (w *world) wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.ctx.Done():
	}
}

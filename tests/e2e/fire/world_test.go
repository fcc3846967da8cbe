package fire

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kit"
)

const (
	// checkers is how many entities are checked at a time.
	checkers = 2
	// healing is how long it may take after a fault until calls are answered again.
	healing = 60 * time.Second
	// progressEvery is how often the progress of the run is printed.
	progressEvery = 10 * time.Second
)

// world is one worker, or several, with everything around: clients, checkers, and the targets of
// faults.
type world struct {
	t    *testing.T
	ctx  context.Context // that of the test, for clients and checkers
	name string
	seed uint64
	rng  *rand.Rand
	*totals

	// tags are those of the worker's build, env what is in its environment beside the tests' own.
	tags string
	env  []string
	// most is how many answers lie between two faults at most.
	most int
	// only chooses faults by name.
	only *regexp.Regexp

	// kafka is nil on the embedded log.
	kafka *kafka
	// disks are nil but where they are filled, function where it is in the worker. supervised is
	// the file with the process id of one that the worker has started, "" where it has not.
	disks      *disks
	function   *harness.Remote
	supervised string
	workers    []*harness.Process
	gateways   []*harness.Process
	// refused are workers that have ended with a good reason, and are left alone.
	refused []*harness.Process
	// fourth is a worker that joins and leaves, nil before the first time.
	fourth      *harness.Process
	fourthAdmin *grpc.ClientConn
	// doors are where clients call, admins the admin ports of workers.
	doors  []door
	admins []*grpc.ClientConn
	pool   *pool
	// scenes counts the entities of scenes; parked and dead are those that have sent what cannot be
	// delivered.
	scenes       int
	parked, dead string
	began        time.Time
	// callers is how many clients there are.
	callers int
	// relaxed: clients ask for earlier states as well.
	relaxed bool
	// gate is held by every call, and taken by faults during which there may be none.
	gate sync.RWMutex
	// troubled is what fails now, a trouble.
	troubled atomic.Int32

	stop     chan struct{}
	stopOnce sync.Once
	clients  sync.WaitGroup
	checking sync.WaitGroup

	mu sync.Mutex
	// kept are some acknowledged commands of every client, open some whose outcome is unknown, when
	// they have ended.
	kept, open []kept
	// finished are the entities that are over.
	finished map[string]remains
}

// start starts clients and checkers.
func (w *world) start(clients, entities int) {
	w.stop, w.finished, w.began, w.callers = make(chan struct{}), map[string]remains{}, time.Now(), clients
	w.pool = newPool(entities, w.name, w.relaxed)
	w.calls.begin()
	if len(w.workers) == 1 {
		w.fails(nothing) // until the first fault
	}
	for range checkers {
		w.checking.Go(func() { // ends when end closes the channel; waited for there
			for e := range w.pool.over {
				w.conclude(e)
			}
		})
	}
	for i := range clients {
		w.clients.Go(newClient(w, i).run) // end waits for them
	}
	w.clients.Go(w.tell)
	w.t.Cleanup(w.halt)
}

// tell prints from time to time how far the run is.
func (w *world) tell() {
	again := time.NewTicker(progressEvery)
	defer again.Stop()
	for {
		select {
		case <-again.C:
			w.t.Log(w.line())
		case <-w.stop:
			return
		}
	}
}

// halt stops the clients and waits for them. Entities that are full in the end are taken by
// checkers.
func (w *world) halt() {
	w.stopOnce.Do(func() {
		close(w.stop)
		w.clients.Wait()
		w.calls.end()
		for _, e := range w.pool.rest() {
			if len(e.history) > 0 {
				w.pool.over <- e
			}
		}
		close(w.pool.over)
	})
	w.checking.Wait()
}

func (w *world) stopping() bool {
	select {
	case <-w.stop:
		return true
	case <-w.ctx.Done():
		return true
	default:
		return false
	}
}

// now is nanoseconds of the one clock by which calls and answers are put in order.
func (w *world) now() int64 { return int64(time.Since(w.began)) + 1 }

// count counts a command for the figures.
func (w *world) count(c *command) {
	if c.fate == unknown && c.changes() {
		w.unsure.Add(1)
	}
}

// conclude reads an entity a last time, checks its history, and keeps what remains.
func (w *world) conclude(e *entity) {
	last := &command{kind: look, last: true}
	rng := rand.New(rand.NewPCG(w.seed, uint64(len(e.history))))
	for deadline := w.now() + int64(2*healing); last.fate != done; {
		if w.ctx.Err() != nil {
			return
		}
		if w.now() > deadline {
			w.broken(violation{unhealed, e.name(), fmt.Sprintf("it cannot be looked at for %v", 2*healing)})
			return
		}
		w.gate.RLock()
		last.called = w.now()
		last.fate = w.call(e, last, rng)
		last.returned = w.now()
		w.gate.RUnlock()
	}
	e.history = append(e.history, last)
	found := check(e.name(), e.history)
	w.broke(found)
	w.calls.looked(e.history)
	w.checked.Add(int64(len(e.history)))
	if len(found) > 0 {
		return
	}
	left := summarize(e.history)
	w.mu.Lock()
	w.finished[e.name()] = left
	w.mu.Unlock()
	if e.kind() == "script" {
		w.awaitMirror(e, left)
	}
}

// broken reports a broken promise.
func (w *world) broken(v violation) {
	w.totals.mu.Lock()
	w.violations[v.promise]++
	n := w.violations[v.promise]
	w.totals.mu.Unlock()
	const most = 10 // the rest is more of the same
	if n <= most {
		w.t.Errorf("at %v: %s", time.Duration(w.now()).Round(time.Millisecond), v)
	}
}

// broke reports broken promises.
func (w *world) broke(found []violation) {
	for _, v := range found {
		w.broken(v)
	}
}

// awaitAnswers waits until so many calls more are answered, and starts workers again that end
// meanwhile.
func (w *world) awaitAnswers(n int64) {
	w.t.Helper()
	w.awaitMore(n, func() { w.revive() })
}

// awaitMore waits until so many calls more are answered.
func (w *world) awaitMore(n int64, meanwhile func()) {
	w.t.Helper()
	goal, slow := w.answers.Load()+n, time.Now().Add(healing/3)
	patience := healing
	if len(w.workers) > 1 {
		patience *= 2 // three brokers and six processes share the processors of one machine
	}
	kit.AwaitWithin(w.t, patience, fmt.Sprintf("%d more answers (%s)", n, w.name), func() bool {
		meanwhile()
		if now := time.Now(); now.After(slow) {
			slow = now.Add(healing / 3)
			w.tellOwners()
		}
		return w.answers.Load() >= goal
	})
}

// tellOwners prints what each worker owns, when there are no answers.
func (w *world) tellOwners() {
	for i, admin := range w.admins {
		s := w.status(admin, callTimeout)
		text := s.GetNotReadyReason()
		for _, p := range s.GetPartitions() {
			text += fmt.Sprintf("; partition %d %s, epoch %d, followed %v, next %d, waiting %d %s",
				p.GetPartition(), p.GetState(), p.GetEpoch(), p.GetFollowed(), p.GetNextOffset(), p.GetWaitingCommands(),
				p.GetLastError())
		}
		w.t.Logf("%s: answers do not come: worker %d: %s", w.name, i+1, text)
	}
}

// debugf prints with MILLRACE_FIRE_VERBOSE=1.
func (w *world) debugf(format string, args ...any) {
	if kit.FireVerbose.Is("1") {
		w.t.Logf("at %v: "+format, append([]any{time.Since(w.started).Round(time.Millisecond)}, args...)...)
	}
}

// quietly runs f while no call is under way and none begins.
func (w *world) quietly(f func()) {
	w.gate.Lock()
	defer w.gate.Unlock()
	f()
}

// status asks a worker about itself; nil when it does not answer.
func (w *world) status(admin *grpc.ClientConn, within time.Duration) *adminv1.StatusResponse {
	ctx, cancel := context.WithTimeout(w.ctx, within)
	defer cancel()
	s, err := adminv1.NewAdminServiceClient(admin).Status(ctx, &adminv1.StatusRequest{})
	if err != nil {
		return nil
	}
	return s
}

// end stops the clients, repeats the commands with unknown outcome, kills a worker once more, and
// checks every entity.
func (w *world) end() {
	w.t.Helper()
	w.halt()
	w.askAgain()
	w.endOnceMore()
	w.compare()
}

// compare compares every entity that is over with what is known of it.
func (w *world) compare() {
	w.mu.Lock()
	finished := maps.Clone(w.finished)
	w.mu.Unlock()
	w.compareThese(finished)
}

// compareThese compares some entities with what is known of them.
func (w *world) compareThese(finished map[string]remains) {
	rng := rand.New(rand.NewPCG(w.seed, 0))
	for name, r := range finished {
		kind, id, _ := strings.Cut(name, "/")
		e := &entity{thing: thingOf(kind), id: id}
		c := &command{kind: look}
		for deadline := w.now() + int64(healing); w.call(e, c, rng) != done; {
			w.revive()
			if w.now() > deadline {
				w.broken(violation{unhealed, name, "it cannot be looked at in the end"})
				return
			}
		}
		w.broke(r.compare(name, c.showed))
	}
}

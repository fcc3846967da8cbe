package sim

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/partitions/routing"
)

// In one of clusteredOf seeds, workers forward commands to each other, by routing tables that may
// be old, and follow each other's partitions.
const clusteredOf, clusteredSeed = 4, 2

// links carry commands between workers. Everything but the fields under mu is for the scheduler.
type links struct {
	mu      sync.Mutex
	routers map[string]*routing.Router
	state   linkState
}

// linkState is what happens to messages on a link.
type linkState uint8

const (
	linkWorks linkState = iota
	// linkDown: messages fail with an error.
	linkDown
	// linkLoses: messages arrive, answers are lost.
	linkLoses
)

func (s linkState) String() string { return [...]string{"work", "are down", "lose answers"}[s] }

// reach returns the router of the live worker at an address, and the state of the links.
func (l *links) reach(address string) (*routing.Router, linkState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.routers[address], l.state
}

func (l *links) set(address string, r *routing.Router) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.routers[address] = r
}

var errLost = entities.Errorf(entities.LostOutcome, entities.Unknown, "the connection broke")

func (l *links) Dispatch(ctx context.Context, address string, cmd *entities.Command,
	hops int,
) (*entities.Reply, error) {
	to, state := l.reach(address)
	if to == nil || state == linkDown {
		return nil, entities.Errorf(entities.Moved, entities.NotApplied, "no connection to %s", address)
	}
	reply, err := to.DispatchHere(ctx, cmd, hops)
	if now, state := l.reach(address); now != to || state == linkLoses {
		return nil, errLost
	}
	return reply, err
}

func (l *links) DispatchStream(context.Context, string, *entities.Stream) error {
	return errors.New("there are no streams")
}

func (l *links) Position(ctx context.Context, address string, partition int32) (int64, error) {
	to, state := l.reach(address)
	if to == nil || state != linkWorks {
		return 0, errLost
	}
	return to.Position(ctx, partition)
}

// breakLinks changes the state of the links.
func (w *world) breakLinks(*testing.T) {
	if w.links == nil {
		return
	}
	w.setLinks(linkState(w.rng.IntN(3)))
}

func (w *world) setLinks(s linkState) {
	w.links.mu.Lock()
	w.links.state = s
	w.links.mu.Unlock()
	w.note("links %s", s)
	if s != linkWorks {
		w.fault("links " + s.String())
	}
}

// spread sends one worker the present routing table: others may have an older one, or none.
func (w *world) spread(*testing.T) {
	if w.links == nil {
		return
	}
	life := w.workers[w.rng.IntN(workers)]
	w.fault("table sent to one worker")
	w.note("%s gets the table: owners %v", life.name, w.owners)
	w.tell(life, broker.AssignmentEvent{Table: w.table()})
}

// table is the correct routing table: every worker follows what another one owns.
func (w *world) table() *broker.Table {
	w.generation++
	t := &broker.Table{Generation: w.generation}
	for _, life := range w.workers {
		t.Members = append(t.Members, broker.Member{Name: life.name, Address: life.name, Public: "public-" + life.name})
	}
	for _, owner := range w.owners {
		t.Owners = append(t.Owners, owner)
		t.Standbys = append(t.Standbys, []int32{1 - owner})
	}
	return t
}

// gather assigns everything to one worker; the others follow it in seeds with followers.
func (w *world) gather(i int) {
	for _, life := range w.workers {
		for p := range int32(parts) {
			if life != w.workers[i] {
				w.tell(life, broker.AssignmentEvent{Lost: []int32{p}})
				life.has[p] = false
			}
		}
	}
	for p := range int32(parts) {
		w.assign(i, p)
	}
	if w.links != nil {
		for _, life := range w.workers {
			w.tell(life, broker.AssignmentEvent{Table: w.table()})
		}
	}
}

// promote makes the second worker the owner and the first one a follower, checks that both answer,
// and makes the first one the owner.
func (w *world) promote(t *testing.T) {
	t.Helper()
	w.gather(1)
	w.bring(t, "open commands are answered by another owner", func() bool { return len(w.waiting) == 0 })
	w.readAll(t)
	if w.rng.IntN(2) == 0 {
		w.fault("standby promoted after a crash")
		w.note("%s dies", w.workers[1].name)
		store := w.workers[1].store
		w.endLife(w.workers[1])
		w.start(t, 1, store.Clone())
		return
	}
	w.fault("standby promoted")
	for p := range int32(parts) {
		w.tell(w.workers[1], broker.AssignmentEvent{Revoked: []int32{p}})
	}
}

// peek makes a client read an entity that only grows, with a relaxed consistency, from any worker.
func (w *world) peek(*testing.T) {
	if w.links == nil || len(w.waiting) >= maxClients {
		return
	}
	o := &operation{
		number: len(w.history), key: []string{"s0", "s1"}[w.rng.IntN(2)], text: "get", called: w.next(),
		calledAt: w.clock.Now(),
	}
	o.consistency = []entities.Consistency{entities.Eventual, entities.Bounded, entities.AtLeast}[w.rng.IntN(3)]
	switch o.consistency {
	case entities.Bounded:
		o.bound = time.Duration(1+w.rng.IntN(5000)) * time.Millisecond
		for _, other := range w.history {
			if other.key == o.key && other.result.class == done && !other.returnedAt.After(o.calledAt.Add(-o.bound)) {
				o.least = max(o.least, number([]byte(other.result.text)))
			}
		}
	case entities.AtLeast:
		for _, other := range w.history {
			if other.key == o.key && other.result.class == done && len(other.token) > 0 && w.rng.IntN(3) == 0 {
				o.least, o.after = number([]byte(other.result.text)), other.token
			}
		}
	default:
	}
	w.history = append(w.history, o)
	w.attempt(o)
}

// compareRead: a relaxed read includes all that it asked for, and nothing that was not sent.
func (w *world) compareRead(o *operation, r result) {
	if r.class != done {
		return
	}
	most := 0
	for _, other := range w.history {
		if other.key == o.key && other.result.class != never && other.text != "get" {
			next, _, _ := apply(0, other.text)
			most += next
		}
	}
	if got := number([]byte(r.text)); got < o.least || got > most {
		w.wrong("%s, consistency %d within %v, is answered %d: at least %d was there, and at most %d was sent", o,
			o.consistency, o.bound, got, o.least, most)
	}
}

// remember records when an operation was answered, and its position in the log.
func (w *world) remember(a *attempt) {
	o := a.operation
	if a.err != nil || !o.returnedAt.IsZero() {
		return
	}
	o.returnedAt = w.clock.Now()
	if token, err := entities.DecodeToken("app", a.reply.Token); err == nil {
		o.token = token.Positions
	}
}

// compareFollower: the image of the follower is the fold of the log.
func (w *world) compareFollower(t *testing.T) {
	t.Helper()
	there := func() bool {
		for _, p := range w.workers[1].m.Partitions() {
			s := p.Status()
			if !s.Followed || s.Next < int64(len(w.log.Records(broker.Partition{Topic: topic, ID: s.Partition}))) {
				return false
			}
		}
		return true
	}
	w.bring(t, "the standby has followed", there)
	if there() {
		w.compareRows(t, w.workers[1].store)
	}
}

// askStandby reads every entity through the worker that owns nothing.
func (w *world) askStandby(t *testing.T) {
	t.Helper()
	from := len(w.history)
	for _, key := range slices.Concat(all, []string{"s0", "s1"}) {
		o := &operation{number: len(w.history), key: key, text: "get", called: w.next(), calledAt: w.clock.Now()}
		if len(w.history) >= from+len(all) {
			o.consistency = entities.Eventual
		}
		w.history = append(w.history, o)
		w.attemptAt(w.workers[1], o)
		synctest.Wait()
	}
	w.bring(t, "reads through a standby are answered", func() bool { return len(w.waiting) == 0 })
	for _, o := range w.history[from:] {
		if o.result.class != done {
			w.wrong("after the faults have ended, %s is answered %+v through a standby", o, o.result)
		}
	}
}

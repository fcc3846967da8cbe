package sim

import (
	"encoding/binary"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions"
	recordv1 "github.com/millrace-io/millrace/proto/gen/millrace/record/v1"
)

const (
	// remote is a service whose function is unreliable. Its cells d get effects of cells p.
	remote = "sim.Remote"
	// unknownMethod is a method that no service has.
	unknownMethod = "unknownMethod"
	// troubledOf is one in how many seeds has cells p and d, floodedOf one in how many of those has
	// more effects to unknownMethod than a partition has in memory.
	troubledOf, troubledSeed, floodedOf = 8, 3, 125
	floodCommands, floodEffects         = 5, 900
	// remembered is how many effects that are done a target may know after its source has reported
	// progress.
	remembered = 8
)

var (
	remoteType = &entities.EntityType{Service: remote, Name: "remote", Kind: entities.Value}
	troubled   = []string{"p0", "p1"}
)

// trouble is the state of the remote function.
type trouble uint8

const (
	works trouble = iota
	// down: it cannot be reached.
	down
	// fails on every command.
	fails
	// slow: it answers nothing.
	slow
)

func (t trouble) String() string { return [...]string{"works", "is down", "fails", "is slow"}[t] }

var errDown = entities.Errorf(entities.Unavailable, entities.NotApplied, "the function cannot be reached")

// change changes the state of the remote function.
func (w *world) change(*testing.T) {
	if w.troubled {
		w.setTrouble(trouble(w.rng.IntN(4)))
	}
}

func (w *world) setTrouble(t trouble) {
	f := w.functions
	f.mu.Lock()
	f.trouble = t
	f.mu.Unlock()
	w.note("the remote function %s", t)
	if t != works {
		w.fault("remote function " + t.String())
	}
}

// askTroubled returns a command for a cell p.
func (w *world) askTroubled(key string, n int) string {
	switch {
	case n < 4:
		return fmt.Sprintf("post 1 d%s %d", key[1:], 1+w.rng.IntN(4))
	case n < 5:
		return fmt.Sprintf("post 1 d%s %d", key[1:], 70)
	case n < 6:
		return fmt.Sprintf("post 0 %s %d", unknownMethod, 1+w.rng.IntN(80))
	default:
		return "get"
	}
}

// endure checks that everything else goes on while the remote function does not work and effects
// are parked, and that each of its effects arrives exactly once when it works again and an operator
// replays the parked ones.
func (w *world) endure(t *testing.T) {
	t.Helper()
	w.setTrouble(trouble(1 + w.rng.IntN(3)))
	posts := []string{
		fmt.Sprintf("post 1 d0 %d", 1+w.rng.IntN(20)), fmt.Sprintf("post 0 %s %d", unknownMethod, 1+w.rng.IntN(20)),
	}
	if w.rng.IntN(4) == 0 {
		posts[0] = fmt.Sprintf("post 1 d0 %d", 50+w.rng.IntN(200))
	}
	if w.flooded {
		w.fault("parked flood")
		for range floodCommands {
			posts = append(posts, fmt.Sprintf("post 0 %s %d", unknownMethod, floodEffects))
		}
	}
	for _, text := range posts {
		w.order("p0", text)
	}
	w.bring(t, "commands for the remote function are answered", func() bool { return len(w.waiting) == 0 })
	w.othersGoOn(t)
	if w.rng.IntN(2) == 0 {
		w.restart(t)
		w.othersGoOn(t)
	}
	w.targetsForget(t)
	w.operate(t)
}

// order sends a command without an id.
func (w *world) order(key, text string) {
	o := &operation{number: len(w.history), key: key, text: text, called: w.next()}
	w.history = append(w.history, o)
	w.attempt(o)
	synctest.Wait()
}

// restart kills the owner of everything and starts it again with its store.
func (w *world) restart(t *testing.T) {
	t.Helper()
	old := w.workers[0]
	w.note("%s dies", old.name)
	w.endLife(old)
	w.start(t, 0, old.store.Clone())
	for id := range int32(parts) {
		w.assign(0, id)
	}
}

// othersGoOn checks that effects for healthy targets arrive.
func (w *world) othersGoOn(t *testing.T) {
	t.Helper()
	w.bring(t, "effects for healthy targets are settled", func() bool { return w.healthyEffects() == 0 })
	w.sendMore(t)
}

// targetsForget checks that targets forget the effects that are done, whatever is open below them,
// once they know the progress. They do so once a minute.
func (w *world) targetsForget(t *testing.T) {
	t.Helper()
	const slowAfter = time.Second // partitions: by then a hanging effect is an exception in the reported progress
	w.goOn(2 * slowAfter)
	w.sendMore(t)
	w.goOn(time.Minute + time.Second)
	w.bring(t, "everything is idle", func() bool { return w.healthyEffects() == 0 })
	w.compareMemory()
}

// operate has an operator send what is parked for the remote function again, which works by then,
// and drop what is meant for unknownMethod.
func (w *world) operate(t *testing.T) {
	t.Helper()
	w.setTrouble(works)
	for round := 0; w.openEffects() > 0 && round < 20; round++ {
		w.resolve(t, materializer.ParkedFilter{Service: remote}, false)
		w.resolve(t, materializer.ParkedFilter{Method: unknownMethod}, true)
		w.goOn(5 * time.Second)
	}
	w.bring(t, "effects are settled after an operator has resolved them", func() bool { return w.openEffects() == 0 })
	if n := w.workers[0].m.CountParked(); n != 0 {
		w.wrong("%d effects are counted as parked, and none is open", n)
	}
}

// resolve resolves the parked effects selected by a filter.
func (w *world) resolve(t *testing.T, filter materializer.ParkedFilter, drop bool) {
	t.Helper()
	var from partitions.ParkedPlace
	for more, again := true, 0; more && again < 100; again++ {
		ended := make(chan error, 1)
		var next partitions.ParkedPlace
		go func() { // ends with the answer of the log; received below
			var err error
			_, next, more, err = w.workers[0].m.ResolveSome(w.ctx, from, filter, drop)
			ended <- err
		}()
		w.bring(t, "an operator is answered", func() bool { return len(ended) > 0 })
		if len(ended) == 0 {
			return
		}
		if err := <-ended; err == nil {
			from = next
		} else {
			w.note("an operator gets %v", err)
		}
	}
}

// healthyEffects counts the open effects of targets that work.
func (w *world) healthyEffects() int {
	n := 0
	for p := range int32(parts) {
		w.eachEffect(p, func(e materializer.Effect) {
			var t recordv1.Target
			if err := proto.Unmarshal(e.Target, &t); err != nil {
				w.wrong("read the target of an effect: %v", err)
			}
			if t.GetService() != remote && t.GetMethod() != unknownMethod {
				n++
			}
		})
	}
	return n
}

// compareMemory: a target knows few of the effects that are done once the sources have reported
// progress. A source can report up to 64 open ones.
func (w *world) compareMemory() {
	for p := range int32(parts) {
		known := w.knownEffects(p)
		for _, n := range []string{"0", "1"} {
			source, open := entities.Partition("s"+n, parts), 0
			w.eachEffect(source, func(materializer.Effect) { open++ })
			if entities.Partition("b"+n, parts) == p && open <= entities.MaxOpen && known[source] > remembered+open {
				w.wrong("partition %d knows %d effects of partition %d, of which %d are open", p, known[source], source, open)
			}
		}
	}
}

// knownEffects counts the effects of each partition that a partition knows.
func (w *world) knownEffects(p int32) (from [parts]int) {
	const source, row = 4 + 1 + 2, 4 + 1 + 2 + 2 + 8 + 4 // materializer, keyspace.go
	lower, upper := (materializer.Address{Generation: 1, Partition: uint16(p)}).Range()
	err := w.workers[0].store.Scan(lower, upper, func(k, _ []byte) bool {
		if k[4] == 'q' && len(k) == row {
			from[binary.BigEndian.Uint16(k[source:])]++
		}
		return true
	})
	if err != nil {
		w.wrong("read what partition %d knows of effects: %v", p, err)
	}
	return from
}

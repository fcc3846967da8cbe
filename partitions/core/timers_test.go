package core

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer"
)

// timerIndex is the stored index of timers around a real core. It performs the core's effects as
// the loop does: after the turn, in order.
type timerIndex struct {
	t *testing.T
	c *Core
	// rows has the index by offset; set has, by name, the offset that counts.
	rows map[int64]materializer.Due
	set  map[string]int64
	// order has the rows in their order, and removed ones; added are others, in any order.
	order, added []materializer.Due
	offset       int64
	firing       []*Timer
	// fired counts successful firings by offset.
	fired map[int64]int
}

func newTimerIndex(t *testing.T) *timerIndex {
	t.Helper()
	c := activeCore(t, true)
	c.now.Log = int64(time.Hour)
	return &timerIndex{t: t, c: c, rows: map[int64]materializer.Due{}, set: map[string]int64{}, fired: map[int64]int{}}
}

func compareDue(a, b materializer.Due) int {
	return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Offset, b.Offset))
}

// store adds a timer to the index. The core gets it by commit.
func (x *timerIndex) store(name string, at int64) materializer.Due {
	x.offset++
	due := materializer.Due{At: at, Offset: x.offset, Key: entities.Key{Type: "t", ID: name}, Name: name}
	x.put(due)
	x.set[name] = due.Offset
	return due
}

func (x *timerIndex) put(due materializer.Due) {
	x.rows[due.Offset] = due
	x.added = append(x.added, due)
}

// storeOf adds a timer of an entity type to the index.
func (x *timerIndex) storeOf(entityType string, at int64) materializer.Due {
	due := x.store(fmt.Sprint("n", x.offset), at)
	due.Key.Type = entityType
	x.put(due)
	return due
}

// commit sets a timer as the commit of a batch does.
func (x *timerIndex) commit(name string, at int64) { x.c.setTimer(x.store(name, at)) }

// after returns the first timers after one, in order.
func (x *timerIndex) after(due materializer.Due, limit int) []materializer.Due {
	if len(x.added) > 0 {
		x.order = slices.DeleteFunc(append(x.order, x.added...), func(d materializer.Due) bool {
			return x.rows[d.Offset] != d
		})
		slices.SortFunc(x.order, compareDue)
		x.added = x.added[:0]
	}
	var later []materializer.Due
	at, _ := slices.BinarySearchFunc(x.order, due, compareDue)
	for _, d := range x.order[at:] {
		if len(later) == limit {
			break
		}
		if _, is := x.rows[d.Offset]; is && compareDue(d, due) > 0 {
			later = append(later, d)
		}
	}
	return later
}

// perform ends the turn.
func (x *timerIndex) perform() {
	x.t.Helper()
	for i := 0; i < len(x.c.effects); i++ {
		switch do := x.c.effects[i].Do.(type) {
		case LoadTimers:
			due := x.after(do.After, do.Limit)
			x.c.TimersLoaded(due, len(due) == do.Limit)
		case SearchTimers:
			due := x.after(do.After, do.Limit)
			x.c.TimersFound(do.After.Key.Type, due, len(due) == do.Limit)
		case Fire:
			x.firing = append(x.firing, do.Timer)
		case Sweep:
			delete(x.rows, do.Offset)
		default:
			x.t.Fatalf("the core asks for %T", do)
		}
	}
	x.c.effects = nil
}

// answer ends the i-th command that a timer has started.
func (x *timerIndex) answer(i int, err *entities.Error) {
	a := x.firing[i]
	x.firing = slices.Delete(x.firing, i, i+1)
	switch {
	case x.set[a.Name] != a.Offset:
		x.c.Fired(x.c.incarnation, a, true, nil)
	case err != nil:
		x.c.Fired(x.c.incarnation, a, false, err)
	default:
		x.fired[a.Offset]++
		delete(x.set, a.Name)
		delete(x.rows, a.Offset)
		x.c.Fired(x.c.incarnation, a, false, nil)
	}
}

// finish fires everything that is left, and reports what does not fire.
func (x *timerIndex) finish(t *testing.T, want int) {
	t.Helper()
	for _, due := range x.rows {
		x.c.now.Log = max(x.c.now.Log, due.At)
	}
	for quiet := 0; quiet < 2; quiet++ {
		x.c.now.Log += int64(time.Minute)
		x.c.fireAgain()
		x.perform()
		for ; len(x.firing) > 0; quiet = 0 {
			x.answer(0, nil)
			x.perform()
		}
	}
	if len(x.rows) > 0 || len(x.fired) != want {
		t.Errorf("%d of %d timers have fired, %d are overdue and never fire; in memory: %d, more: %v",
			len(x.fired), want, len(x.rows), len(x.c.timers.next), x.c.timers.more)
	}
	for offset, n := range x.fired {
		if n != 1 {
			t.Errorf("the timer of offset %d fired %d times", offset, n)
		}
	}
}

// TestTimersSetDuringALoad: memory overflows between the moment at which the core asks the store
// for more timers and the moment at which it gets them. Dropped timers must be read again.
func TestTimersSetDuringALoad(t *testing.T) {
	for _, n := range []int{2_112, 2_113, 4_096, 6_207, 6_208, 6_209, 9_000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			x := newTimerIndex(t)
			const stored, types = 20_000, 64 // so many that none has enough to leave memory
			for i := range stored {
				x.storeOf(fmt.Sprint("s", i%types), x.c.now.Log+int64(i)*int64(time.Millisecond))
			}
			x.c.loadTimers()
			x.perform()
			x.c.now.Log += int64(3 * time.Second) // before the last one of those in memory
			x.c.fire()
			x.perform()
			for !asks[LoadTimers](x.c) { // the last of these turns asks for more, and is not over
				x.perform()
				x.answer(0, nil)
			}
			for i := range n {
				x.c.setTimer(x.storeOf(fmt.Sprint("c", i%types), x.c.now.Log+int64(i)))
			}
			x.c.fire()
			x.perform()
			x.finish(t, stored+n)
		})
	}
}

// TestEveryTimerFiresOnce: in whatever order timers are set, replaced, cancelled, loaded and fired,
// each one that counts fires once.
func TestEveryTimerFiresOnce(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 9))
			x := newTimerIndex(t)
			names, cancelled, replaced := 0, 0, 0
			set := func(commit bool) {
				name := fmt.Sprint("n", names)
				if names > 0 && rnd.IntN(10) == 0 {
					name = fmt.Sprint("n", rnd.IntN(names))
				} else {
					names++
				}
				if _, again := x.set[name]; again {
					replaced++
				}
				at := x.c.now.Log + rnd.Int64N(int64(time.Second)<<rnd.IntN(12))
				if commit {
					x.commit(name, at)
				} else {
					x.store(name, at)
				}
			}
			for range rnd.IntN(15_000) {
				set(false)
			}
			x.c.loadTimers()
			x.perform()
			for range 80 {
				for range 1 + rnd.IntN(4) { // the inputs of one turn
					switch rnd.IntN(6) {
					case 0:
						for range rnd.IntN(3_000) {
							set(true)
						}
						x.c.fire()
					case 1:
						x.c.now.Log += rnd.Int64N(int64(5 * time.Minute))
						x.c.fire()
					case 2:
						if name := fmt.Sprint("n", rnd.IntN(names+1)); x.set[name] != 0 {
							delete(x.set, name)
							cancelled++
						}
					default:
						for range min(len(x.firing), rnd.IntN(65)) {
							var err *entities.Error
							if rnd.IntN(20) == 0 {
								err = entities.Errorf(entities.Unavailable, entities.NotApplied, "down")
							}
							x.answer(rnd.IntN(len(x.firing)), err)
						}
					}
				}
				x.perform()
			}
			x.finish(t, int(x.offset)-cancelled-replaced)
		})
	}
}

// TestSlowTimersLeavePlaces: timers of one entity type, however long they take, leave places for
// others.
func TestSlowTimersLeavePlaces(t *testing.T) {
	x := newTimerIndex(t)
	of := func(entityType string) { x.c.setTimer(x.storeOf(entityType, x.c.now.Log)) }
	for range 3 * maxFiring {
		of("slow")
	}
	x.c.fire()
	x.perform()
	if len(x.firing) != maxFiringPerType {
		t.Fatalf("%d timers of one type are firing; want %d", len(x.firing), maxFiringPerType)
	}
	for range 100 {
		of("good")
		x.c.fire()
		x.perform()
		if len(x.firing) != maxFiringPerType+1 {
			t.Fatal("a timer waits behind those of another type")
		}
		x.answer(maxFiringPerType, nil)
		x.perform()
	}
	x.finish(t, 3*maxFiring+100)
}

// TestACrowdOfTimersHoldsUpNoOther: however many timers of one entity type are due, and whether
// their commands take long or fail, those of another type that are due after them are read from the
// store and fire. Memory stays bounded, and the crowd fires in the end.
func TestACrowdOfTimersHoldsUpNoOther(t *testing.T) {
	for name, fails := range map[string]bool{"slow": false, "failing": true} {
		t.Run(name, func(t *testing.T) {
			x := newTimerIndex(t)
			const crowd, few = 5 * TimerWindow, 10
			for range crowd {
				x.storeOf("crowd", x.c.now.Log)
			}
			x.c.now.Log++
			for range few {
				x.storeOf("other", x.c.now.Log)
			}
			x.c.loadTimers()
			x.perform()
			others := func() (n int) {
				for _, a := range x.firing {
					if a.Key.Type == "other" {
						n++
					}
				}
				return n
			}
			for range 2 * crowd / TimerWindow { // ticks
				if fails {
					for len(x.firing) > others() {
						i := slices.IndexFunc(x.firing, func(a *Timer) bool { return a.Key.Type == "crowd" })
						x.answer(i, entities.Errorf(entities.Unavailable, entities.NotApplied, "down"))
					}
				}
				x.c.fireAgain()
				x.perform()
				if n := len(x.c.timers.known); n > 3*TimerWindow {
					t.Fatalf("%d timers are in memory", n)
				}
			}
			if n := others(); n != few {
				t.Errorf("%d of %d timers fire that are due behind a crowd of another type", n, few)
			}
			x.finish(t, crowd+few)
		})
	}
}

// TestTimersLeaveAndReturn: timers of several types, in whatever order they come due, leave memory,
// fail and are set again, fire once.
func TestTimersLeaveAndReturn(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 11))
			x := newTimerIndex(t)
			for range 12_000 {
				x.storeOf(fmt.Sprint("t", rnd.IntN(1+rnd.IntN(4))), x.c.now.Log+rnd.Int64N(int64(time.Second)))
			}
			x.c.loadTimers()
			x.perform()
			for range 300 {
				switch rnd.IntN(4) {
				case 0:
					for range rnd.IntN(200) {
						due := x.storeOf(fmt.Sprint("t", rnd.IntN(5)), x.c.now.Log-rnd.Int64N(int64(time.Second)))
						x.c.setTimer(due)
					}
					x.c.fire()
				case 1:
					x.c.now.Log += rnd.Int64N(int64(time.Second))
					x.c.fireAgain()
				default:
					for range min(len(x.firing), rnd.IntN(65)) {
						i := rnd.IntN(len(x.firing))
						var err *entities.Error
						if x.firing[i].Key.Type != "t1" && rnd.IntN(3) == 0 {
							err = entities.Errorf(entities.Unavailable, entities.NotApplied, "down")
						}
						if x.firing[i].Key.Type == "t0" && rnd.IntN(4) > 0 {
							continue // it takes long
						}
						x.answer(i, err)
					}
				}
				x.perform()
			}
			x.finish(t, int(x.offset))
		})
	}
}

package sim

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/internal/leaktest"
	"github.com/millrace-io/millrace/tests/kit"
)

// TestMain gives the tests one processor: goroutines that wake at the same moment then run in the
// order in which they woke, and a seed decides everything. The garbage collector would interrupt
// them, so it runs between seeds.
func TestMain(m *testing.M) {
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(-1)
	leaktest.Main(m)
}

const (
	// shownEvents is how many events of a failing seed are shown.
	shownEvents = 80
	// mustHappen is the number of seeds in which every kind of fault must have happened.
	mustHappen = 100
)

// regressions returns the seeds that once failed.
func regressions(t *testing.T) []uint64 {
	t.Helper()
	file, err := os.Open("testdata/seeds.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var seeds []uint64
	for lines := bufio.NewScanner(file); lines.Scan(); {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("testdata/seeds.txt: %v", err)
		}
		seeds = append(seeds, seed)
	}
	return seeds
}

// TestSimulation runs seeds and checks what clients saw.
func TestSimulation(t *testing.T) {
	if seed := kit.SimSeed.Number64(t); seed > 0 {
		w := simulate(t, seed)
		t.Log(strings.Join(w.script, "\n"))
		report(t, w)
		return
	}
	from, count := kit.SimFrom.Number64(t), kit.SimSeeds.Number64(t)
	began, shown := time.Now(), time.Now()
	until := began
	if duration := kit.SimDuration.Duration(t); duration > 0 { // from a seed that was never chosen
		until, count, from = began.Add(duration), 1<<62, uint64(began.UnixNano())
	}
	known := regressions(t)
	faults, seen := map[string]int{}, map[string]int{}
	operations, unknowns, early, taken, violations := 0, 0, 0, 0, 0
	run := 0
	for i := range uint64(len(known)) + count {
		seed := from + i - uint64(len(known))
		if i < uint64(len(known)) {
			seed = known[i]
		} else if until.After(began) && time.Now().After(until) {
			break
		}
		run++
		w := simulate(t, seed)
		for kind, n := range w.faults {
			faults[kind] += n
		}
		if w.views != nil {
			for kind, n := range w.views.seen {
				seen[kind] += n
			}
		}
		operations += len(w.history)
		early += w.functions.early
		taken += w.taken
		for _, o := range w.history {
			if o.result.class == unknown {
				unknowns++
			}
		}
		if len(w.broken) > 0 {
			violations++
			report(t, w)
			const enough = 3
			if violations >= enough {
				break
			}
		}
		if time.Since(shown) > 10*time.Second {
			shown = time.Now()
			t.Logf("%d of %d seeds, %.0f/s, %d operations, %d violations", run, count,
				float64(run)/time.Since(began).Seconds(), operations, violations)
		}
	}
	kinds := slices.Sorted(maps.Keys(faults))
	counts, total := counted(faults)
	steps, _ := counted(seen)
	t.Logf("simulation: %d seeds from %d, %d operations, %.1f %% unknown, %d decided before their turn, %d records taken from feeds, %d faults (%s), read side: %s, %d violations, %.0f s",
		run, from, operations, 100*float64(unknowns)/float64(max(operations, 1)), early, taken, total,
		counts, steps, violations, time.Since(began).Seconds())
	if run >= mustHappen && violations == 0 && len(kinds) < 20 {
		t.Errorf("only %d kinds of faults happened: %v", len(kinds), kinds)
	}
	const stepsOfViews = 10
	if run >= mustHappen && violations == 0 && len(seen) < stepsOfViews {
		t.Errorf("only this happened on the read side: %s", steps)
	}
	if run >= mustHappen && early == 0 {
		t.Error("no command was decided before its turn")
	}
}

// counted lists how often each kind happened, and adds them up.
func counted(kinds map[string]int) (list string, total int) {
	var counts []string
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		counts = append(counts, fmt.Sprintf("%s %d", kind, kinds[kind]))
		total += kinds[kind]
	}
	return strings.Join(counts, ", "), total
}

func report(t *testing.T, w *world) {
	t.Helper()
	if len(w.broken) == 0 {
		return
	}
	script := w.script[max(0, len(w.script)-shownEvents):]
	t.Errorf("seed %d (%s=%d): %v\nthe last events:\n%s", w.seed, kit.SimSeed.Name, w.seed, w.broken,
		strings.Join(script, "\n"))
}

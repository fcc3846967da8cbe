package fire

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// totals are the figures of all worlds of an engine.
type totals struct {
	engine  string
	started time.Time
	// answers are calls that were answered; checked and unsure are commands that are in a checked
	// history, and those of them whose outcome is not known.
	answers, checked, unsure atomic.Int64
	mu                       sync.Mutex
	// faults counts, by name, those that were seen to have happened; idle those that were tried and
	// did nothing.
	faults, idle map[string]int
	violations   map[string]int
	saw          map[string]error
	outcomes     map[string]int
	// calls is nil but on the cluster.
	calls *calls
}

func newTotals(engine string) *totals {
	return &totals{
		engine: engine, started: time.Now(), faults: map[string]int{}, idle: map[string]int{}, violations: map[string]int{},
		saw: map[string]error{}, outcomes: map[string]int{},
	}
}

// line is everything in one line.
func (f *totals) line() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	all, kinds := 0, []string{}
	for _, name := range slices.Sorted(maps.Keys(f.faults)) {
		all += f.faults[name]
		kinds = append(kinds, fmt.Sprintf("%s %d", name, f.faults[name]))
	}
	share := 0.0
	if n := f.checked.Load(); n > 0 {
		share = float64(f.unsure.Load()) * 100 / float64(n)
	}
	text := fmt.Sprintf("fire: %s: %d operations checked, %.1f %% unknown, %d faults: %s; ", f.engine, f.checked.Load(),
		share, all, strings.Join(kinds, ", "))
	for _, name := range slices.Sorted(maps.Keys(f.idle)) {
		text += fmt.Sprintf("%s without effect %d, ", name, f.idle[name])
	}
	for _, name := range slices.Sorted(maps.Keys(f.outcomes)) {
		text += fmt.Sprintf("%s %d, ", name, f.outcomes[name])
	}
	broken := 0
	for _, n := range f.violations {
		broken += n
	}
	text += fmt.Sprintf("%d violations", broken)
	for _, name := range slices.Sorted(maps.Keys(f.violations)) {
		text += fmt.Sprintf(", %s %d", name, f.violations[name])
	}
	return fmt.Sprintf("%s%s; %.0f s", text, f.calls, time.Since(f.started).Seconds())
}

// sum is the closing line of a run.
func sum(all []*totals) string {
	checked, unsure, faults, broken := int64(0), int64(0), 0, 0
	for _, f := range all {
		checked += f.checked.Load()
		unsure += f.unsure.Load()
		faults += f.countFaults()
		f.mu.Lock()
		for _, n := range f.violations {
			broken += n
		}
		f.mu.Unlock()
	}
	return fmt.Sprintf("fire: all: %d operations checked, %.1f %% unknown, %d faults, %d violations", checked,
		float64(unsure)*100/float64(max(checked, 1)), faults, broken)
}

// happened counts a fault that was seen to have happened.
func (f *totals) happened(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults[name]++
}

func (f *totals) countFaults() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := 0
	for _, n := range f.faults {
		all += n
	}
	return all
}

// outcome counts what came of a fault that can end in several ways.
func (f *totals) outcome(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.outcomes[name]++
}

// note stores an error as a caller sees it.
func (f *totals) note(code codes.Code, outcome string, err error) {
	kind := code.String() + " " + outcome
	if full := "no space left"; strings.Contains(err.Error(), full) {
		kind += " " + full
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.saw[kind] == nil {
		f.saw[kind] = err
	}
}

// forget forgets the errors with a word.
func (f *totals) forget(word string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.saw, func(_ string, err error) bool { return strings.Contains(err.Error(), word) })
}

// noted reports whether a caller has seen an error with a code and a word.
func (f *totals) noted(code codes.Code, word string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, err := range f.saw {
		if status.Code(err) == code && strings.Contains(err.Error(), word) {
			return true
		}
	}
	return false
}

package fire

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// takenStep is how exactly the time of answered calls is kept.
	takenStep = 100 * time.Microsecond
	takenMost = int(callTimeout/takenStep) + 1
)

// calls is what callers got, for the figures: which calls were answered, when, how fast, and how
// old the answers of reads were that need not be of the newest state. A nil one counts nothing.
type calls struct {
	mu sync.Mutex
	// on: callers are at work.
	on bool
	// all and answered are calls through workers, and of gateways.
	all, answered [2]int
	// taken counts answered calls by the time that they took.
	taken [takenMost + 1]int
	// last is when the last answer came, seconds how many went by until then, silent those of them
	// without any.
	last, seconds, silent int64
	silence               time.Duration
	// failed counts calls that were not answered, by their errors.
	failed map[string]int
	// relaxed counts reads that were answered, ages those with a bound and, by 0, eventual ones.
	relaxed [eventual + 1]int
	ages    map[time.Duration][]time.Duration
	// followed are reads that workers count as answered for partitions of others; those of their last
	// moments are missing.
	followed atomic.Int64
}

// begin starts the clock of another world.
func (c *calls) begin() { c.switchTo(true) }

// end: callers are no longer at work.
func (c *calls) end() { c.switchTo(false) }

func (c *calls) switchTo(on bool) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.on, c.last = on, 0
}

func newCalls() *calls {
	return &calls{failed: map[string]int{}, ages: map[time.Duration][]time.Duration{}}
}

// note counts a call; failed is its error, "" for an answer.
func (c *calls) note(gateway bool, from, to int64, failed string) {
	if c == nil {
		return
	}
	way := 0
	if gateway {
		way = 1
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.on {
		return
	}
	c.all[way]++
	if failed != "" {
		c.failed[failed]++
		return
	}
	c.answered[way]++
	c.taken[min(int(time.Duration(to-from)/takenStep), takenMost)]++
	if c.last > 0 && to > c.last {
		passed := to/int64(time.Second) - c.last/int64(time.Second)
		c.seconds += passed
		c.silent += max(0, passed-1)
		c.silence = max(c.silence, time.Duration(to-c.last))
	}
	c.last = max(c.last, to)
}

// looked counts the relaxed reads of a history.
func (c *calls) looked(history []*command) {
	if c == nil {
		return
	}
	old := ages(history)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range history {
		if h.kind == look && h.fate == done {
			c.relaxed[h.freshness]++
		}
	}
	for _, a := range old {
		c.ages[a.bound] = append(c.ages[a.bound], a.measured)
	}
}

// String is a part of the line of figures.
func (c *calls) String() string {
	if c == nil {
		return ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	share := func(way int) float64 { return 100 * float64(c.answered[way]) / float64(max(c.all[way], 1)) }
	var text strings.Builder
	fmt.Fprintf(&text, "; of %d calls by way of gateways %.2f %% answered, of %d to workers %.2f %%, %d of %d seconds with an answer, longest time without one %v, took p50 %v, p99 %v",
		c.all[1], share(1), c.all[0], share(0), c.seconds-c.silent, c.seconds, c.silence.Round(time.Millisecond),
		c.quantile(0.5), c.quantile(0.99))
	text.WriteString(", not answered:")
	for _, kind := range slices.Sorted(maps.Keys(c.failed)) {
		fmt.Fprintf(&text, " %s %d", kind, c.failed[kind])
	}
	fmt.Fprintf(&text, "; reads at_least %d, eventual %d, bounded %d, by followers %d", c.relaxed[atLeast],
		c.relaxed[eventual], c.relaxed[bounded], c.followed.Load())
	for _, bound := range slices.Sorted(maps.Keys(c.ages)) {
		promised := "eventual"
		if bound > 0 {
			promised = fmt.Sprintf("promised %v", bound)
		}
		old := slices.Sorted(slices.Values(c.ages[bound]))
		fmt.Fprintf(&text, ", %s: oldest %v, p99 %v", promised, old[len(old)-1].Round(takenStep),
			old[len(old)*99/100].Round(takenStep))
	}
	return text.String()
}

// quantile is the time within which a share of the answered calls was.
func (c *calls) quantile(share float64) time.Duration {
	rest := int(share * float64(c.answered[0]+c.answered[1]))
	for i, n := range c.taken {
		if rest -= n; rest < 0 {
			return time.Duration(i+1) * takenStep
		}
	}
	return 0
}

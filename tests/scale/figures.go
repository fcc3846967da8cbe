package main

import (
	"runtime"
	"slices"
	"time"
)

// figures are the results for one group. All but Measured depends only on the options.
type figures struct {
	Workers, Partitions int
	Rest                rest
	Steps               []step
	Router              router
	Measured            measured
}

// rest is a stable group.
type rest struct {
	// Table is the size of the encoded table; Wire is what a rebalance without changes sends.
	Table int
	Wire  wire
	// RecordLimit is what Kafka takes by default, FitsUpTo the most partitions with which the
	// group's record stays below it.
	RecordLimit, FitsUpTo int
	// Heartbeats and HeartbeatBytes are per second, at the coordinator, requests and answers.
	Heartbeats     float64
	HeartbeatBytes float64
	// WatcherBytes is what one gateway makes the coordinator send in a second; while the group
	// changes it is four times that.
	WatcherBytes float64
	// ReadFactor is how many bytes followers read for each byte written; Followed is how many
	// partitions one worker follows.
	ReadFactor, Followed float64
	// Links are the connections between workers, both directions counted; LinksEach those of one
	// worker, in and out. Pings are those of the whole group in a second without other traffic.
	Links, LinksEach int
	Pings            float64
}

// step is an event in a group, and what it takes until the group is stable again.
type step struct {
	Name string
	// Rounds is the number of rebalances; Took the virtual time.
	Rounds int
	Took   time.Duration
	// Bytes is what all rebalances sent, MostBytes the largest one, on the coordinator's network.
	Bytes, MostBytes int
	// Released were taken from live owners. Claims are all that were written, MostClaims the most
	// of one worker in one rebalance, ClaimsAtOnce those of one rebalance of the group.
	Released, Claims, MostClaims, ClaimsAtOnce int
	// Cold claims were of partitions whose new owner was not warm. Rebuilt were read from the
	// beginning of the log, by owners and by followers.
	Cold, Rebuilt int
	// Unserved is the longest time for which a partition was not served: to detect, to rebalance,
	// to read what is missing, to claim.
	Unserved time.Duration
	// ReadFactor is the largest one during the step. Lingering are followers that stay although
	// others are warm: they do not cause a rebalance.
	ReadFactor float64
	Lingering  int
	// OldTable is the share of commands that a router with the table from before the step sends to
	// a wrong worker, MostHops the most workers that such a command is sent to.
	OldTable float64
	MostHops int

	noticed time.Duration
}

// add counts one rebalance of a group.
func (s *step) add(g *group, m moves, took time.Duration) {
	s.Rounds++
	s.Bytes += g.wire.total()
	s.MostBytes = max(s.MostBytes, g.wire.total())
	s.Released += m.released
	s.Claims += m.claims
	s.MostClaims, s.ClaimsAtOnce = max(s.MostClaims, m.mostClaims), max(s.ClaimsAtOnce, m.claims)
	s.Cold += m.cold
	s.Rebuilt += m.rebuilt
	s.ReadFactor = max(s.ReadFactor, float64(m.followed)/float64(g.partitions))
	if m.claims > 0 {
		reading, claiming := float64(m.mostRebuilt)/g.options.CatchUp, float64(m.claims)/g.options.Claims
		s.Unserved = max(s.Unserved, s.noticed+took+time.Duration((reading+claiming)*float64(time.Second)))
	}
	s.noticed = 0
}

// measured depends on the machine.
type measured struct {
	// Plan is the leader's part of a rebalance: decoding of join data, the plan, encoding of
	// assignments. Median and largest, with what the largest allocated.
	Plan, MostPlan time.Duration
	PlanAllocated  uint64
	// Decode is a member's part: decoding of the table. Due is one call of Table.Due.
	Decode, Due time.Duration
	// TableMemory is a table in memory, RouterMemory the counters of a router.
	TableMemory, RouterMemory uint64
	// Look is one look-up in the table, Forward a whole command of a gateway whose worker answers
	// at once.
	Look, Forward    time.Duration
	ForwardAllocated uint64
}

// costs fills in what was measured during the simulation.
func (m *measured) costs(c *costs) {
	m.Plan, m.MostPlan, m.PlanAllocated = c.plan.median(), c.plan.most, c.plan.allocated
	m.Decode, m.Due = c.decode.median(), c.due.median()
}

// costs are times measured during the simulation.
type costs struct{ plan, decode, due stopwatch }

type stopwatch struct {
	times     []time.Duration
	most      time.Duration
	allocated uint64
}

func (s *stopwatch) of(do func()) {
	before := allocated()
	began := time.Now()
	do()
	took := time.Since(began)
	s.times = append(s.times, took)
	if took > s.most {
		s.most, s.allocated = took, allocated()-before
	}
}

func (s *stopwatch) median() time.Duration {
	if len(s.times) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(s.times))[len(s.times)/2]
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// held returns the memory that the result of produce keeps.
func held[T any](n int, produce func() T) uint64 {
	kept := make([]T, n)
	used := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := used()
	for i := range kept {
		kept[i] = produce()
	}
	after := used()
	runtime.KeepAlive(kept)
	if after < before {
		return 0
	}
	return (after - before) / uint64(n) //nolint:gosec // a few
}

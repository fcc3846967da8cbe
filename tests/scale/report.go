package main

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"
)

// tables prints the figures as text: groups in columns, one table for stable groups, one for each
// step.
func tables(out io.Writer, o options, all []figures) error {
	fmt.Fprintf(out, "standbys %d, seed %d, heartbeat %v, catch-up %g partitions/s, network %s/s, %g claims/s\n",
		o.Standbys, o.Seed, o.Heartbeat, o.CatchUp, inBytes(o.Network), o.Claims)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(name string, of func(*figures) string) {
		fmt.Fprintf(w, "%s\t", name)
		for i := range all {
			fmt.Fprintf(w, "%s\t", of(&all[i]))
		}
		fmt.Fprintln(w)
	}
	heading := func(title string) {
		fmt.Fprintf(w, "\n%s\t", title)
		for i := range all {
			fmt.Fprintf(w, "%d × %d\t", all[i].Workers, all[i].Partitions)
		}
		fmt.Fprintln(w)
	}
	size := func(of func(*figures) int) func(*figures) string {
		return func(f *figures) string { return inBytes(float64(of(f))) }
	}
	number := func(of func(*figures) float64) func(*figures) string {
		return func(f *figures) string { return fmt.Sprintf("%.4g", of(f)) }
	}
	heading("at rest: workers × partitions")
	row("table", size(func(f *figures) int { return f.Rest.Table }))
	row("table in every assignment", func(f *figures) string { return strconv.FormatBool(f.Rest.Wire.Everywhere) })
	row("the group's record", size(func(f *figures) int { return f.Rest.Wire.Record }))
	row("of what Kafka takes", func(f *figures) string {
		return fmt.Sprintf("%.0f %%", 100*float64(f.Rest.Wire.Record)/float64(f.Rest.RecordLimit))
	})
	row("partitions that fit", number(func(f *figures) float64 { return float64(f.Rest.FitsUpTo) }))
	row("one rebalance, all bytes", size(func(f *figures) int { return f.Rest.Wire.total() }))
	row("  joins", size(func(f *figures) int { return f.Rest.Wire.Joins }))
	row("  answer to the leader", size(func(f *figures) int { return f.Rest.Wire.Leader }))
	row("  the leader's plan", size(func(f *figures) int { return f.Rest.Wire.Plan }))
	row("  assignments", size(func(f *figures) int { return f.Rest.Wire.Syncs }))
	row("  look-ups of the table", size(func(f *figures) int { return f.Rest.Wire.Lookups }))
	row("heartbeats/s", number(func(f *figures) float64 { return f.Rest.Heartbeats }))
	row("heartbeats, bytes/s", func(f *figures) string { return inBytes(f.Rest.HeartbeatBytes) })
	row("one gateway, bytes/s", func(f *figures) string { return inBytes(f.Rest.WatcherBytes) })
	row("followers read / written", number(func(f *figures) float64 { return f.Rest.ReadFactor }))
	row("followed by one worker", number(func(f *figures) float64 { return f.Rest.Followed }))
	row("links between workers", number(func(f *figures) float64 { return float64(f.Rest.Links) }))
	row("  of one worker", number(func(f *figures) float64 { return float64(f.Rest.LinksEach) }))
	row("  pings/s while silent", number(func(f *figures) float64 { return f.Rest.Pings }))
	for i := range all[0].Steps {
		step := func(f *figures) *step { return &f.Steps[i] }
		heading(step(&all[0]).Name)
		row("balancings", number(func(f *figures) float64 { return float64(step(f).Rounds) }))
		row("until at rest", func(f *figures) string { return step(f).Took.Round(10 * time.Millisecond).String() })
		row("bytes", size(func(f *figures) int { return step(f).Bytes }))
		row("  the largest rebalance", size(func(f *figures) int { return step(f).MostBytes }))
		row("taken from live owners", number(func(f *figures) float64 { return float64(step(f).Released) }))
		row("claims", number(func(f *figures) float64 { return float64(step(f).Claims) }))
		row("  at once, group", number(func(f *figures) float64 { return float64(step(f).ClaimsAtOnce) }))
		row("  at once, worker", number(func(f *figures) float64 { return float64(step(f).MostClaims) }))
		row("  of cold images", number(func(f *figures) float64 { return float64(step(f).Cold) }))
		row("read from the beginning", number(func(f *figures) float64 { return float64(step(f).Rebuilt) }))
		row("longest not served", func(f *figures) string { return step(f).Unserved.Round(time.Millisecond).String() })
		row("followers read / written, most", number(func(f *figures) float64 { return step(f).ReadFactor }))
		row("  followers too many at rest", number(func(f *figures) float64 { return float64(step(f).Lingering) }))
		row("misrouted with the old table", func(f *figures) string { return fmt.Sprintf("%.1f %%", 100*step(f).OldTable) })
		row("  workers asked, most", number(func(f *figures) float64 { return float64(step(f).MostHops) }))
	}
	heading("measured on this machine")
	for _, c := range []struct {
		name string
		of   func(*measured) time.Duration
	}{
		{"a rebalance, leader's processor", func(m *measured) time.Duration { return m.Plan }},
		{"  the longest", func(m *measured) time.Duration { return m.MostPlan }},
		{"table decoded", func(m *measured) time.Duration { return m.Decode }},
		{"is a rebalance due?", func(m *measured) time.Duration { return m.Due }},
		{"look at the table", func(m *measured) time.Duration { return m.Look }},
		{"a command through a gateway's router", func(m *measured) time.Duration { return m.Forward }},
	} {
		row(c.name, func(f *figures) string { return short(c.of(&f.Measured)) })
	}
	row("allocated by the longest rebalance",
		func(f *figures) string { return inBytes(float64(f.Measured.PlanAllocated)) })
	row("table in memory", func(f *figures) string { return inBytes(float64(f.Measured.TableMemory)) })
	row("router, in addition", func(f *figures) string { return inBytes(float64(f.Measured.RouterMemory)) })
	return w.Flush()
}

// short formats a duration with three digits.
func short(d time.Duration) string {
	unit := time.Duration(1)
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit).String()
}

// inBytes formats a size with three digits.
func inBytes(n float64) string {
	for _, unit := range []string{"B", "kB", "MB"} {
		if n < 999.5 {
			return fmt.Sprintf("%.3g %s", n, unit)
		}
		n /= 1000
	}
	return fmt.Sprintf("%.3g GB", n)
}

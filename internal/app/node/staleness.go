package node

import (
	"slices"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/partitions/replica"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// promises are what the relaxed consistencies say of the age of an answer.
var promises = map[entities.Consistency]string{ //nolint:gochecknoglobals // a constant table
	entities.Eventual: "some committed state",
	entities.Bounded:  "the newest state of not longer ago than asked",
	entities.AtLeast:  "a state that includes the token",
}

// stalenessStatus shows what was promised and measured of relaxed reads, for every entity type that is served or was.
func (n *Node) stalenessStatus() []*adminv1.StalenessStatus {
	var all []*adminv1.StalenessStatus
	measured := n.manager.Staleness()
	if catalog := n.host.Catalog(); catalog != nil {
		for _, t := range catalog.EntityTypes() {
			if !slices.ContainsFunc(measured, func(s replica.Staleness) bool { return s.EntityType == t.Name }) {
				all = append(all, &adminv1.StalenessStatus{EntityType: t.Name, Promise: "no stale reads served"})
			}
		}
	}
	for i := range measured {
		m := &measured[i]
		s := &adminv1.StalenessStatus{
			EntityType: m.EntityType, Consistency: m.Consistency.String(), By: m.By.String(), Promise: promises[m.Consistency],
			Answers: m.Ages.Count, RecentAnswers: m.Recent.Count, WindowSeconds: observe.RecentWindow.Seconds(),
			P99Seconds: min(m.Recent.Quantile(0.99), m.Largest).Seconds(), MaxSeconds: m.Largest.Seconds(),
		}
		if m.Promised > 0 {
			bound := m.Promised.Seconds()
			s.PromisedSeconds = &bound
		}
		all = append(all, s)
	}
	return all
}

// stalenessMetrics are the same for whoever collects metrics. Labels are entity types of functions, never what callers send.
func (n *Node) stalenessMetrics() observe.Source {
	const (
		ages     = "millrace_partitions_staleness_seconds"
		largest  = "millrace_partitions_largest_staleness_seconds"
		promised = "millrace_partitions_promised_staleness_seconds"
	)
	labels := []string{"type", "consistency", "by"}
	return observe.Source{
		Metrics: []observe.Metric{
			{Name: ages, Kind: observe.Latency, Labels: labels, Help: "Age of the newest moment of which it was known, when a relaxed read was answered, that the answer's state had everything committed by then."},
			{Name: largest, Kind: observe.Gauge, Labels: labels, Help: "The largest of that in the last one to two minutes."},
			{Name: promised, Kind: observe.Gauge, Labels: labels, Help: "The largest bound that bounded reads asked for in the last one to two minutes."},
		},
		Collect: func(emit observe.Emitter) {
			for _, s := range n.manager.Staleness() {
				values := []string{s.EntityType, s.Consistency.String(), s.By.String()}
				emit.Latency(ages, s.Ages, values...)
				emit.Value(largest, s.Largest.Seconds(), values...)
				if s.Consistency == entities.Bounded {
					emit.Value(promised, s.Promised.Seconds(), values...)
				}
			}
		},
	}
}

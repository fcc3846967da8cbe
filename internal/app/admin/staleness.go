package admin

import (
	"slices"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/partitions/replica"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// promises are the bounds of the relaxed consistencies on the age of an answer.
var promises = map[entities.Consistency]string{ //nolint:gochecknoglobals // a constant table
	entities.Eventual: "some committed state",
	entities.Bounded:  "the newest state of not longer ago than asked",
	entities.AtLeast:  "a state that includes the token",
}

// stalenessStatus shows what was promised and measured of relaxed reads, for every entity type that
// is served or was.
func stalenessStatus(measured []replica.Staleness, catalog *discovery.Catalog) []*adminv1.StalenessStatus {
	var all []*adminv1.StalenessStatus
	if catalog != nil {
		for _, t := range catalog.User().EntityTypes() {
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

package replica

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/observe"
)

// This file measures the age of the states from which relaxed reads are answered.
//
// What is measured is an upper bound, for each answer of this worker: the age of the newest moment
// of which this worker knows that the state had everything that was committed by then. Its sources
// are
//
//   - the owner of a followed partition, which reported how far it was, confirmed by the log, when
//     the image was there (bounded reads ask);
//   - the log: its end as read with the records, or as asked for, when the image was there;
//   - for an owner: the log's acknowledgement of the last append that was sent, or the read-back of
//     the claim. With a log in this process no other worker can write, and the age is 0.
//
// So an answer may have been fresher than its figure, and in a partition without writes it mostly
// was. A follower is measured when it opens its image, an owner when the answer leaves its loop:
// the time of a follower's function and of the network is not included. Neither is that of a broker
// that goes on answering because it does not know that others took its place; of the three sources,
// only the owners' confirmation rules that out. Strong answers are not measured: they are of the
// newest state by construction.

// Server is the kind of worker that answered a relaxed read.
type Server uint8

// The two kinds.
const (
	ByOwner Server = iota
	ByFollower
)

// String returns the name as shown in status and metrics.
func (s Server) String() string { return [...]string{"owner", "follower"}[s] }

const relaxedKinds = int(entities.AtLeast-entities.Eventual) + 1

// Staleness is the measured age of the answers of one entity type, with one consistency, by one
// kind of server.
type Staleness struct {
	EntityType  string
	Consistency entities.Consistency
	By          Server
	// Ages are those of all answers since the process began, Recent those of the last one to two
	// observe.RecentWindow, with the largest of them.
	Ages, Recent observe.Snapshot
	Largest      time.Duration
	// Promised is the largest bound that recent answers were asked to keep; 0 if the consistency
	// promises no time.
	Promised time.Duration
}

// Ages measure the staleness of answers. The partitions of a worker share them. Safe for concurrent
// use.
type Ages struct {
	// types has the measurements by entity type. The map is replaced, never changed; it has no more
	// types than functions declared.
	types atomic.Pointer[map[string]*measured]
	mu    sync.Mutex // for those who replace it
}

// measured holds one type's ages: by server, and by consistency from Eventual on.
type measured [ByFollower + 1][relaxedKinds]struct {
	ages   observe.Recent
	bounds observe.Recent
}

// Answered notes an answer to a relaxed command. It does not allocate once the type is known.
func (a *Ages) Answered(now time.Time, cmd *entities.Command, by Server, age time.Duration) {
	m := &a.of(cmd.Key.Type)[by][cmd.Consistency-entities.Eventual]
	m.ages.Observe(now, age)
	if cmd.Consistency == entities.Bounded {
		m.bounds.Observe(now, cmd.Bound)
	}
}

func (a *Ages) of(typ string) *measured {
	if m := a.types.Load(); m != nil {
		if known := (*m)[typ]; known != nil {
			return known
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	types := map[string]*measured{}
	if m := a.types.Load(); m != nil {
		if known := (*m)[typ]; known != nil {
			return known
		}
		types = maps.Clone(*m)
	}
	types[typ] = new(measured)
	a.types.Store(&types)
	return types[typ]
}

// Report lists the measurements, by type, consistency and server; combinations without an answer
// are left out.
func (a *Ages) Report(now time.Time) []Staleness {
	types := a.types.Load()
	if types == nil {
		return nil
	}
	var all []Staleness
	for _, typ := range slices.Sorted(maps.Keys(*types)) {
		for by := range (*types)[typ] {
			for i := range (*types)[typ][by] {
				m := &(*types)[typ][by][i]
				one := Staleness{
					EntityType: typ, Consistency: entities.Eventual + entities.Consistency(i), By: Server(by),
					Ages: m.ages.Snapshot(),
				}
				if one.Ages.Count == 0 {
					continue
				}
				one.Recent, one.Largest = m.ages.Lately(now)
				_, one.Promised = m.bounds.Lately(now)
				all = append(all, one)
			}
		}
	}
	slices.SortStableFunc(all, func(one, other Staleness) int {
		return cmp.Or(cmp.Compare(one.EntityType, other.EntityType), cmp.Compare(one.Consistency, other.Consistency))
	})
	return all
}

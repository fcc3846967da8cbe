package partitions

import (
	"cmp"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/internal/settings"
	"github.com/millrace-io/millrace/partitions/core"
)

// Limits bound what the partitions of a worker hold: each by itself (core.Limits) and, in the
// fields here, what the manager, the router and the loops bound. A zero field has its default;
// fields with a name tag are settings.
type Limits struct {
	core.Limits

	// MaxWaiting bounds the commands that wait in one partition, and those that wait in the router for
	// an owner of it.
	MaxWaiting int `name:"max-waiting" default:"4096" min:"1" help:"maximum number of commands that wait in one partition"`
	// ActiveMemory is what active entities of all partitions may hold, in bytes, before the least
	// recently used ones are passivated. Each partition gets an equal share as ActiveBytes, unless
	// that is set.
	ActiveMemory int `name:"active-memory" default:"256MiB" unit:"bytes" min:"1" process:"worker" help:"memory for active entities; the least recently used are passivated beyond it"`
	// CloseTimeout is how long a function may take to end a session in order.
	CloseTimeout time.Duration `default:"10s"`
	// ContractCheck is the interval at which the topic's settings are checked again.
	ContractCheck time.Duration `name:"contract-check" default:"1m" min:"1ns" process:"worker" help:"how often the settings of the journal's topic are checked"`
}

// among returns the limits of each partition of a worker, with every zero field set, lowered to
// what the topic takes.
func (l Limits) among(partitions int32, topic broker.TopicInfo) Limits {
	settings.Fill(&l)
	l.ActiveBytes = cmp.Or(l.ActiveBytes, max(l.ActiveMemory/int(partitions), 1))
	l.Limits = l.Limits.WithDefaults().Within(topic)
	return l
}

package routing

import (
	"sync"
	"sync/atomic"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/mutation"
)

// Table is the routing table of a process: who owns which partition. It is a hint, as old as the
// last rebalance of the group that the process knows. Safe for concurrent use.
type Table struct {
	// mu serializes changes.
	mu sync.Mutex
	// layout is that of the journal whose partitions a table names; zero if not known. Under mu.
	layout  entities.Layout
	present atomic.Pointer[heard]
	// refresh asks for a newer table; it may be nil.
	refresh func()
}

// heard is a table, nil before the first and after one that does not fit; why it does not fit; and
// a channel that is closed when there is another one.
type heard struct {
	table   *broker.Table
	misfit  error
	changed chan struct{}
}

// NewTable returns a table without content.
func NewTable() *Table {
	t := &Table{}
	t.present.Store(&heard{changed: make(chan struct{})})
	return t
}

// RefreshBy sets how to ask for a newer table when the present one has led to a worker that is not
// the owner. ask must not block, and is set before the first command.
func (t *Table) RefreshBy(ask func()) { t.refresh = ask }

// askNewer asks for a newer table.
func (t *Table) askNewer() {
	if t.refresh != nil {
		t.refresh()
	}
}

// Expect sets the layout by which commands are routed, which the tables from now on must have.
func (t *Table) Expect(l entities.Layout) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.layout = l
}

// Set replaces the table and wakes those that wait for another one. A table that does not fit is
// not used: then none is known, and Err returns why.
func (t *Table) Set(table *broker.Table) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := &heard{table: table, misfit: t.misfit(table), changed: make(chan struct{})}
	if now.misfit != nil {
		now.table = nil
	}
	close(t.present.Swap(now).changed)
}

// misfit returns why a table cannot be used. mu is held.
func (t *Table) misfit(table *broker.Table) error {
	if mutation.On(mutation.Layout) {
		return nil
	}
	if n := len(table.Owners); n != int(t.layout.Partitions) && t.layout.Partitions > 0 && len(table.Members) > 0 {
		other := t.layout
		other.Partitions = int32(n) //nolint:gosec // a number of partitions
		return t.layout.Differs(other, "the workers' routing table")
	}
	return table.Check()
}

// Err returns why the newest table is not used, nil if it is.
func (t *Table) Err() error { return t.present.Load().misfit }

// unowned returns why a partition has no known owner.
func (t *Table) unowned() string {
	if err := t.Err(); err != nil {
		return err.Error()
	}
	return "no worker owns it at the moment"
}

// Current returns the present table, nil before the first.
func (t *Table) Current() *broker.Table { return t.present.Load().table }

// Watch returns the present table, and a channel that is closed when there is another one.
func (t *Table) Watch() (*broker.Table, <-chan struct{}) {
	h := t.present.Load()
	return h.table, h.changed
}

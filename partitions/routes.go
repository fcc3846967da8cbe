package partitions

import (
	"sync"
	"sync/atomic"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/mutation"
)

// Routes is what a process knows of who owns which partition. It is a hint, as old as the last balancing of the group that was
// heard of. Safe for concurrent use.
type Routes struct {
	// mu is for those who change it.
	mu sync.Mutex
	// layout is that of the journal whose partitions a table names; zero: it is not known. Under mu.
	layout  entities.Layout
	present atomic.Pointer[heard]
	// onDoubt asks for a newer table.
	onDoubt func()
}

// heard is a table, nil before the first and after one that does not fit; why it does not; and what is closed when there is another one.
type heard struct {
	table   *broker.Table
	misfit  error
	changed chan struct{}
}

// NewRoutes returns routes that know nothing yet.
func NewRoutes() *Routes {
	r := &Routes{}
	r.present.Store(&heard{changed: make(chan struct{})})
	return r
}

// OnDoubt says how to ask for a newer table when the present one has led nowhere. It must not block, and is set before anything is
// routed.
func (r *Routes) OnDoubt(ask func()) { r.onDoubt = ask }

func (r *Routes) doubt() {
	if r.onDoubt != nil {
		r.onDoubt()
	}
}

// Expect says by which layout commands are routed: that of the tables from now on.
func (r *Routes) Expect(l entities.Layout) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.layout = l
}

// Set replaces the table and wakes those who wait for another one. A table that does not fit is not used: then none is known, and Err
// says why.
func (r *Routes) Set(t *broker.Table) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := &heard{table: t, misfit: r.misfit(t), changed: make(chan struct{})}
	if now.misfit != nil {
		now.table = nil
	}
	close(r.present.Swap(now).changed)
}

// misfit returns why a table cannot be used. mu is held.
func (r *Routes) misfit(t *broker.Table) error {
	if mutation.On(mutation.Layout) {
		return nil
	}
	if n := len(t.Owners); n != int(r.layout.Partitions) && r.layout.Partitions > 0 && len(t.Members) > 0 {
		other := r.layout
		other.Partitions = int32(n) //nolint:gosec // a number of partitions
		return r.layout.Differs(other, "the workers' routing table")
	}
	return t.Check()
}

// Err returns why the newest table is not used, nil when it is.
func (r *Routes) Err() error { return r.present.Load().misfit }

// unowned says why a partition has no owner as far as is known.
func (r *Routes) unowned() string {
	if err := r.Err(); err != nil {
		return err.Error()
	}
	return "no worker owns it at the moment"
}

// Table returns the present table, nil before the first.
func (r *Routes) Table() *broker.Table { return r.present.Load().table }

// Look returns the present table, and what is closed when there is another one.
func (r *Routes) Look() (*broker.Table, <-chan struct{}) {
	h := r.present.Load()
	return h.table, h.changed
}

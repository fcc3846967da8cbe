package partitions

import (
	"sync"

	"github.com/millrace-io/millrace/broker-adapter"
)

// Routes is what a process knows of who owns which partition. It is a hint, as old as the last balancing of the group that was
// heard of. Safe for concurrent use.
type Routes struct {
	mu    sync.Mutex
	table *broker.Table
	// changed is closed when there is another table.
	changed chan struct{}
	// onDoubt asks for a newer table.
	onDoubt func()
}

// OnDoubt says how to ask for a newer table when the present one has led nowhere. It must not block, and is set before anything is
// routed.
func (r *Routes) OnDoubt(ask func()) { r.onDoubt = ask }

func (r *Routes) doubt() {
	if r.onDoubt != nil {
		r.onDoubt()
	}
}

// NewRoutes returns routes that know nothing yet.
func NewRoutes() *Routes { return &Routes{changed: make(chan struct{})} }

// Set replaces the table and wakes those who wait for another one.
func (r *Routes) Set(t *broker.Table) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.table = t
	close(r.changed)
	r.changed = make(chan struct{})
}

// Table returns the present table, nil before the first.
func (r *Routes) Table() *broker.Table {
	t, _ := r.Look()
	return t
}

// Look returns the present table, and what is closed when there is another one.
func (r *Routes) Look() (*broker.Table, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.table, r.changed
}

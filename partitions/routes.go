package partitions

import (
	"sync"
	"sync/atomic"

	"github.com/millrace-io/millrace/broker-adapter"
)

// Routes is what a process knows of who owns which partition. It is a hint, as old as the last balancing of the group that was
// heard of. Safe for concurrent use.
type Routes struct {
	// mu is for those who change it.
	mu      sync.Mutex
	present atomic.Pointer[heard]
	// onDoubt asks for a newer table.
	onDoubt func()
}

// heard is a table, nil before the first, and what is closed when there is another one.
type heard struct {
	table   *broker.Table
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

// Set replaces the table and wakes those who wait for another one.
func (r *Routes) Set(t *broker.Table) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.present.Swap(&heard{table: t, changed: make(chan struct{})})
	close(before.changed)
}

// Table returns the present table, nil before the first.
func (r *Routes) Table() *broker.Table { return r.present.Load().table }

// Look returns the present table, and what is closed when there is another one.
func (r *Routes) Look() (*broker.Table, <-chan struct{}) {
	h := r.present.Load()
	return h.table, h.changed
}

package node

import (
	"cmp"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/internal/app/inprocess"
	"github.com/millrace-io/millrace/internal/backoff"
	"github.com/millrace-io/millrace/internal/definitions"
	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions/replica"
	"github.com/millrace-io/millrace/projections"
	"github.com/millrace-io/millrace/projections/definition"
	"github.com/millrace-io/millrace/projections/query"
	localrows "github.com/millrace-io/millrace/projections/query/local"
)

// This file puts the read side of a worker together: definitions are entities of the runtime
// (package definitions); what they define is folded into rows beside each image of a partition
// (package projections); callers ask for the rows by services that are made of the definitions
// (package query). Nothing that fails here ends the node or keeps a command waiting: the tasks
// begin again after a pause, and the status has the reason. Only at its start a worker is not ready
// for up to knownPatience, until it knows what is defined.

// The owners of the runtime's functions.
const (
	ownerDefinitions = "definitions"
	ownerQueries     = "queries"
)

// readSide is the read side of a worker.
type readSide struct {
	node        *Node
	definitions *definitions.Definitions
	engine      *projections.Engine
	// rows are those of this worker.
	rows    query.Executor
	queries *query.Service
	// attached has an entry for each partition that the engine knows of; the task has it.
	attached []bool
	// ages are those of the rows of owned partitions.
	ages []rowAge
	// defined: the queries of the present definitions are served, or why not is a trouble.
	defined atomic.Bool
	// turned has room for the signal that the role of a partition has changed.
	turned chan struct{}
}

// openReadSide makes the read side, and hosts the definitions.
func (n *Node) openReadSide() error {
	r := n.readSide
	r.attached = make([]bool, n.layout.Partitions)
	r.engine = projections.New(projections.Options{Store: r.store, Clock: n.clock, Logger: n.logger})
	r.ages = make([]rowAge, n.layout.Partitions)
	r.rows = &localrows.Executor{Engine: r.engine, Count: n.layout.Partitions, Known: r.known, Worker: n.identity.Worker}
	r.queries = query.New(query.Options{
		App: n.config.App, Executor: everywhere{r.rows, r}, Freshness: r, Clock: n.clock, Dev: n.options.Dev,
	})
	o := definitions.Options{
		Commands: r, Schema: r.schema, Ready: r.ready, Leads: r.leads, Dev: n.options.Dev, Clock: n.clock, Logger: n.logger,
		Source: definitions.OfImage(revisions{n}, elsewhere{n, definitions.OfPeers(n.dialDefinitions)}, n.clock),
	}
	if !n.config.Ephemeral {
		o.Dir = filepath.Join(n.viewsDirectory(), "definitions")
	}
	r.definitions = definitions.New(o)
	function, err := inprocess.New(definitions.Services()...)
	if err == nil {
		err = n.serveOwn(ownerDefinitions, function)
	}
	if err != nil {
		return err
	}
	revision, _ := r.definitions.Current()
	r.define(revision) // as this worker knew it last, before a caller can ask
	r.defined.Store(r.definitions.Known())
	return nil
}

// knownPatience is how long a worker that has just started is not ready because it does not know
// what is defined: without that, calls of queries would find no service.
const knownPatience = 5 * time.Second

var errNotKnown = errors.New("the definitions of the app are not known yet")

// isDefined reports whether the worker serves what is defined, as far as it knows. Before, a query
// that it does not serve may be one.
func (r *readSide) isDefined() bool { return r.defined.Load() }

// notKnown returns an error while the worker is not ready because of that.
func (r *readSide) notKnown() error {
	n := r.node
	if r.isDefined() || n.clock.Now().Sub(n.started) >= knownPatience {
		return nil
	}
	return errNotKnown
}

// store opens the views for the engine, which asks again when it cannot have them.
func (r *readSide) store() (materializer.Store, error) {
	store, err := r.node.views.Open()
	r.node.troubles.note(taskProjections, err)
	return store, err
}

// Call runs a command of the runtime's services.
func (r *readSide) Call(ctx context.Context, service, method string, request []byte) ([]byte, error) {
	return r.node.callOwn(ctx, service, method, request)
}

// schema is what definitions are checked against: what the function serves now.
func (r *readSide) schema() (*definition.Schema, error) {
	catalog, _ := r.node.readiness.watch()
	if catalog == nil {
		return nil, r.node.NotReady()
	}
	return definition.SchemaOf(catalog)
}

// address is where the store has a partition.
func (n *Node) address(partition int32) materializer.Address {
	return materializer.Address{Generation: n.layout.Generation, Partition: uint16(partition)} //nolint:gosec // at most 4096
}

// definitionsPartition is that of the definitions.
func (n *Node) definitionsPartition() int32 {
	return entities.Partition(definitions.EntityID, int(n.layout.Partitions))
}

// leads reports whether this worker owns the partition of the definitions.
func (r *readSide) leads() bool {
	return r.node.manager.Partition(definitions.EntityID).Replica().Role() == materializer.Owning
}

// Confirm asks the owner of a partition how far it is.
func (r *readSide) Confirm(ctx context.Context, partition int32) (next int64, err error) {
	return r.node.manager.Partitions()[partition].Replica().Confirm(ctx)
}

// Confirmed returns the last answer of the owner of a partition.
func (r *readSide) Confirmed(partition int32) (next int64, asked time.Time, ok bool) {
	if last := r.node.manager.Partitions()[partition].Replica().Confirmed(); last != nil {
		return last.Next, last.Asked, true
	}
	return 0, time.Time{}, false
}

// image is a partition's image as projections see it.
type image struct {
	*replica.Replica

	address materializer.Address
}

// Address is the place of the image in the store.
func (i image) Address() materializer.Address { return i.address }

// runProjections folds the partitions that have an image here, as they come and go, into the rows
// of the present definitions, until no caller and no other worker asks for rows any more.
func (n *Node) runProjections(ctx context.Context) error {
	r := n.readSide
	needed, release := context.WithCancelCause(context.WithoutCancel(ctx))
	defer release(nil)
	stop := context.AfterFunc(ctx, func() {
		<-n.settled
		release(context.Cause(ctx))
	})
	defer stop()
	folding := make(chan struct{})
	go func() { // ends with needed; waited for below
		defer close(folding)
		n.keepOn(needed, taskProjections, r.engine.Run)
	}()
	r.follow(needed)
	<-folding
	return nil
}

// follow tells the engine which partitions have an image here, and the engine and the queries what
// is defined, until ctx ends.
func (r *readSide) follow(ctx context.Context) {
	var known *definitions.Revision
	var served *discovery.Catalog
	late, stop := r.node.clock.After(knownPatience)
	defer stop()
	for {
		r.attach()
		isKnown := r.definitions.Known() // before the revision is read, which is then not an older one
		function, functionChanged := r.node.readiness.user()
		revision, changed := r.definitions.Current()
		if revision != known || function != served { // it may contradict the queries, or not any more
			known, served = revision, function
			r.define(revision)
		}
		r.defined.Store(isKnown)
		r.node.checkReady() // see notKnown
		select {
		case <-r.turned:
		case <-late:
		case <-changed:
		case <-functionChanged:
		case <-ctx.Done():
			return
		}
	}
}

// attach attaches the images that have got a role, and detaches those that have none.
func (r *readSide) attach() {
	for id, p := range r.node.manager.Partitions() {
		now := p.Replica().Role() != materializer.NoRole
		if now == r.attached[id] {
			continue
		}
		address := r.node.address(int32(id))
		if r.attached[id] = now; now {
			r.engine.Attach(image{p.Replica(), address})
		} else {
			r.engine.Detach(address)
		}
	}
}

// define takes a revision: its rows are folded, and the services of what is promoted are served.
func (r *readSide) define(revision *definitions.Revision) {
	if revision.Number == 0 { // nothing is known yet: rows that are there may be needed
		return
	}
	views := make([]*projections.View, 0, len(revision.Views)+len(revision.Rebuilding))
	for _, v := range slices.Concat(revision.Views, revision.Rebuilding) {
		views = append(views, rowsOf(v))
	}
	asked := make([]*query.View, len(revision.Views))
	for i, v := range revision.Views {
		asked[i] = &query.View{
			Projection: v.Projection, Version: v.Version, Dataset: v.Dataset, Indexes: v.Indexes, Aggregates: v.Aggregates,
			Promoted: v.Stage == definitions.Promoted, Kept: v.Stage == definitions.Kept,
			Progress: func() string { return r.progress(v) },
		}
	}
	err := r.queries.Define(asked, revision.PageKey) // first: no new call goes to rows that are dropped now
	r.engine.Define(views)
	if err == nil {
		err = r.serveQueries()
	}
	r.node.troubles.note(taskDefinitions, err)
	if err != nil {
		r.node.logger.Error("the queries of the definitions are not served as they are defined now",
			"revision", revision.Number, observe.Error, err)
	}
}

// rowsOf is what the engine is told of a version.
func rowsOf(v *definitions.View) *projections.View {
	rows := &projections.View{
		Projection: v.Projection, Dataset: v.Dataset, Indexes: v.Indexes, Aggregates: v.Aggregates, Live: v.Live(),
		Paused: v.Paused,
	}
	for _, s := range v.Skips {
		rows.Skips = append(rows.Skips, projections.Skip{Partition: s.GetPartition(), Offset: s.GetOffset()})
	}
	return rows
}

// progress says how far a version is that is not promoted.
func (r *readSide) progress(v *definitions.View) string {
	if ready, progress := r.engine.Ready(v.Dataset); !ready {
		return progress
	}
	return cmp.Or(r.definitions.Progress(definitions.ID{Name: v.Name, Version: v.Version}),
		"its rows are complete on this worker")
}

// serveQueries hosts the services of the present definitions.
func (r *readSide) serveQueries() error {
	catalog := r.queries.Catalog()
	if catalog == nil || len(catalog.Services()) == 0 {
		if _, err := r.node.host.Remove(ownerQueries, r.node.showCatalog); err != nil {
			return err
		}
		r.node.readiness.set(r.node.host, nil)
		return nil
	}
	return r.node.serveOwn(ownerQueries, &answers{
		spec: catalog.Spec(), handle: r.queries.Handle, stream: r.queries.HandleStream,
	})
}

// runDefinitions learns what is defined, and rolls new versions out where this worker leads.
func (n *Node) runDefinitions(ctx context.Context) error {
	n.keepOn(ctx, taskDefinitions, n.readSide.definitions.Run)
	return nil
}

// keepOnPause is the pause after a part of the read side has ended by itself.
var keepOnPause = backoff.Policy{First: 100 * time.Millisecond, Max: 10 * time.Second, Jitter: 0.3} //nolint:gochecknoglobals // a constant

// keepOn runs something until ctx ends. If it ends before, the task has a trouble and it is begun
// again after a pause.
func (n *Node) keepOn(ctx context.Context, task string, run func(context.Context) error) {
	for attempt := 1; ; attempt++ {
		err := run(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("it ended by itself")
		}
		n.troubles.note(task, err)
		n.logger.Error("the read side has failed and begins again; commands go on", "task", task, observe.Error, err)
		if !n.pause(ctx, keepOnPause.Pause(attempt)) {
			return
		}
	}
}

package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/partitions/replica"
	"github.com/millrace-io/millrace/projections"
	"github.com/millrace-io/millrace/projections/definition"
	"github.com/millrace-io/millrace/projections/query"
	"github.com/millrace-io/millrace/projections/query/local"
)

// In one of viewedOf seeds the workers fold a projection of the cells. Versions of it are applied,
// promoted, rolled back and dropped, and workers learn of that one after the other. Each answer
// must be what the log says up to the position that it names: the oracle is the recomputation.
const viewedOf, viewedSeed = 3, 1

// cellsYAML counts how often the value of a cell was set. Its rows say of which version they are,
// so that an answer of two datasets shows itself.
const cellsYAML = `apiVersion: millrace/v1
kind: Projection
metadata: {name: cells, version: %[1]d}
spec:
  row: {cell: string, sets: int64, mark: int64}
  key: [cell]
  from:
    - entity: cell
      state: {type: sim/cell, set: {sets: '${row.sets + 1}', mark: %[1]d}}
      deleted: {delete: true}
  indexes:
    - {name: by_sets, fields: [sets], include: all}
  aggregates:
    - {name: by_sets, groupBy: [sets], count: cells, sum: {total: sets}}
  queries:
    ListBySets: {params: {sets: int64}, where: row.sets == params.sets, watch: {resume: 10s}}
    ListAll: {watch: {resume: 10s}}
    CountBySets: {aggregate: by_sets}
`

// viewVersions is how many versions there are. That of a number has the dataset of that number.
const viewVersions = 4

// The numbers of the index and of the aggregate in the store.
const bySets, setsCounted = 1, 2

// cellVersions are the definitions, made once and outside of all bubbles.
var cellVersions = sync.OnceValues(func() (versions []*definition.Projection, err error) {
	schema, err := definition.NewSchema(&descriptorpb.FileDescriptorSet{}, []definition.EntityType{
		{Name: cellType.Name, Service: cellType.Service},
	})
	if err != nil {
		return nil, err
	}
	for n := range viewVersions {
		text := fmt.Appendf(nil, cellsYAML, n+1)
		set := definition.Check([]definition.Source{{Name: "cells.yaml", Text: text}}, definition.Options{Schema: schema})
		if err := set.Report.Err(); err != nil {
			return nil, err
		}
		versions = append(versions, set.Definitions[0].(*definition.Projection))
	}
	return versions, nil
})

// views is the read side of a simulation. Its random source is of its own, so that the seeds'
// stories do not depend on it.
type views struct {
	rng      *rand.Rand
	versions []*definition.Projection
	// newest is the revision that workers learn of sooner or later.
	newest viewRevision
	// stores are what the disk of each worker has, saved an earlier moment.
	stores, saved [workers]*memstore.Store
	// watchers are clients that are told what changes.
	watchers []*watcher
	// effects are what the log has set, by partition.
	effects [parts]setsOfCells
	// seen counts what happened.
	seen map[string]int
}

// viewRevision says which versions there are, and which one is in force.
type viewRevision struct {
	versions []int
	inForce  int
}

// sideOf is the read side of one life of a worker.
type sideOf struct {
	engine *projections.Engine
	store  *memstore.Store
	known  viewRevision
	ended  chan struct{}
}

// image is a partition's image as projections see it.
type image struct {
	*replica.Replica

	address materializer.Address
}

func (i image) Address() materializer.Address { return i.address }

func addressOf(p int) materializer.Address {
	return materializer.Address{Generation: 1, Partition: uint16(p)}
}

func (w *world) openViews(t *testing.T) {
	t.Helper()
	versions, err := cellVersions()
	if err != nil {
		t.Fatal(err)
	}
	w.views = &views{
		rng: rand.New(rand.NewPCG(w.seed, 3)), versions: versions, seen: map[string]int{},
		newest: viewRevision{versions: []int{1}, inForce: 1}, watchers: newWatchers(),
	}
	for i := range w.views.stores {
		w.views.stores[i], w.views.saved[i] = memstore.New(), memstore.New()
	}
}

// startViews starts the read side of a worker on what a crash has left of its disk.
func (w *world) startViews(ctx context.Context, i int, life *worker) {
	v := w.views
	switch v.rng.IntN(4) {
	case 0:
		v.seen["views fall back"]++
		v.stores[i] = v.saved[i].Clone()
	case 1:
		v.seen["views are gone"]++
		v.stores[i] = memstore.New()
	default:
		v.stores[i] = v.stores[i].Clone()
	}
	v.saved[i] = v.stores[i].Clone()
	s := &sideOf{store: v.stores[i], ended: make(chan struct{})}
	s.engine = projections.New(projections.Options{
		Store: func() (materializer.Store, error) { return s.store, nil }, Clock: w.clock, Folding: 1, Reading: 1,
	})
	for p, of := range life.m.Partitions() {
		s.engine.Attach(image{of.Replica(), addressOf(p)})
	}
	life.side = s
	w.learn(life)
	go func() { // ends with ctx, before life.ended is closed
		defer close(s.ended)
		_ = s.engine.Run(ctx)
	}()
}

// learn tells a worker the newest revision.
func (w *world) learn(life *worker) {
	v := w.views
	life.side.known = v.newest
	var all []*projections.View
	for _, n := range v.newest.versions {
		all = append(all, &projections.View{
			Projection: v.versions[n-1], Dataset: uint32(n), Indexes: []uint16{bySets}, Aggregates: []uint16{setsCounted},
			Live: n == v.newest.inForce,
		})
	}
	life.side.engine.Define(all)
}

// look is a step of the read side.
func (w *world) look() {
	if w.views == nil {
		return
	}
	v := w.views
	life := w.workers[v.rng.IntN(workers)]
	switch n := v.rng.IntN(60); {
	case n == 0:
		w.applyView()
	case n < 3:
		w.promoteView()
	case n == 3:
		w.dropViews()
	case n < 8:
		if !life.dead && !life.frozen {
			v.seen["worker learned"]++
			w.learn(life)
		}
	case n < 10:
		i := v.rng.IntN(workers)
		v.saved[i] = v.stores[i].Clone()
	case n < 30:
		w.query(life, w.workers[v.rng.IntN(workers)])
	default:
		w.watch(v.watchers[v.rng.IntN(len(v.watchers))], life, w.workers[v.rng.IntN(workers)])
	}
	synctest.Wait()
}

func (w *world) applyView() {
	v := w.views
	if last := slices.Max(v.newest.versions); last < viewVersions {
		v.seen["applied"]++
		v.newest.versions = append(slices.Clone(v.newest.versions), last+1)
	}
}

// promoteView puts another version in force that a worker has the rows of: a later one, or an
// earlier one.
func (w *world) promoteView() {
	v := w.views
	to := v.newest.versions[v.rng.IntN(len(v.newest.versions))]
	ready := false
	for _, life := range w.workers {
		if !life.dead {
			is, _ := life.side.engine.Ready(uint32(to))
			ready = ready || is
		}
	}
	switch {
	case to == v.newest.inForce || !ready:
		return
	case to < v.newest.inForce:
		v.seen["rolled back"]++
	default:
		v.seen["promoted"]++
	}
	v.newest.inForce = to
}

// dropViews drops what was in force before.
func (w *world) dropViews() {
	v := w.views
	kept := slices.DeleteFunc(slices.Clone(v.newest.versions), func(n int) bool { return n < v.newest.inForce })
	if len(kept) < len(v.newest.versions) {
		v.seen["dropped"]++
		v.newest.versions = kept
	}
}

// query has one worker ask another for a table of a partition: with the dataset that is in force as
// far as the one that asks knows, and perhaps as of a position that a client has seen.
func (w *world) query(asks, answers *worker) {
	v := w.views
	if asks.dead || answers.dead || answers.frozen {
		return
	}
	scan := &query.Scan{
		Dataset: uint32(asks.side.known.inForce), Partition: int32(v.rng.IntN(parts)), Reverse: v.rng.IntN(2) == 0,
	}
	scan.Table = []query.Table{query.ByKey, query.ByIndex, query.Groups}[v.rng.IntN(3)]
	if next, open := w.workers[v.rng.IntN(workers)].tails[scan.Partition].feed.Position(); open && v.rng.IntN(2) == 0 {
		scan.Reach = next
	}
	w.answer(answers, scan)
}

// answer has a worker answer, and checks it. It returns the position that the answer is of, -1 for
// none.
func (w *world) answer(life *worker, scan *query.Scan) int64 {
	v := w.views
	scan.Number = map[query.Table]uint16{query.ByIndex: bySets, query.Groups: setsCounted}[scan.Table]
	ctx, cancel := context.WithTimeout(w.ctx, pullPatience)
	defer cancel()
	rows, err := (&local.Executor{Engine: life.side.engine, Count: parts}).Open(ctx, scan)
	if _, gone := errors.AsType[*query.NotHereError](err); gone {
		v.seen["not here"]++
		return -1
	}
	if errors.Is(err, context.DeadlineExceeded) {
		v.seen["late"]++
		return -1
	}
	if err != nil {
		w.wrong("query partition %d on %s: %v", scan.Partition, life.name, err)
		return -1
	}
	defer rows.Close()
	at := rows.At().Position
	if at < scan.Reach {
		w.wrong("query partition %d on %s: the answer is at offset %d, and %d was asked for", scan.Partition, life.name, at,
			scan.Reach)
	}
	var got []string
	for {
		e, err := rows.Next(ctx)
		if err != nil {
			w.wrong("query partition %d on %s: %v", scan.Partition, life.name, err)
			return -1
		}
		if e == nil {
			break
		}
		got = append(got, shown(scan.Table, e))
	}
	if scan.Reverse {
		slices.Reverse(got)
	}
	want := v.effects[scan.Partition].expected(w, int(scan.Partition), at, scan)
	if !slices.Equal(got, want) {
		w.wrong("table %d of dataset %d, partition %d, on %s at offset %d is %v; the log has %v", scan.Table, scan.Dataset,
			scan.Partition, life.name, at, got, want)
	}
	v.seen["answered"]++
	return at
}

// shown is an entry as text.
func shown(table query.Table, e *query.Entry) string {
	if table == query.Groups {
		return fmt.Sprintf("%d cells, %d", e.Count, e.Sums[0].Low)
	}
	r := rowOfCell{}
	for b := e.Row; len(b) > 0; {
		number, typ, n := protowire.ConsumeTag(b)
		b = b[n:]
		if typ == protowire.BytesType {
			text, n := protowire.ConsumeBytes(b)
			r.cell, b = string(text), b[n:]
			continue
		}
		value, n := protowire.ConsumeVarint(b)
		if b = b[n:]; number == 2 {
			r.sets = int(value)
		} else {
			r.mark = int(value)
		}
	}
	return r.String()
}

// rowOfCell is a row.
type rowOfCell struct {
	cell       string
	sets, mark int
}

func (r rowOfCell) String() string { return fmt.Sprintf("%s=%d/%d", r.cell, r.sets, r.mark) }

// setsOfCells are the effective records of a partition that set a cell or delete it, in order, as a
// fold from nothing has them. They are computed once: the beginning of a log does not change.
type setsOfCells struct {
	fold  *materializer.Fold
	read  int
	taken []effective
}

type effective struct {
	offset  int64
	cell    string
	deleted bool
}

func (s *setsOfCells) readOn(w *world, p int) {
	if s.fold == nil {
		s.fold = materializer.NewFold(addressOf(p), topicID(w), materializer.Meta{})
		s.fold.Observe(func(e *materializer.Entry) {
			typ, cell, _ := strings.Cut(string(e.Key), "/")
			isSet := e.Envelope.Kind == record.State && e.Envelope.TypeURL == "sim/cell"
			if typ == cellType.Name && (isSet || e.Envelope.Kind == record.Delete) {
				s.taken = append(s.taken, effective{e.Offset, cell, !isSet})
			}
		})
	}
	records := w.log.Records(broker.Partition{Topic: topic, ID: int32(p)})
	for ; s.read < len(records); s.read++ {
		if _, err := s.fold.Record(materializer.Discard{}, &records[s.read]); err != nil {
			w.wrong("fold partition %d from nothing: %v", p, err)
		}
	}
}

// rowsAt are the rows of a dataset at an offset, in the order of a table.
func (s *setsOfCells) rowsAt(w *world, p int, until int64, scan *query.Scan) (rows []rowOfCell) {
	s.readOn(w, p)
	sets := map[string]int{}
	for _, e := range s.taken {
		if e.offset >= until {
			break
		}
		if sets[e.cell]++; e.deleted {
			delete(sets, e.cell)
		}
	}
	for cell, n := range sets {
		rows = append(rows, rowOfCell{cell, n, int(scan.Dataset)})
	}
	slices.SortFunc(rows, func(a, b rowOfCell) int {
		if scan.Table == query.ByKey {
			return strings.Compare(a.cell, b.cell)
		}
		return cmp.Or(cmp.Compare(a.sets, b.sets), strings.Compare(a.cell, b.cell))
	})
	return rows
}

// expected is what a scan of a whole table returns at an offset, smallest first.
func (s *setsOfCells) expected(w *world, p int, until int64, scan *query.Scan) (list []string) {
	rows := s.rowsAt(w, p, until, scan)
	if scan.Table != query.Groups {
		for _, r := range rows {
			list = append(list, r.String())
		}
		return list
	}
	for from := 0; from < len(rows); {
		to := from
		for to < len(rows) && rows[to].sets == rows[from].sets {
			to++
		}
		list = append(list, fmt.Sprintf("%d cells, %d", to-from, (to-from)*rows[from].sets))
		from = to
	}
	return list
}

// compareViews: when the faults have ended, the owner has the rows of all versions up to the end of
// its image, and so has a follower.
func (w *world) compareViews(t *testing.T) {
	t.Helper()
	if w.views == nil {
		return
	}
	for _, life := range w.workers {
		w.learn(life)
	}
	w.bring(t, "the rows of all versions are there", func() bool {
		return !slices.ContainsFunc(w.views.newest.versions, func(n int) bool {
			ready, _ := w.workers[0].side.engine.Ready(uint32(n))
			return !ready
		})
	})
	for _, c := range w.views.watchers {
		for range 2 { // the first one may only begin
			w.watch(c, w.workers[0], w.workers[0])
		}
		if next, _ := w.workers[0].tails[c.scan.Partition].feed.Position(); c.from != next {
			w.wrong("after the faults have ended, a watch of partition %d is at offset %d, and the image is at %d",
				c.scan.Partition, c.from, next)
		}
	}
	for _, n := range w.views.newest.versions {
		for p := range int32(parts) {
			for _, table := range []query.Table{query.ByKey, query.ByIndex, query.Groups} {
				next, _ := w.workers[0].tails[p].feed.Position()
				scan := &query.Scan{Dataset: uint32(n), Partition: p, Table: table, Reach: next}
				if at := w.answer(w.workers[0], scan); at != next {
					w.wrong("after the faults have ended, dataset %d of partition %d answers at offset %d, and the image is at %d",
						n, p, at, next)
				}
				if w.links != nil {
					w.answer(w.workers[1], &query.Scan{Dataset: uint32(n), Partition: p, Table: table})
				}
			}
		}
	}
}

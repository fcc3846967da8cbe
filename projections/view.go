package projections

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/projections/definition"
	"github.com/millrace-io/millrace/projections/mapping"
)

// View is one version of a projection, with the numbers that its rows, indexes and aggregates have
// in the store.
type View struct {
	Projection *definition.Projection
	// Dataset is the number of its rows. Versions whose folds have the same hash have the same one.
	Dataset uint32
	// Indexes and Aggregates are the numbers of Projection.Indexes and Projection.Aggregates, in
	// their order. A number means the same fields and condition in all views of a dataset.
	Indexes, Aggregates []uint16
	// Live: it is promoted, or kept because it was.
	Live bool
	// Paused: nothing is folded into its rows for now. Skips are the records that are left out of
	// them. Both are the same in all views of a dataset.
	Paused bool
	Skips  []Skip
}

// Skip is a record that is left out of the rows of a dataset: an operator has decided so after it
// could not be folded. Where the rows have gone past it already, the entity is folded again from
// behind it.
type Skip struct {
	Partition int32
	Offset    int64
}

func (v *View) name() string {
	h := v.Projection.Head()
	return fmt.Sprintf("%s version %d", h.Name, h.Version)
}

// fold is a compiled projection: *mapping.Fold.
type fold interface {
	folder() folder
	KeyShape() mapping.Shape
	EntityKey(buf []byte, entity string) []byte
	IndexShape(index int) mapping.Shape
	GroupShape(aggregate int) mapping.Shape
	SumUnsigned(aggregate, i int) bool
}

// folder is a fold that one goroutine uses: *mapping.Folder.
type folder interface {
	Apply(r *mapping.Record, rows mapping.Rows) (mapping.Outcome, error)
	Visible(row []byte) (bool, error)
	IndexEntry(buf []byte, index int, row []byte) (tuple []byte, in bool, err error)
	Group(buf []byte, aggregate int, row []byte, sums []int64) (group []byte, _ []int64, err error)
}

// compiled is a fold of package mapping.
type compiled struct{ *mapping.Fold }

func (c compiled) folder() folder { return c.Folder() }

func compile(p *definition.Projection) (fold, error) {
	f, err := mapping.Compile(p)
	if err != nil {
		return nil, err
	}
	return compiled{f}, nil
}

// plan is what the views of one dataset ask for.
type plan struct {
	dataset uint32
	hash    string
	names   []string
	live    bool
	// fold is that of all views. err says why this version of millrace has none.
	fold       fold
	projection *definition.Projection
	err        error
	// sources are the indexes in Projection.Sources by entity type.
	sources map[string]int
	// parts are the indexes and the aggregates, by kind and number.
	parts []part
	// resume is for how long the log of changes is kept; 0: nothing is watched. watched are the
	// indexes of watched queries, as places in parts.
	resume  time.Duration
	watched []int
	// paused: nothing is folded. skips are the records that are left out.
	paused bool
	skips  map[Skip]bool
}

// part is an index or an aggregate of a dataset.
type part struct {
	kind   Kind // KindIndex or KindAggregate
	number uint16
	// fold is that of a view that has it, at its place there.
	fold fold
	at   int
	// include: the entries of the index have the rows.
	include bool
}

func compareParts(a, b part) int {
	return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.number, b.number))
}

// part returns an index or an aggregate, nil if no view has it.
func (p *plan) part(kind Kind, number uint16) *part {
	if i := p.index(kind, number); i >= 0 {
		return &p.parts[i]
	}
	return nil
}

// index returns where an index or an aggregate is in parts, -1 if no view has it.
func (p *plan) index(kind Kind, number uint16) int {
	i, found := slices.BinarySearchFunc(p.parts, part{kind: kind, number: number}, compareParts)
	if !found {
		return -1
	}
	return i
}

// String names the views.
func (p *plan) String() string { return strings.Join(p.names, ", ") }

// plans are all datasets of a set of views.
type plans struct {
	byDataset map[uint32]*plan
	folds     map[*definition.Projection]folded
}

type folded struct {
	fold fold
	err  error
}

// planned makes the plans of views. What is in the plans before is not compiled again.
func planned(views []*View, before *plans, compile func(*definition.Projection) (fold, error)) *plans {
	all := &plans{byDataset: map[uint32]*plan{}, folds: map[*definition.Projection]folded{}}
	for _, v := range views {
		f, known := before.folds[v.Projection]
		if !known {
			f.fold, f.err = compile(v.Projection)
		}
		all.folds[v.Projection] = f
		p := all.byDataset[v.Dataset]
		if p == nil {
			p = &plan{
				dataset: v.Dataset, hash: v.Projection.FoldHash(), fold: f.fold, projection: v.Projection,
				sources: map[string]int{}, paused: v.Paused, skips: map[Skip]bool{},
			}
			for _, s := range v.Skips {
				p.skips[s] = true
			}
			for i, s := range v.Projection.Sources {
				p.sources[s.Entity.Name] = i
			}
			all.byDataset[v.Dataset] = p
		}
		p.add(v, f)
	}
	for _, p := range all.byDataset {
		p.watch(views)
	}
	return all
}

// add adds what a view asks for.
func (p *plan) add(v *View, f folded) {
	p.names = append(p.names, v.name())
	p.live = p.live || v.Live
	switch hash := v.Projection.FoldHash(); {
	case f.err != nil:
		p.err = cmp.Or(p.err, fmt.Errorf("%s: %w", v.name(), f.err))
		return
	case hash != p.hash:
		p.err = cmp.Or(p.err, fmt.Errorf("%s: its fold has the hash %s, and dataset %d is of %s",
			v.name(), hash, p.dataset, p.hash))
		return
	case len(v.Indexes) != len(v.Projection.Indexes) || len(v.Aggregates) != len(v.Projection.Aggregates):
		p.err = cmp.Or(p.err, fmt.Errorf("%s: not every index and aggregate has a number", v.name()))
		return
	}
	for i, number := range v.Indexes {
		p.insert(part{kind: KindIndex, number: number, fold: f.fold, at: i, include: v.Projection.Indexes[i].IncludeAll})
	}
	for i, number := range v.Aggregates {
		p.insert(part{kind: KindAggregate, number: number, fold: f.fold, at: i})
	}
}

// watch finds what the log of changes is about, when all views are added.
func (p *plan) watch(views []*View) {
	for _, v := range views {
		if v.Dataset != p.dataset || p.err != nil {
			continue
		}
		for _, q := range v.Projection.Queries {
			if q.Watch == 0 {
				continue
			}
			p.resume = max(p.resume, q.Watch)
			for _, pl := range q.Plans {
				if pl.Index == nil {
					continue
				}
				number := v.Indexes[slices.Index(v.Projection.Indexes, pl.Index)]
				if at := p.index(KindIndex, number); !slices.Contains(p.watched, at) {
					p.watched = append(p.watched, at)
				}
			}
		}
	}
	slices.Sort(p.watched)
}

func (p *plan) insert(n part) {
	if i, found := slices.BinarySearchFunc(p.parts, n, compareParts); !found {
		p.parts = slices.Insert(p.parts, i, n)
	}
}

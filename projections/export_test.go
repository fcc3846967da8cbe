package projections

import (
	"slices"
	"time"

	"github.com/millrace-io/millrace/internal/fields"
	"github.com/millrace-io/millrace/projections/definition"
	"github.com/millrace-io/millrace/projections/mapping"
)

// Fronts returns how many consumers a partition has. Nothing may be folded meanwhile.
func (e *Engine) Fronts(number int32) int { return len(e.partition(number).fronts) }

// ParkedOf reads the row of a parked entity.
func ParkedOf(value []byte) (Parked, error) { return parseParked(value) }

// Stored is what a position row has.
type Stored struct {
	Next                            int64
	Built                           bool
	Rows, Parked, Skipped, Unmapped uint64
	Pending                         int
	// Parts are the numbers of indexes and aggregates, in order.
	Parts []uint16
}

// StoredOf reads a position row.
func StoredOf(value []byte) (Stored, error) {
	p, err := parsePosition(value)
	s := Stored{p.meta.Next, p.built, p.rows, p.parked, p.skipped, p.unmapped, p.pending(), nil}
	for i := range p.parts {
		s.Parts = append(s.Parts, p.parts[i].number)
	}
	slices.Sort(s.Parts)
	return s, err
}

// Spoiled returns a position row with another version, another fold, or another version of the fold
// of the journal.
func Spoiled(value []byte, how string) ([]byte, error) {
	p, err := parsePosition(value)
	switch how {
	case "version":
		p.version++
	case "hash":
		p.hash = "of another fold"
	case "fold version":
		p.meta.FoldVersion--
	}
	return p.append(nil), err
}

// PanicAt makes a folder panic at the records of an entity.
func (o *Options) PanicAt(entity string) {
	o.compile = func(p *definition.Projection) (fold, error) {
		f, err := compile(p)
		return panickingFold{f, entity}, err
	}
}

type panickingFold struct {
	fold

	entity string
}

func (f panickingFold) folder() folder { return panickingFolder{f.fold.folder(), f.entity} }

type panickingFolder struct {
	folder

	entity string
}

func (f panickingFolder) Apply(r *mapping.Record, rows mapping.Rows) (mapping.Outcome, error) {
	if r.Entity == f.entity {
		panic("of the test")
	}
	return f.folder.Apply(r, rows)
}

// RetryMax is the longest pause after an error.
const RetryMax = 2 * 30 * time.Second

// WalkRows is how many rows one piece of a walk has.
const WalkRows = walkRows

// Tell returns what tells followers of ranges of a change of a row that is new in an index.
func Tell(all []Range, index uint16, tuple, key []byte) func() {
	fs := followers{}
	for _, of := range all {
		fs.add(&Follower{of: of, woken: make(chan struct{}, 1), hit: -1})
	}
	value := fields.AppendBytes(nil, changeKey, key)
	value, at := fields.Begin(value, changeIndex)
	value = fields.AppendUint(value, changeNumber, uint64(index))
	c := &changeEntry{value: fields.End(fields.AppendBytes(value, changeAfter, tuple), at)}
	return func() {
		if err := fs.tell(c); err != nil {
			panic(err)
		}
	}
}

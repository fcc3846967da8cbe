package projections

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/millrace-io/millrace/internal/fields"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/materializer"
)

// position is the row that says what the others of a dataset are: of which fold, up to where, and
// which indexes and aggregates are complete. It is in each batch that changes them.
type position struct {
	// version is KeyVersion, hash that of the fold.
	version uint64
	hash    string
	// meta is the position of the consumer after the last record. Owner has the nonce of the last
	// claim before it.
	meta materializer.Meta
	// built: it has once reached the end of the image, so that its rows may be returned.
	built bool
	parts []progress
	// rows is the number of rows, parked that of parked entities. skipped and unmapped are records.
	rows, parked, skipped, unmapped uint64
	// failed is the last record that could not be folded. stopped: nothing from it on is folded.
	failed  failure
	stopped bool
	history
}

// progress is how far an index or an aggregate is made.
type progress struct {
	kind   Kind
	number uint16
	// complete, or up to and including the row with the key cursor.
	complete bool
	cursor   []byte
}

func (p *progress) compare(kind Kind, number uint16) int {
	return cmp.Or(cmp.Compare(p.kind, kind), cmp.Compare(p.number, number))
}

// counts reports whether a change of the row with this key changes an aggregate: the others are
// counted when the walk comes to them.
func (p *progress) counts(key []byte) bool {
	return p.complete || string(key) <= string(p.cursor) || mutation.On(mutation.Cursor)
}

// failure is a record that could not be folded.
type failure struct {
	Offset int64
	Entity string // type/id
	Text   string
}

// String says what happened where.
func (f *failure) String() string {
	return fmt.Sprintf("offset %d, %s: %s", f.Offset, f.Entity, f.Text)
}

// part returns the progress of an index or an aggregate, nil if it is not there.
func (p *position) part(kind Kind, number uint16) *progress {
	for i := range p.parts {
		if p.parts[i].compare(kind, number) == 0 {
			return &p.parts[i]
		}
	}
	return nil
}

// has reports whether an index or an aggregate is complete.
func (p *position) has(kind Kind, number uint16) bool {
	part := p.part(kind, number)
	return part != nil && part.complete
}

// pending is how many indexes and aggregates are not complete.
func (p *position) pending() (n int) {
	for i := range p.parts {
		if !p.parts[i].complete {
			n++
		}
	}
	return n
}

// copy returns a copy that shares nothing that is changed.
func (p *position) copy() position {
	c := *p
	c.parts = slices.Clone(p.parts)
	return c
}

// The numbers of the fields: docs/views-keyspace.md. They are durable.
const (
	positionVersion protowire.Number = iota + 1
	positionHash
	positionMeta
	positionBuilt
	positionPart
	positionRows
	positionParked
	positionSkipped
	positionUnmapped
	positionFailed
	positionStopped
	positionSince
	positionMark
)

const (
	markOffset protowire.Number = iota + 1
	markTime
)

const (
	partKind protowire.Number = iota + 1
	partNumber
	partComplete
	partCursor
)

const (
	failureOffset protowire.Number = iota + 1
	failureEntity
	failureText
	failureBehind
)

var (
	errPosition = errors.New("position row is damaged")
	errParked   = errors.New("row of a parked entity is damaged")
)

func (p *position) append(buf []byte) []byte {
	buf = fields.AppendUint(buf, positionVersion, p.version)
	buf = fields.AppendString(buf, positionHash, p.hash)
	buf = fields.AppendBytes(buf, positionMeta, p.meta.Append(nil))
	buf = fields.AppendBool(buf, positionBuilt, p.built)
	for i := range p.parts {
		var at int
		buf, at = fields.Begin(buf, positionPart)
		buf = fields.AppendUint(buf, partKind, uint64(p.parts[i].kind))
		buf = fields.AppendUint(buf, partNumber, uint64(p.parts[i].number))
		buf = fields.AppendBool(buf, partComplete, p.parts[i].complete)
		buf = fields.AppendBytes(buf, partCursor, p.parts[i].cursor)
		buf = fields.End(buf, at)
	}
	buf = fields.AppendUint(buf, positionRows, p.rows)
	buf = fields.AppendUint(buf, positionParked, p.parked)
	buf = fields.AppendUint(buf, positionSkipped, p.skipped)
	buf = fields.AppendUint(buf, positionUnmapped, p.unmapped)
	if p.failed != (failure{}) {
		var at int
		buf, at = fields.Begin(buf, positionFailed)
		buf = fields.End(p.failed.append(buf), at)
	}
	buf = fields.AppendBool(buf, positionStopped, p.stopped)
	buf = fields.AppendUint(buf, positionSince, uint64(p.since)) //nolint:gosec // not negative
	for _, m := range p.marks {
		var at int
		buf, at = fields.Begin(buf, positionMark)
		buf = fields.AppendUint(buf, markOffset, uint64(m.offset)) //nolint:gosec // not negative
		buf = fields.AppendUint(buf, markTime, uint64(m.time))     //nolint:gosec // as it is
		buf = fields.End(buf, at)
	}
	return buf
}

func parsePosition(b []byte) (p position, err error) {
	r := fields.Of(b, errPosition)
	for r.Next() && err == nil {
		switch r.Number {
		case positionVersion:
			p.version = r.N
		case positionHash:
			p.hash = string(r.B)
		case positionMeta:
			p.meta, err = materializer.ParseMeta(r.B)
		case positionBuilt:
			p.built = r.N == 1
		case positionPart:
			var part progress
			part, err = parseProgress(r.B)
			p.parts = append(p.parts, part)
		case positionRows:
			p.rows = r.N
		case positionParked:
			p.parked = r.N
		case positionSkipped:
			p.skipped = r.N
		case positionUnmapped:
			p.unmapped = r.N
		case positionFailed:
			p.failed, _, err = parseFailure(r.B, errPosition)
		case positionStopped:
			p.stopped = r.N == 1
		case positionSince:
			p.since = int64(r.N) //nolint:gosec // as written
		case positionMark:
			var m mark
			m, err = parseMark(r.B)
			p.marks = append(p.marks, m)
		}
	}
	return p, cmp.Or(r.Err, err)
}

func parseMark(b []byte) (m mark, err error) {
	r := fields.Of(b, errPosition)
	for r.Next() {
		switch r.Number {
		case markOffset:
			m.offset = int64(r.N) //nolint:gosec // as written
		case markTime:
			m.time = int64(r.N) //nolint:gosec // as written
		}
	}
	return m, r.Err
}

func parseProgress(b []byte) (p progress, err error) {
	r := fields.Of(b, errPosition)
	for r.Next() {
		switch r.Number {
		case partKind:
			p.kind = Kind(r.N) //nolint:gosec // as written
		case partNumber:
			p.number = uint16(r.N) //nolint:gosec // as written
		case partComplete:
			p.complete = r.N == 1
		case partCursor:
			p.cursor = slices.Clone(r.B)
		}
	}
	return p, r.Err
}

func (f *failure) append(buf []byte) []byte {
	buf = fields.AppendUint(buf, failureOffset, uint64(f.Offset)) //nolint:gosec // not negative
	buf = fields.AppendString(buf, failureEntity, f.Entity)
	return fields.AppendString(buf, failureText, f.Text)
}

// parseFailure also returns how many records of a parked entity came later.
func parseFailure(b []byte, malformed error) (f failure, behind uint64, err error) {
	r := fields.Of(b, malformed)
	for r.Next() {
		switch r.Number {
		case failureOffset:
			f.Offset = int64(r.N) //nolint:gosec // as written
		case failureEntity:
			f.Entity = string(r.B)
		case failureText:
			f.Text = string(r.B)
		case failureBehind:
			behind = r.N
		}
	}
	return f, behind, r.Err
}

// Parked is an entity that a dataset does not fold any more, because a record of it could not be
// folded. Its rows stay as they were.
type Parked struct {
	// Offset is that of the record, Entity the entity (type/id), and Text says why.
	Offset int64
	Entity string
	Text   string
	// Behind is how many records of the entity came later.
	Behind uint64
	// Stopped: the record has stopped the dataset, and not parked the entity.
	Stopped bool
}

func (p *Parked) append(buf []byte) []byte {
	f := failure{Offset: p.Offset, Entity: p.Entity, Text: p.Text}
	return fields.AppendUint(f.append(buf), failureBehind, p.Behind)
}

func parseParked(b []byte) (Parked, error) {
	f, behind, err := parseFailure(b, errParked)
	return Parked{Offset: f.Offset, Entity: f.Entity, Text: f.Text, Behind: behind}, err
}

package mapping

import (
	"errors"
	"fmt"
	"strconv"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/millrace-io/millrace/projections/definition"
)

// operation is where the value of a field comes from. All but opProgram and opJoin are wire copies:
// they decode no message and allocate nothing.
type operation uint8

const (
	// opKeep leaves the field as it is, opClear takes it out.
	opKeep operation = iota
	opClear
	opLiteral
	opEntityID
	opEntityType
	opTime
	opSequence
	opPrincipal
	opCommandID
	opCorrelationID
	opPath    // a single value of the event
	opMessage // a message, list or map of the event
	opProgram
	opJoin
)

// setter sets a field of the row.
type setter struct {
	name string
	to   *field
	op   operation
	// class is that of the value.
	class class
	// literal is the whole field.
	literal []byte
	at      place
	// steps lead to a message, list or map: indexes of fields from the message top on.
	top   *message
	steps []int
	run   *program
	parts []part
}

// part is a piece of a text.
type part struct {
	literal string
	run     *program
}

// metaOperations are the variables with one value in a record.
var metaOperations = map[string]struct { //nolint:gochecknoglobals // a table
	op    operation
	class class
}{
	"entity.id": {opEntityID, stringClass}, "entity.type": {opEntityType, stringClass},
	"meta.time": {opTime, timestampClass}, "meta.sequence": {opSequence, intClass},
	"meta.principal": {opPrincipal, stringClass}, "meta.command_id": {opCommandID, stringClass},
	"meta.correlation_id": {opCorrelationID, stringClass},
}

// setter compiles what a field is set to.
func (s *scope) setter(ms messages, v *definition.Value) (*setter, error) {
	t := &setter{name: string(v.Field.Name()), to: ms.field(v.Field), op: opLiteral}
	var err error
	switch {
	case v.Clear:
		t.op = opClear
	case v.Expression != nil:
		return t, s.expression(ms, t, v)
	case v.Parts != nil:
		t.op = opJoin
		for _, p := range v.Parts {
			compiled := part{literal: p.Literal}
			if p.Expression != nil {
				if compiled.run, err = s.program(p.Expression); err != nil {
					return nil, err
				}
			}
			t.parts = append(t.parts, compiled)
		}
	default:
		c, value := literalOf(v)
		t.literal, err = t.to.appendScalar(nil, c, &value)
	}
	return t, err
}

// literalOf returns the value of a literal.
func literalOf(v *definition.Value) (class, scalar) {
	c := fieldClass(v.Field)
	switch c {
	case timestampClass, durationClass:
		return c, scalar{bits: uint64(v.Seconds), nanos: v.Nanos} //nolint:gosec // bit by bit
	case stringClass:
		return c, scalar{text: []byte(v.Literal.String())}
	case bytesClass:
		return c, scalar{text: v.Literal.Bytes()}
	default:
		var number Value
		switch x := v.Literal.Interface().(type) {
		case bool:
			number = OfBool(x)
		case int32:
			number = OfInt(int64(x))
		case int64:
			number = OfInt(x)
		case uint32:
			number = OfUint(uint64(x))
		case uint64:
			number = OfUint(x)
		case float32:
			number = OfFloat(float64(x))
		case float64:
			number = OfFloat(x)
		case protoreflect.EnumNumber:
			number = OfInt(int64(x))
		}
		return c, scalar{bits: number.bits}
	}
}

// expression compiles an expression, to a wire copy if it is a path or variable of the same class.
func (s *scope) expression(ms messages, t *setter, v *definition.Value) error {
	to := fieldClass(v.Field)
	if m, found := metaOperations[v.Expression.Canonical]; found && m.class == to {
		t.op, t.class = m.op, m.class
		return nil
	}
	if s.copies(ms, t, v, to) {
		return nil
	}
	t.op = opProgram
	var err error
	t.run, err = s.program(v.Expression)
	return err
}

// copies says whether a value is a path of the event that can be copied, and makes the copy.
func (s *scope) copies(ms messages, t *setter, v *definition.Value, to class) bool {
	root, names := operandPath(v.Expression.AST.NativeRep().Expr())
	if root != eventName && root != stateName || s.event == nil || len(names) == 0 || hasTest(v.Expression) {
		return false
	}
	if to != noClass {
		at, ok := s.event.path(names)
		if !ok || at.class != to {
			return false
		}
		t.op, t.at, t.class = opPath, at, to
		return true
	}
	md := s.message
	t.top = ms.of(md)
	for i, name := range names {
		fd := md.Fields().ByName(protoreflect.Name(name))
		isLast := i == len(names)-1
		if fd == nil || !isLast && (fd.Message() == nil || fd.IsList() || fd.IsMap() || isGoogles(fd.Message())) {
			return false
		}
		t.steps = append(t.steps, ms.of(md).index(fd.Number()))
		if isLast {
			t.op = opMessage
			return sameForm(fd, v.Field)
		}
		md = fd.Message()
	}
	return false
}

// hasTest says whether the path is the argument of has().
func hasTest(e *definition.Expression) bool {
	for x := e.AST.NativeRep().Expr(); x.Kind() == ast.SelectKind; x = x.AsSelect().Operand() {
		if x.AsSelect().IsTestOnly() {
			return true
		}
	}
	return false
}

// sameForm says whether two fields hold the same values in the same form, number and packing aside.
func sameForm(a, b protoreflect.FieldDescriptor) bool {
	switch {
	case a.IsMap() != b.IsMap() || a.IsList() != b.IsList() || a.Kind() != b.Kind():
		return false
	case a.IsMap():
		return a.MapKey().Kind() == b.MapKey().Kind() && sameForm(a.MapValue(), b.MapValue())
	case a.Message() != nil:
		return a.Message().FullName() == b.Message().FullName()
	default:
		return a.Kind() != protoreflect.GroupKind
	}
}

// change says what is to be done with a field of the row.
type change uint8

const (
	keep change = iota
	erase
	write
)

// set appends the field to a buffer and says what is to be done.
func (d *Folder) set(out []byte, t *setter) ([]byte, change, error) {
	var v scalar
	var err error
	start := len(out)
	switch t.op {
	case opKeep:
		return out, keep, nil
	case opClear:
		return out, erase, nil
	case opLiteral:
		out = append(out, t.literal...)
	case opEntityID:
		v.text = d.entity
	case opEntityType:
		return d.setText(out, t, d.source.entity)
	case opPrincipal:
		return d.setText(out, t, d.record.Meta.Principal)
	case opCommandID:
		return d.setText(out, t, d.record.Meta.CommandID)
	case opCorrelationID:
		return d.setText(out, t, d.record.Meta.CorrelationID)
	case opTime:
		v.bits, v.nanos = uint64(d.record.Meta.Seconds), d.record.Meta.Nanos //nolint:gosec // bit by bit
	case opSequence:
		v.bits = uint64(d.record.Meta.Sequence) //nolint:gosec // bit by bit
	case opPath:
		var isThere bool
		if v, isThere = t.at.value(d.eventCells); !isThere {
			return out, erase, nil
		}
	case opMessage:
		return d.setMessage(out, t)
	case opProgram:
		value, evalErr := d.eval(t.run)
		if evalErr != nil {
			return out, keep, evalErr
		}
		if isNull(value) {
			return out, erase, nil
		}
		out, err = d.appendValue(out, t.to, value)
	case opJoin:
		d.joined = d.joined[:0]
		if err := d.join(t.parts); err != nil {
			return out, keep, err
		}
		v.text = d.joined
		out, err = t.to.appendScalar(out, stringClass, &v)
	}
	if t.class != noClass {
		out, err = t.to.appendScalar(out, t.class, &v)
	}
	if len(out) == start || err != nil {
		return out, erase, err // a default of a field without presence
	}
	return out, write, nil
}

// setText appends a text that is a string.
func (d *Folder) setText(out []byte, t *setter, text string) ([]byte, change, error) {
	d.joined = append(d.joined[:0], text...)
	start := len(out)
	out, err := t.to.appendText(out, d.joined)
	if len(out) == start {
		return out, erase, err
	}
	return out, write, err
}

// setMessage copies a message, list or map.
func (d *Folder) setMessage(out []byte, t *setter) ([]byte, change, error) {
	w := &d.rewriter
	w.entries, w.joined, w.pairs = w.entries[:0], w.joined[:0], w.pairs[:0]
	m, b := t.top, d.record.Value
	for n, step := range t.steps {
		w.entries = w.entries[:0]
		if err := w.collect(m, b); err != nil {
			return out, keep, err
		}
		i := 0
		for i < len(w.entries) && int(w.entries[i].field) != step {
			i++
		}
		j := i
		for ; j < len(w.entries) && int(w.entries[j].field) == step; j++ {
		}
		if i == j {
			return out, erase, nil
		}
		f := m.fields[step]
		if n < len(t.steps)-1 {
			m, b = f.message, w.merged(b, i, j)
			continue
		}
		start := len(out)
		out, err := w.emit(out, t.to, b, i, j, 0)
		if len(out) == start {
			return out, erase, err
		}
		return out, write, err
	}
	return out, keep, nil
}

var errNotJoined = errors.New("only texts, whole numbers and true or false can stand in a text")

// join writes the parts of a text behind each other.
func (d *Folder) join(parts []part) error {
	for _, p := range parts {
		if p.run == nil {
			d.joined = append(d.joined, p.literal...)
			continue
		}
		v, err := d.eval(p.run)
		if err != nil {
			return err
		}
		switch v := v.(type) {
		case types.String:
			d.joined = append(d.joined, v...)
		case types.Int:
			d.joined = strconv.AppendInt(d.joined, int64(v), 10)
		case types.Uint:
			d.joined = strconv.AppendUint(d.joined, uint64(v), 10)
		case types.Bool:
			d.joined = strconv.AppendBool(d.joined, bool(v))
		case types.Double: // a number of JSON
			d.joined = strconv.AppendFloat(d.joined, float64(v), 'f', -1, 64)
		default:
			return fmt.Errorf("%w: this is %s", errNotJoined, v.Type().TypeName())
		}
	}
	return nil
}

func isNull(v ref.Val) bool { return v == types.NullValue }

// piece is a field of the row as it will be, and where its bytes are.
type piece struct {
	number   protowire.Number
	change   change
	from, to int
}

// evaluate makes pieces of what setters set.
func (d *Folder) evaluate(setters []*setter) *FoldError {
	d.pieces, d.values = d.pieces[:0], d.values[:0]
	for _, t := range setters {
		p := piece{number: t.to.number, from: len(d.values)}
		var err error
		if d.values, p.change, err = d.set(d.values, t); err != nil {
			return d.failed(t.name, err)
		}
		p.to = len(d.values)
		d.pieces = append(d.pieces, p)
	}
	if d.clause.hasOneofs {
		d.settle(setters)
	}
	return nil
}

// settle leaves one member of each oneof: of those that are set the last one by name.
func (d *Folder) settle(setters []*setter) {
	for i, t := range setters {
		if t.to.oneof < 0 || d.pieces[i].change != write {
			continue
		}
		for j, other := range setters {
			if other.to.oneof != t.to.oneof || i == j {
				continue
			}
			if d.pieces[j].change != write || other.name < t.name {
				d.pieces[j].change = erase
			}
		}
	}
}

// rewrite appends the row with the pieces in place of its own fields.
func (d *Folder) rewrite(out, row []byte) ([]byte, error) {
	at := 0
	for _, p := range d.pieces {
		if p.change == keep {
			continue
		}
		start := at
		for at < len(row) {
			number, _, n := protowire.ConsumeField(row[at:])
			if n < 0 {
				return out, errDamagedRow
			}
			if number >= p.number {
				break
			}
			at += n
		}
		out = append(out, row[start:at]...)
		for at < len(row) {
			number, _, n := protowire.ConsumeField(row[at:])
			if n < 0 {
				return out, errDamagedRow
			}
			if number != p.number {
				break
			}
			at += n
		}
		if p.change == write {
			out = append(out, d.values[p.from:p.to]...)
		}
	}
	return append(out, row[at:]...), nil
}

var errDamagedRow = errors.New("a stored row is damaged: delete the directory of the views, and they are built again")

package query

import (
	"context"
	"fmt"
	"math/bits"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/projections/definition"
	"github.com/millrace-io/millrace/projections/mapping"
)

// plus adds two sums; ok is false if 128 bits are too few.
func (s Sum) plus(t Sum) (_ Sum, ok bool) {
	low, carry := bits.Add64(s.Low, t.Low, 0)
	high := s.High + t.High + int64(carry) //nolint:gosec // 0 or 1
	// It has overflowed if both have the same sign, and the sum has not.
	ok = (s.High < 0) != (t.High < 0) || (high < 0) == (s.High < 0)
	return Sum{high, low}, ok
}

// signed returns the sum as an int64, bit by bit; ok is false if it has no room.
func (s Sum) signed() (n int64, ok bool) {
	n = int64(s.Low) //nolint:gosec // bit by bit
	return n, s.High == n>>63
}

// group is a group over all partitions.
type group struct {
	tuple []byte
	count int64
	sums  []Sum
}

// planGroups finds the span of an aggregate whose first fields have these values.
func (c *call) planGroups(a *definition.Aggregate, values []mapping.Value) (*table, error) {
	p := c.method.p
	tuples, err := groupsOf(a)
	if err != nil {
		return nil, err
	}
	c.plan = plan{index: "aggregate " + a.Name, table: Groups}
	for i, own := range p.definition.Aggregates {
		if own == a {
			c.plan.number = p.view.Aggregates[i]
		}
	}
	r, ok := tuples.shape.Equal(nil, values...)
	c.plan.span = span{lower: r.Lower, upper: r.Upper, none: !ok}
	return tuples, nil
}

// addGroups adds the groups of all partitions, which come in the order of their tuples.
func (c *call) addGroups(ctx context.Context, a *definition.Aggregate, each func(*group) error) error {
	var now *group
	give := func() error {
		if now == nil || now.count == 0 { // a group without rows is not one
			return nil
		}
		return each(now)
	}
	_, err := c.scan(ctx, c.service.o.MaxExamined, func(e *Entry) (bool, error) {
		if c.examined > int64(c.service.o.MaxExamined) {
			return false, refused(codes.ResourceExhausted,
				"%s: the aggregate %s has more than %d groups: group by fewer fields", c.method.name, a.Name,
				c.service.o.MaxExamined)
		}
		if now != nil && string(now.tuple) == string(e.Tuple) {
			return true, now.add(c.method.name, a, e)
		}
		if err := give(); err != nil {
			return false, err
		}
		now = &group{tuple: append([]byte(nil), e.Tuple...), count: e.Count, sums: append([]Sum(nil), e.Sums...)}
		return true, nil
	})
	if err != nil {
		return err
	}
	return give()
}

func (g *group) add(method string, a *definition.Aggregate, e *Entry) error {
	g.count += e.Count
	for i := range g.sums {
		sum, ok := g.sums[i].plus(e.Sums[i])
		if !ok {
			return sumOverflow(method, a.Sums[i].Name)
		}
		g.sums[i] = sum
	}
	return nil
}

func sumOverflow(method, name string) error {
	return refused(codes.OutOfRange, "%s: the sum %s does not fit into 64 bits: sum a smaller unit, or group by more fields",
		method, name)
}

// groups answers the groups of an aggregate.
func (c *call) groups(ctx context.Context) (*entities.Reply, error) {
	a := c.method.query.Aggregate
	tuples, err := c.planGroups(a, nil)
	if err != nil {
		return nil, err
	}
	var buf []byte
	err = c.addGroups(ctx, a, func(g *group) error {
		encoded, err := c.encodeGroup(a, tuples, g)
		if err != nil {
			return err
		}
		if buf = appendMessage(buf, rowsField, encoded); len(buf) > c.service.o.MaxReply {
			return refused(codes.ResourceExhausted, "%s: the groups of aggregate %s have more than %d bytes: group by fewer fields",
				c.method.name, a.Name, c.service.o.MaxReply)
		}
		c.returned++
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c.finish(buf)
}

// encodeGroup writes a group: its fields from 1 in their order, then count and sums.
func (c *call) encodeGroup(a *definition.Aggregate, tuples *table, g *group) ([]byte, error) {
	values, rest, err := tuples.shape.Decode(nil, g.tuple)
	if err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("a group of aggregate %s is damaged: %w", a.Name, err)
	}
	var buf []byte
	for i, f := range a.GroupBy {
		if buf, err = appendField(buf, protowire.Number(i+1), f, values[i]); err != nil {
			return nil, err
		}
	}
	if a.Count != "" {
		buf = appendWhole(buf, countField, uint64(g.count)) //nolint:gosec // bit by bit
	}
	for i, sum := range a.Sums {
		number := firstSumField + protowire.Number(i)
		if isUnsigned(sum.Field) {
			if g.sums[i].High != 0 {
				return nil, sumOverflow(c.method.name, sum.Name)
			}
			buf = appendWhole(buf, number, g.sums[i].Low)
			continue
		}
		n, ok := g.sums[i].signed()
		if !ok {
			return nil, sumOverflow(c.method.name, sum.Name)
		}
		buf = appendWhole(buf, number, uint64(n)) //nolint:gosec // bit by bit
	}
	return buf, nil
}

func isUnsigned(f protoreflect.FieldDescriptor) bool {
	switch f.Kind() {
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Fixed32Kind, protoreflect.Fixed64Kind:
		return true
	default:
		return false
	}
}

// appendField writes a value as a field of the same type as another one, under a number.
func appendField(buf []byte, number protowire.Number, f protoreflect.FieldDescriptor, v mapping.Value) ([]byte, error) {
	if !v.IsPresent() {
		return buf, nil
	}
	holder := dynamicpb.NewMessage(f.ContainingMessage())
	holder.Set(f, valueFor(holder, f, v))
	encoded, err := proto.Marshal(holder)
	if err != nil || len(encoded) == 0 {
		return buf, err
	}
	_, kind, n := protowire.ConsumeTag(encoded)
	if n < 0 {
		return buf, protowire.ParseError(n)
	}
	return append(protowire.AppendTag(buf, number, kind), encoded[n:]...), nil
}

// valueFor returns a value of a tuple as a value of a field.
func valueFor(m *dynamicpb.Message, f protoreflect.FieldDescriptor, v mapping.Value) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(v.Bool())
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(v.Int())) //nolint:gosec // it was one
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(int32(v.Int())) //nolint:gosec // it was one
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(v.Int())
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(uint32(v.Uint())) //nolint:gosec // it was one
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(v.Uint())
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(float32(v.Float()))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(v.Float())
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(strings.ToValidUTF8(string(v.Text()), "")) // it may be cut within a character
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(v.Text())
	default:
		seconds, nanos := v.Time()
		part := m.NewField(f)
		fields := part.Message().Descriptor().Fields()
		part.Message().Set(fields.ByNumber(1), protoreflect.ValueOfInt64(seconds))
		part.Message().Set(fields.ByNumber(2), protoreflect.ValueOfInt32(nanos))
		return part
	}
}

// count answers how many rows a list has.
func (c *call) count(ctx context.Context) (*entities.Reply, error) {
	n, err := c.counted(ctx)
	if err != nil {
		return nil, err
	}
	return c.finish(appendWhole(nil, rowsField, uint64(n))) //nolint:gosec // not negative
}

func (c *call) counted(ctx context.Context) (int64, error) {
	if a := c.method.query.CountFrom; a != nil && c.request.filter == "" {
		return c.countFrom(ctx, a)
	}
	if err := c.planList(); err != nil {
		return 0, err
	}
	limit := int64(c.service.o.MaxExamined)
	_, err := c.scan(ctx, c.service.o.MaxExamined+1, func(e *Entry) (bool, error) {
		if c.examined > limit {
			return false, refused(codes.ResourceExhausted,
				"%s: more than %d entries would be counted: add an aggregate with a count that is grouped by the fields of the condition",
				c.method.name, limit)
		}
		wanted, err := c.plan.wanted(e.Row)
		if wanted {
			c.returned++
		}
		return true, err
	})
	return c.returned, err
}

// countFrom reads the count of the group that the query's equalities name.
func (c *call) countFrom(ctx context.Context, a *definition.Aggregate) (int64, error) {
	known, err := c.comparisons(nil)
	if err != nil {
		return 0, err
	}
	var values []mapping.Value
	for _, f := range a.GroupBy {
		for _, one := range known {
			if one.field != f || one.operator != "==" {
				continue
			}
			if one.never {
				return 0, nil
			}
			values = append(values, one.value)
			break
		}
	}
	if _, err := c.planGroups(a, values); err != nil {
		return 0, err
	}
	var n int64
	err = c.addGroups(ctx, a, func(g *group) error {
		n += g.count
		return nil
	})
	c.returned = n
	return n, err
}

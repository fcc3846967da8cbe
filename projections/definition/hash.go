package definition

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Evaluator is the version of what evaluates folds: the expression library, the rules of presence,
// enums and UTF-8, and the limits that can park an entity. Another one means other rows.
const Evaluator = 1

// Limits that can park an entity. They are part of the fold hash and no settings.
const (
	MaxRowBytes = 256 << 10
	MaxKeyBytes = 1 << 10
)

// FoldHash names the rows that a projection has: versions with the same hash share them. It covers
// row, key, visible, from, onError, strict, the library, the evaluator and its limits, and of the
// messages in use names, numbers and kinds. Notation, order of sources and comments do not count.
func (p *Projection) FoldHash() string {
	sum := sha256.Sum256([]byte(strings.Join(p.foldLines(), "\n")))
	return hex.EncodeToString(sum[:])
}

// foldLines is what the fold hash covers, in a fixed order.
func (p *Projection) foldLines() []string {
	lines := []string{
		fmt.Sprintf("evaluator %d library %s cost %d rows %d row %d key %d", Evaluator, Library, MaxCost, maxRowsPerEntity,
			MaxRowBytes, MaxKeyBytes),
		"container " + p.pkg,
		fmt.Sprintf("onError %s strict %t", p.OnError, p.Strict),
		"row " + string(p.Row.FullName()),
	}
	for _, f := range p.Key {
		lines = append(lines, "key "+string(f.Name()))
	}
	lines = append(lines, "visible "+p.Visible.String())
	used := map[string]protoreflect.MessageDescriptor{string(p.Row.FullName()): p.Row}
	for _, src := range p.Sources {
		lines = append(lines, "from "+src.Entity.Name, "handler "+src.Handler)
		for _, name := range src.Ignored {
			lines = append(lines, "ignore "+name)
		}
		for _, c := range src.Events {
			lines = append(lines, "event "+c.String())
		}
		for _, c := range []*Clause{src.Snapshot, src.State, src.Deleted} {
			if c != nil {
				lines = append(lines, "state "+c.String())
			}
		}
		for _, c := range src.clauses() {
			if c.Message != nil {
				used[string(c.Message.FullName())] = c.Message
			}
		}
	}
	return append(lines, messageLines(used)...)
}

// String is the canonical form of a clause.
func (c *Clause) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", c.Type, c.Action)
	if c.All {
		b.WriteString(" all")
	}
	if c.ForEach != nil {
		fmt.Fprintf(&b, " forEach %s in %s at most %d", c.ForEach.As, c.ForEach.In.Canonical, c.ForEach.MaxItems)
	}
	if c.Gone != nil {
		b.WriteString(" deleted " + c.Gone.Canonical)
	}
	for _, v := range c.Fields {
		fmt.Fprintf(&b, " %s=%s", v.Field.Name(), v)
	}
	return b.String()
}

// messageLines describes messages and all that they hold: names, numbers and kinds.
func messageLines(used map[string]protoreflect.MessageDescriptor) []string {
	var lines []string
	seen := map[protoreflect.FullName]bool{}
	var visit func(m protoreflect.MessageDescriptor)
	visit = func(m protoreflect.MessageDescriptor) {
		if seen[m.FullName()] || m.FullName().Parent() == "google.protobuf" {
			return
		}
		seen[m.FullName()] = true
		fields := make([]protoreflect.FieldDescriptor, m.Fields().Len())
		for i := range fields {
			fields[i] = m.Fields().Get(i)
		}
		slices.SortFunc(fields, func(a, b protoreflect.FieldDescriptor) int { return cmp.Compare(a.Number(), b.Number()) })
		for _, f := range fields {
			oneof := ""
			if o := f.ContainingOneof(); o != nil && !o.IsSynthetic() {
				oneof = string(o.Name())
			}
			lines = append(lines, fmt.Sprintf("field %s.%s %d %s presence %t packed %t utf8 %t oneof %s", m.FullName(), f.Name(),
				f.Number(), typeName(f), f.HasPresence(), f.IsPacked(), f.Kind() == protoreflect.StringKind, oneof))
			if e := f.Enum(); e != nil {
				lines = append(lines, enumLine(e))
			}
			if f.Message() != nil {
				visit(f.Message())
			}
		}
	}
	for _, name := range sortedNames(used) {
		visit(used[name])
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

func enumLine(e protoreflect.EnumDescriptor) string {
	values := make([]string, e.Values().Len())
	for i := range values {
		v := e.Values().Get(i)
		values[i] = fmt.Sprintf("%s=%d", v.Name(), v.Number())
	}
	slices.Sort(values)
	return fmt.Sprintf("enum %s closed %t %s", e.FullName(), e.IsClosed(), strings.Join(values, " "))
}

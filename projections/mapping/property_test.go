package mapping_test

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/projections/definition"
	"github.com/millrace-io/millrace/projections/mapping"
)

// copied is a field that the properties copy: its type, as a proto file writes it.
type copied struct{ name, typ string }

// copiedFields has a field of each type, plain, optional, and repeated.
func copiedFields() []copied {
	var list []copied
	add := func(name, typ string) { list = append(list, copied{name, typ}) }
	for _, typ := range []string{
		"bool", "int32", "sint32", "sfixed32", "int64", "sint64", "sfixed64", "uint32", "fixed32", "uint64", "fixed64",
		"float", "double", "string", "bytes", "Color",
	} {
		name := strings.ToLower(typ)
		add("f_"+name, typ)
		add("o_"+name, "optional "+typ)
		add("r_"+name, "repeated "+typ)
		if typ != "float" && typ != "double" && typ != "bytes" && typ != "Color" {
			add("m_"+name, "map<"+typ+", int32>")
		}
		add("v_"+name, "map<string, "+typ+">")
	}
	return append(list, []copied{
		{"at", "google.protobuf.Timestamp"},
		{"took", "google.protobuf.Duration"},
		{"inner", "Inner"},
		{"wrapped", "google.protobuf.Int64Value"},
		{"inners", "repeated Inner"},
		{"by_name", "map<string, Inner>"},
		{"json", "google.protobuf.Struct"},
		{"self", "Tree"},
	}...)
}

// copySchema has an event and a row with these fields, in another order and under other numbers.
func copySchema(t testing.TB) (*definition.Schema, []copied) {
	t.Helper()
	fields := copiedFields()
	var event, row strings.Builder
	for i, f := range fields {
		fmt.Fprintf(&event, "%s %s = %d;\n", f.typ, f.name, i+20)
		packing := ""
		if strings.HasPrefix(f.typ, "repeated ") && i%2 == 0 && !strings.HasSuffix(f.typ, "string") &&
			!strings.HasSuffix(f.typ, "bytes") && !strings.HasSuffix(f.typ, "Inner") {
			packing = " [packed = false]"
		}
		fmt.Fprintf(&row, "%s %s = %d%s;\n", f.typ, f.name, 2*len(fields)-i, packing)
	}
	text := `syntax = "proto3"; package shop.v1;
		import "google/protobuf/timestamp.proto"; import "google/protobuf/duration.proto";
		import "google/protobuf/wrappers.proto"; import "google/protobuf/struct.proto";
		enum Color { NONE = 0; RED = 1; BLACK = -1; }
		message Inner { string name = 3; sint64 n = 1; repeated int32 list = 2; oneof kind { int32 one = 4; string two = 5; Tree three = 6; } }
		message Tree { Tree left = 1; Tree right = 2; Inner value = 3; map<int32, Tree> many = 4; }
		message Event { ` + event.String() + ` oneof which { Inner first = 1; int64 second = 2; string third = 3; } Deep deep = 4; }
		message Deep { optional string text = 1; int64 n = 2; Deep deep = 3; google.protobuf.Timestamp at = 4; Inner inner = 5; }
		message Row { string id = 1; ` + row.String() +
		` Inner first = 1001; int64 second = 1002; optional string third = 1003; optional string deep_text = 1004; int64 deep_n = 1005;
		  google.protobuf.Timestamp deep_at = 1006; int64 first_n = 1007; string first_two = 1008; Tree deep_three = 1009;
		  int64 wide = 1010; optional int64 of_enum = 1011; uint64 wide_u = 1012; double wide_d = 1013; float narrow = 1014; }
		message Id { string id = 1; } service Orders { rpc Get(Id) returns (Id); }`
	return schema(t, map[string]string{"shop/v1/copy.proto": text}), fields
}

// copies are the fields of the row and the paths that they are copied from.
func copies(fields []copied) [][2]string {
	var list [][2]string
	for _, f := range fields {
		list = append(list, [2]string{f.name, f.name})
	}
	return append(list, [][2]string{
		{"first", "first"},
		{"second", "second"},
		{"third", "third"},
		{"deep_text", "deep.text"},
		{"deep_n", "deep.deep.n"},
		{"deep_at", "deep.deep.at"},
		{"first_n", "first.n"},
		{"first_two", "first.two"},
		{"deep_three", "deep.inner.three"},
		{"wide", "o_int32"},
		{"of_enum", "f_color"},
		{"wide_u", "f_fixed32"},
		{"wide_d", "f_float"},
		{"narrow", "f_double"},
	}...)
}

// copyFold makes a fold that sets fields of the row to what an expression makes of a path.
func copyFold(t testing.TB, s *definition.Schema, of func(path string) string) (*mapping.Fold, *definition.Projection) {
	t.Helper()
	text := "apiVersion: millrace/v1\nkind: Projection\nmetadata: {name: p, version: 1}\nspec:\n  row: shop.v1.Row\n  key: [id]\n" +
		"  from:\n    - entity: order\n      events:\n        Event:\n          set:\n"
	for _, c := range copies(copiedFields()) {
		text += "            " + c[0] + ": '${" + of(c[1]) + "}'\n"
	}
	p := projection(t, s, "p", text)
	return compiled(t, p), p
}

// withPresence writes a path as an expression that is no path, and null where a part of it that has
// presence is not set.
func withPresence(md protoreflect.MessageDescriptor) func(path string) string {
	return func(path string) string {
		if path == "json" { // CEL makes a null of a value without a kind; a copy keeps it
			return "event." + path
		}
		at, tests := "dyn(event)", []string(nil)
		m := md
		for name := range strings.SplitSeq(path, ".") {
			fd := m.Fields().ByName(protoreflect.Name(name))
			at += "." + name
			if fd.HasPresence() {
				tests = append(tests, "has("+at+")")
			}
			m = fd.Message()
		}
		if tests == nil {
			return at
		}
		return strings.Join(tests, " && ") + " ? dyn(" + at + ") : dyn(null)"
	}
}

// wireMessages draws the wire form of a message of a type: fields in any order and number, known
// ones of other wire types, unknown ones, packed and not, messages in pieces.
func wireMessages(t *rapid.T, md protoreflect.MessageDescriptor, depth int) []byte {
	var out []byte
	fields := md.Fields()
	for range rapid.IntRange(0, 12).Draw(t, "records") {
		fd := fields.Get(rapid.IntRange(0, fields.Len()-1).Draw(t, "field"))
		switch rapid.IntRange(0, 19).Draw(t, "form") {
		case 0:
			out = protowire.AppendTag(out, 9999, protowire.BytesType)
			out = protowire.AppendString(out, "unknown")
		case 1:
			if wire(fd.Kind()) != protowire.Fixed32Type && !md.IsMapEntry() { // the library fails at such a key
				out = protowire.AppendTag(out, fd.Number(), protowire.Fixed32Type)
				out = protowire.AppendFixed32(out, 7)
			}
		case 2:
			out = protowire.AppendTag(out, 9998, protowire.StartGroupType)
			out = protowire.AppendTag(out, 9998, protowire.EndGroupType)
		default:
			out = wireRecord(t, out, fd, depth)
		}
	}
	return out
}

func wire(k protoreflect.Kind) protowire.Type {
	switch k {
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind:
		return protowire.BytesType
	case protoreflect.Sfixed32Kind, protoreflect.Fixed32Kind, protoreflect.FloatKind:
		return protowire.Fixed32Type
	case protoreflect.Sfixed64Kind, protoreflect.Fixed64Kind, protoreflect.DoubleKind:
		return protowire.Fixed64Type
	default:
		return protowire.VarintType
	}
}

func wireRecord(t *rapid.T, out []byte, fd protoreflect.FieldDescriptor, depth int) []byte {
	switch typ := wire(fd.Kind()); {
	case fd.Message() != nil:
		if depth == 0 {
			return out
		}
		out = protowire.AppendTag(out, fd.Number(), protowire.BytesType)
		return protowire.AppendBytes(out, wireMessages(t, fd.Message(), depth-1))
	case typ == protowire.BytesType:
		out = protowire.AppendTag(out, fd.Number(), typ)
		return protowire.AppendString(out, rapid.SampledFrom([]string{"", "a", "b", "é", "\x00", "zz"}).Draw(t, "text"))
	case fd.IsList() && rapid.Bool().Draw(t, "packed"):
		var packed []byte
		for range rapid.IntRange(0, 3).Draw(t, "items") {
			packed = wireNumber(t, packed, fd, typ)
		}
		out = protowire.AppendTag(out, fd.Number(), protowire.BytesType)
		return protowire.AppendBytes(out, packed)
	default:
		return wireNumber(t, protowire.AppendTag(out, fd.Number(), typ), fd, typ)
	}
}

func wireNumber(t *rapid.T, out []byte, fd protoreflect.FieldDescriptor, typ protowire.Type) []byte {
	bits := rapid.SampledFrom([]uint64{
		0, 1, 2, 3, 127, 128, math.MaxInt32, math.MaxUint32, 1 << 32, math.MaxInt64, math.MaxUint64, uint64(1) << 63,
		uint64(math.Float32bits(1.5)), math.Float64bits(-2.25), math.Float64bits(math.NaN()) | 5,
		math.Float64bits(math.Inf(1)),
	}).Draw(t, "number")
	parent := fd.ContainingMessage().FullName()
	if parent == "google.protobuf.Timestamp" || parent == "google.protobuf.Duration" {
		bits = uint64(rapid.Int64Range(-2_000_000_000, 2_000_000_000).Draw(t, "time"))
	}
	switch typ {
	case protowire.Fixed32Type:
		return protowire.AppendFixed32(out, uint32(bits))
	case protowire.Fixed64Type:
		return protowire.AppendFixed64(out, bits)
	default:
		if bits < 128 && rapid.IntRange(0, 9).Draw(t, "long") == 0 {
			return append(out, byte(bits)|0x80, 0x80, 0) // longer than need be
		}
		return protowire.AppendVarint(out, bits)
	}
}

func eventType(t testing.TB, s *definition.Schema, name protoreflect.FullName) protoreflect.MessageDescriptor {
	t.Helper()
	found, err := s.Files().FindDescriptorByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return found.(protoreflect.MessageDescriptor) //nolint:forcetypeassert // the test's own
}

// TestWireCopiesAreCEL: a path that is copied by its wire form gives the same row, byte by byte, as
// the same path that CEL evaluates on the decoded event, and the value that the library decodes.
func TestWireCopiesAreCEL(t *testing.T) {
	s, fields := copySchema(t)
	md := eventType(t, s, "shop.v1.Event")
	byWire, p := copyFold(t, s, func(path string) string { return "event." + path })
	byCEL, _ := copyFold(t, s, withPresence(md))
	again, _ := copyFold(t, s, func(path string) string { return "event." + path })
	folders := []*mapping.Folder{byWire.Folder(), byCEL.Folder(), again.Folder()}
	tries, rowsMade := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		r := &mapping.Record{
			Kind: mapping.OfEvent, Type: "type.googleapis.com/shop.v1.Event", Entity: "e", Value: wireMessages(t, md, 4),
		}
		rows := []*memory{newMemory(byWire), newMemory(byCEL), newMemory(again)}
		for range 2 { // into no row, and into one that is there
			var errs []error
			for i, d := range folders {
				_, err := d.Apply(r, rows[i])
				errs = append(errs, err)
			}
			if (errs[0] == nil) != (errs[1] == nil) {
				t.Fatalf("event %x: by wire %v, by CEL %v", r.Value, errs[0], errs[1])
			}
			key := byWire.EntityKey(nil, "e")
			wire, cel := rows[0].rows[string(key)], rows[1].rows[string(key)]
			if !bytes.Equal(wire, cel) {
				t.Fatalf("event %x: by wire\n%s\nby CEL\n%s", r.Value, decode(t, p.Row, wire), decode(t, p.Row, cel))
			}
			if !bytes.Equal(wire, rows[2].rows[string(key)]) {
				t.Fatalf("event %x: another compilation gives another row", r.Value)
			}
			tries++
			if errs[0] == nil {
				rowsMade++
				sameValues(t, decode(t, md, r.Value), decode(t, p.Row, wire), fields)
			}
			r.Value = append(r.Value, wireMessages(t, md, 3)...)
		}
	})
	if rowsMade < tries/2 {
		t.Errorf("%d rows of %d events: the property says little", rowsMade, tries)
	}
}

func decode(t *rapid.T, md protoreflect.MessageDescriptor, b []byte) *dynamicpb.Message {
	m := dynamicpb.NewMessage(md)
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, m); err != nil {
		t.Fatal(err)
	}
	return m
}

// sameValues compares the fields of an event and a row by reflection. Times may be written in
// another way.
func sameValues(t *rapid.T, event, row *dynamicpb.Message, fields []copied) {
	for _, f := range fields {
		name := protoreflect.Name(f.name)
		from, to := event.Descriptor().Fields().ByName(name), row.Descriptor().Fields().ByName(name)
		if f.name == "at" || f.name == "took" {
			continue
		}
		if event.Has(from) != row.Has(to) || !event.Get(from).Equal(row.Get(to)) {
			t.Fatalf("field %s: event %v, row %v", f.name, event.Get(from), row.Get(to))
		}
	}
}

// TestDamagedEvents: bytes that are no message are an error of the fold, or a row; never a panic.
func TestDamagedEvents(t *testing.T) {
	s, _ := copySchema(t)
	md := eventType(t, s, "shop.v1.Event")
	byWire, p := copyFold(t, s, func(path string) string { return "event." + path })
	byCEL, _ := copyFold(t, s, withPresence(md))
	d, other := byWire.Folder(), byCEL.Folder()
	rapid.Check(t, func(t *rapid.T) {
		value := wireMessages(t, md, 3)
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			if len(value) > 0 {
				value[rapid.IntRange(0, len(value)-1).Draw(t, "at")] = rapid.Byte().Draw(t, "byte")
			}
		}
		value = value[:rapid.IntRange(0, len(value)).Draw(t, "length")]
		rows := newMemory(byWire)
		_, err := d.Apply(&mapping.Record{Kind: mapping.OfEvent, Type: "shop.v1.Event", Entity: "e", Value: value}, rows)
		switch {
		case err != nil && (!isFoldError(err) || len(rows.rows) > 0):
			t.Fatalf("event %x: %v, rows %v", value, err, rows.rows)
		case err == nil:
			decode(t, p.Row, rows.rows[string(byWire.EntityKey(nil, "e"))])
		}
		rows = newMemory(byCEL)
		r := &mapping.Record{Kind: mapping.OfEvent, Type: "shop.v1.Event", Entity: "e", Value: value}
		if _, err := other.Apply(r, rows); err != nil && (!isFoldError(err) || len(rows.rows) > 0) {
			t.Fatalf("event %x by CEL: %v, rows %v", value, err, rows.rows)
		}
	})
}

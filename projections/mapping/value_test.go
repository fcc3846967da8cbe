package mapping_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	_ "google.golang.org/protobuf/types/known/durationpb"
	_ "google.golang.org/protobuf/types/known/timestamppb"

	"github.com/millrace-io/millrace/projections/mapping"
)

// everything returns the descriptor of a message with a field of each type, named as the type, and
// an optional one of each scalar type with opt_ before it.
func everything(t *testing.T) protoreflect.MessageDescriptor {
	t.Helper()
	file := &descriptorpb.FileDescriptorProto{}
	text := `name: "all.proto" package: "all" syntax: "proto3"
		dependency: ["google/protobuf/timestamp.proto", "google/protobuf/duration.proto"]
		enum_type { name: "E" value { name: "ZERO" number: 0 } value { name: "MINUS" number: -1 } }
		message_type { name: "All" `
	number := 0
	field := func(name, rest string) {
		number++
		text += fmt.Sprintf("field { name: %q number: %d %s } ", name, number, rest)
	}
	var oneofs string
	for i, typ := range []string{
		"bool", "int32", "sint32", "sfixed32", "int64", "sint64", "sfixed64", "uint32", "fixed32", "uint64", "fixed64",
		"float", "double", "string", "bytes", "enum",
	} {
		named := "type: TYPE_" + strings.ToUpper(typ)
		if typ == "enum" {
			named += ` type_name: ".all.E"`
		}
		field(typ, "label: LABEL_OPTIONAL "+named)
		field("opt_"+typ, fmt.Sprintf("label: LABEL_OPTIONAL proto3_optional: true oneof_index: %d %s", i, named))
		oneofs += fmt.Sprintf("oneof_decl { name: \"_opt_%s\" } ", typ)
	}
	for name, typ := range map[string]string{
		"timestamp": ".google.protobuf.Timestamp", "duration": ".google.protobuf.Duration", "message": ".all.All",
	} {
		field(name, fmt.Sprintf("label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: %q", typ))
	}
	field("list", "label: LABEL_REPEATED type: TYPE_INT32")
	if err := prototext.Unmarshal([]byte(text+oneofs+"}"), file); err != nil {
		t.Fatal(err)
	}
	built, err := protodesc.NewFile(file, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	return built.Messages().Get(0)
}

// TestFieldsOfMessages: each type of field has a kind, and its values come back from a tuple.
func TestFieldsOfMessages(t *testing.T) {
	all := everything(t)
	m := dynamicpb.NewMessage(all)
	for name, test := range map[string]struct {
		kind mapping.Kind
		text string
		want mapping.Value
	}{
		"bool":      {mapping.Bool, "true", mapping.OfBool(true)},
		"int32":     {mapping.Int32, "-5", mapping.OfInt(-5)},
		"sint32":    {mapping.Int32, "-6", mapping.OfInt(-6)},
		"sfixed32":  {mapping.Int32, "-2147483648", mapping.OfInt(math.MinInt32)},
		"int64":     {mapping.Int64, "-9223372036854775808", mapping.OfInt(math.MinInt64)},
		"sint64":    {mapping.Int64, "7", mapping.OfInt(7)},
		"sfixed64":  {mapping.Int64, "-7", mapping.OfInt(-7)},
		"uint32":    {mapping.Uint32, "4294967295", mapping.OfUint(math.MaxUint32)},
		"fixed32":   {mapping.Uint32, "3", mapping.OfUint(3)},
		"uint64":    {mapping.Uint64, "18446744073709551615", mapping.OfUint(math.MaxUint64)},
		"fixed64":   {mapping.Uint64, "4", mapping.OfUint(4)},
		"float":     {mapping.Float, "-0.5", mapping.OfFloat(-0.5)},
		"double":    {mapping.Double, "1e300", mapping.OfFloat(1e300)},
		"string":    {mapping.Text, `"é"`, mapping.OfText("é")},
		"bytes":     {mapping.Text, `"\000\377"`, mapping.OfText("\x00\xff")},
		"enum":      {mapping.Int32, "MINUS", mapping.OfInt(-1)},
		"timestamp": {mapping.Time, "{ seconds: 5 nanos: 6 }", mapping.OfTime(5, 6)},
		"duration":  {mapping.Time, "{ seconds: -5 nanos: -6 }", mapping.OfTime(-5, -6)},
	} {
		for _, prefix := range []string{"", "opt_"} {
			fd := all.Fields().ByName(protoreflect.Name(prefix + name))
			if fd == nil {
				continue // messages have presence as they are
			}
			f, err := mapping.FieldOf(fd)
			want := mapping.Field{Kind: test.kind, Optional: prefix != "" || test.kind == mapping.Time}
			if err != nil || f != want {
				t.Errorf("%s is %+v (%v), want %+v", fd.Name(), f, err, want)
			}
			if err := prototext.Unmarshal(nil, m); err != nil {
				t.Fatal(err)
			}
			if v := mapping.ValueOf(m, fd); v.IsPresent() == f.Optional {
				t.Errorf("%s that is not set is present: %v", fd.Name(), v.IsPresent())
			}
			if err := prototext.Unmarshal([]byte(prefix+name+": "+test.text), m); err != nil {
				t.Fatal(err)
			}
			v, shape := mapping.ValueOf(m, fd), mapping.Shape{f}
			decoded, _, err := shape.Decode(nil, shape.Append(nil, v))
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range []mapping.Value{v, decoded[0]} {
				if order, _ := compare(f, v, test.want); order != 0 || !v.IsPresent() {
					t.Errorf("%s: %v, want %v", fd.Name(), v, test.want)
				}
			}
		}
	}
	for name, want := range map[string]string{
		"list": "field all.All.list has several values", "message": "field all.All.message is a message: a key or an index has scalars",
	} {
		_, err := mapping.FieldOf(all.Fields().ByName(protoreflect.Name(name)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

package definition

import (
	"slices"
	"strings"
	"testing"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// TestLibrary evaluates the functions of the library. What they return is in rows: another result
// needs another version of it.
func TestLibrary(t *testing.T) {
	s := &Scope{Report: &Report{}, Options: Options{Schema: shopSchema(t)}}
	env, err := s.Environment("shop.v1", nil)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"sum([1, 2, 3])":                          "6",
		"sum([1u, 2u])":                           "3",
		"sum([0.1, 0.2])":                         "0.30000000000000004",
		"sum([1].filter(i, i > 1))":               "0",
		"type(sum([1u].filter(i, i > 1u)))":       "uint",
		"type(sum([1.0].filter(i, i > 1.0)))":     "double",
		"sum([duration('1s'), duration('2s')])":   "3s",
		"sum([9223372036854775807, 1])":           "error: integer overflow",
		"min([3, 1, 2])":                          "1",
		"max([3, 1, 2])":                          "3",
		"min(['b', 'a'])":                         "a",
		"max([timestamp(1), timestamp(2)])":       "1970-01-01T00:00:02Z",
		"min([1].filter(i, i > 1))":               "error: min and max: the list is empty",
		"avg([1, 2])":                             "1.5",
		"avg([1u])":                               "1",
		"avg([1.0].filter(i, i > 1.0))":           "error: avg: the list is empty",
		"sortedKeys({'b': 1, 'a': 2, 'c': 3})[1]": "b",
		"sortedKeys({3: 'x', -1: 'y'})[0]":        "-1",
		"uuid5('6ba7b810-9dad-11d1-80b4-00c04fd430c8', 'www.example.com')": "2ed6657d-e927-568b-95e1-2665a8aea6a2",
		"uuid5('x', 'y')":             "error: uuid5: the first argument is not a UUID",
		"math.greatest(1, 2)":         "2",
		"'a-b'.split('-')[1]":         "b",
		"'%d'.format([1])":            "1",
		"Status.OPEN":                 "1",
		"Address.Kind.HOME":           "1",
		"OrderPlaced{note: 'a'}.note": "a",
	} {
		e := s.Expression(&Node{}, 0, text, env)
		if e == nil {
			t.Fatalf("%s: %v", text, s.Problems())
		}
		if got := eval(t, e, map[string]any{}); got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
}

func eval(t *testing.T, e *Expression, variables map[string]any) string {
	t.Helper()
	program, err := e.Env.Program(e.AST)
	if err != nil {
		t.Fatal(err)
	}
	value, _, err := program.Eval(variables)
	if err != nil {
		return "error: " + err.Error()
	}
	if of, ok := value.(ref.Type); ok {
		return of.TypeName()
	}
	text, ok := value.ConvertToType(types.StringType).(types.String)
	if !ok {
		t.Fatalf("%v is no text", value)
	}
	return string(text)
}

// TestLinkedFiles gives a function a file with the path of one that is linked into this program,
// and other messages: the function's are what expressions see.
func TestLinkedFiles(t *testing.T) {
	const path = "millrace/projection/v1/query.proto"
	schema := schemaOf(t, map[string]string{path: `syntax = "proto3"; package own;
		message Row { string id = 1; int64 amount = 2; }
		message Happened { int64 amount = 1; }`})
	s := &Scope{Report: &Report{}, Options: Options{Schema: schema}}
	m := schema.message("own.Row", "")
	env, err := s.Environment("own", nil, messageVariable("row", m))
	if err != nil {
		t.Fatal(err)
	}
	e := s.Expression(&Node{}, 0, "row.amount + Happened{amount: 2}.amount", env)
	if e == nil {
		t.Fatal(s.Problems())
	}
	row := dynamicpb.NewMessage(m)
	row.Set(field(m, "amount"), protoreflect.ValueOfInt64(40))
	if got := eval(t, e, map[string]any{"row": row}); got != "42" {
		t.Errorf("the sum is %s, want 42", got)
	}
}

// TestBounded says of which expressions the estimate holds for every length of lists and texts.
func TestBounded(t *testing.T) {
	s := &Scope{Report: &Report{}, Options: Options{Schema: shopSchema(t)}}
	env, err := s.Environment("shop.v1", nil, messageVariable("row", s.Schema.message("shop.v1.OrderRow", "")))
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		"row.total_cents + 1 > row.paid_cents": true, "has(row.note)": true, "row.status == Status.OPEN": true,
		"row.tags.exists(x, x == 'a')": false, "row.note.contains('a')": false, "sum(row.tags.map(x, 1)) > 1": false,
	} {
		e := s.Expression(&Node{}, 0, text, env)
		if e == nil {
			t.Fatal(s.Problems())
		}
		if e.Bounded != want {
			t.Errorf("%s: bounded %t, want %t (cost %d)", text, e.Bounded, want, e.Cost)
		}
	}
}

// TestSplit finds expressions in texts.
func TestSplit(t *testing.T) {
	for text, want := range map[string][]string{
		"":                         nil,
		"plain":                    {"plain"},
		"${a}":                     {"<a>"},
		"a ${b} c ${d}":            {"a ", "<b>", " c ", "<d>"},
		"$${a} ${b}":               {"${a} ", "<b>"},
		"$$${a}":                   {"$${a}"},
		"${T{a: {1: 2}}}":          {"<T{a: {1: 2}}>"},
		"${'}' + \"}\"}":           {"<'}' + \"}\">"},
		`${'\'}'}`:                 {`<'\'}'>`},
		`${r'\'}x`:                 {`<r'\'>`, "x"},
		`${'''a'}''' + 'b'}`:       {`<'''a'}''' + 'b'>`},
		"${a":                      {"!0"},
		"ab ${'a}":                 {"!3"},
		"${a}}":                    {"<a>", "}"},
		"5 $ {a}":                  {"5 $ {a}"},
		"${}":                      {"<>"},
		strings.Repeat("${a}", 3):  {"<a>", "<a>", "<a>"},
		"${a} ${b'\\'}'}${'${x}'}": {"<a>", " ", "<b'\\'}'>", "<'${x}'>"},
	} {
		var got []string
		pieces, problem := split(text)
		for _, p := range pieces {
			if p.expression {
				got = append(got, "<"+p.text+">")
				if !strings.HasPrefix(text[p.offset:], p.text) {
					t.Errorf("%s: offset %d of %s", text, p.offset, p.text)
				}
			} else {
				got = append(got, p.text)
			}
		}
		if problem >= 0 {
			got = []string{"!" + itoa(problem)}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// TestCopiesOfMessages generates the file of a row whose messages and enums have names of the
// generated ones, of each other, and of values.
func TestCopiesOfMessages(t *testing.T) {
	schema := schemaOf(t, map[string]string{
		"a.proto": `syntax = "proto3"; package a.v1;
			import "b.proto";
			message Row {
				string id = 1;
				GetRequest own = 2;
				b.v1.GetRequest other = 3;
				Color color = 4;
				b.v1.Color shade = 5;
				Row parent = 6;
				oneof one { string left = 7; b.v1.Money right = 8; }
				map<string, b.v1.Money> prices = 9;
				optional Color maybe = 10;
				Row.Inner inner = 11;
				message Inner { Deep deep = 1; message Deep { string x = 1; } enum E { NONE = 0; } E e = 2; }
				message Money { int64 cents = 1; }
				Money money = 12;
			}
			message GetRequest { string x = 1; }
			enum Color { RED = 0; GREEN = 1; }`,
		"b.proto": `syntax = "proto3"; package b.v1;
			message GetRequest { string y = 1; }
			message Money { int64 units = 1; }
			enum Color { option allow_alias = true; RED = 0; BLUE = 2; AZURE = 2; }`,
	})
	text := strings.Replace(string(versionOf("1", "row: a.v1.Row\nkey: [id]\n"+
		"from: [{entity: order, events: {shop.v1.OrderPlaced: {set: {color: GREEN}}}}]\n").Text), "name: orders", "name: rows", 1)
	p := projections(t, Options{Schema: schema}, Source{"f.yaml", []byte(text)})["rows"]
	source := ProtoSource(p.API())
	for _, want := range []string{
		"message Row {\n  string id = 1;\n  AV1GetRequest own = 2;\n  BV1GetRequest other = 3;\n  Color color = 4;\n" +
			"  BV1Color.Value shade = 5;\n  Row parent = 6;\n  oneof one {\n    string left = 7;\n    Money right = 8;\n  }\n" +
			"  map<string, Money> prices = 9;\n  optional Color maybe = 10;\n  RowInner inner = 11;\n  RowMoney money = 12;\n}\n",
		"message AV1GetRequest {\n  string x = 1;\n}", "message BV1GetRequest {\n  string y = 1;\n}", "message RowInnerDeep {",
		"message RowInnerE {\n  enum Value {\n    NONE = 0;\n  }\n}",
		"message BV1Color {\n  enum Value {\n    option allow_alias = true;\n    RED = 0;\n    BLUE = 2;\n    AZURE = 2;\n  }\n}",
	} {
		if !strings.Contains(source, want) {
			t.Errorf("it lacks\n%s", want)
		}
	}
	if t.Failed() {
		t.Log(source)
	}
	sameAsCompiled(t, p.API(), source)
}

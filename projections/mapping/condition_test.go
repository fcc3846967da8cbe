package mapping_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/projections/mapping"
)

// conditions are those that have a form without CEL.
var conditions = []string{
	"has(row.at)", "!has(row.o_int32)", "has(row.f_string)", "has(row.f_double)", "row.f_bool", "!row.o_bool", "row.f_color == Color.RED",
	"row.o_color != Color.RED", "row.f_int64 < 5", "5 >= row.o_int64", "row.f_uint32 > 3u", "row.o_uint64 <= 128u",
	"row.f_string < 'b'", "row.o_string == ''", "row.f_bytes == b'a'", "row.f_bool == true", "row.deep_n == 1 && has(row.first)",
	"row.f_int32 != 0 || row.o_int32 == 0 && !(row.o_string == 'a')", "has(row.first.two)", "has(row.first) && row.first.n == 0", "row.first.n < 0",
}

// TestConditionsAreCEL: a condition that is read from the bytes of a row is true where CEL says so.
func TestConditionsAreCEL(t *testing.T) {
	s, _ := copySchema(t)
	md := eventType(t, s, "shop.v1.Row")
	type pair struct{ plain, cel *mapping.Folder }
	pairs := make([]pair, len(conditions))
	for i, c := range conditions {
		fold := func(condition string) *mapping.Folder {
			return compiled(t, projection(t, s, "p", fmt.Sprintf("apiVersion: millrace/v1\nkind: Projection\n"+
				"metadata: {name: p, version: 1}\nspec:\n  row: shop.v1.Row\n  key: [id]\n  visible: %q\n"+
				"  from: [{entity: order, events: {Event: {set: {}}}}]\n", condition))).Folder()
		}
		pairs[i] = pair{fold(c), fold("(" + c + ") ? true : dyn(false)")}
	}
	seen := map[string]bool{}
	rapid.Check(t, func(t *rapid.T) {
		var row []byte
		for _, name := range []protoreflect.Name{
			"at", "o_int32", "f_string", "f_double", "f_bool", "o_bool", "f_color", "o_color", "f_int64", "o_int64", "f_uint32",
			"o_uint64", "o_string", "f_bytes", "deep_n", "f_int32", "first", "first",
		} {
			if rapid.Bool().Draw(t, string(name)) {
				row = wireRecord(t, row, md.Fields().ByName(name), 3)
			}
		}
		for i, p := range pairs {
			plain, err := p.plain.Visible(row)
			cel, celErr := p.cel.Visible(row)
			if err != nil || celErr != nil || plain != cel {
				t.Fatalf("%s of row %x: %t (%v), by CEL %t (%v)", conditions[i], row, plain, err, cel, celErr)
			}
			seen[fmt.Sprint(i, plain)] = true
		}
	})
	for i, c := range conditions {
		if !seen[fmt.Sprint(i, true)] || !seen[fmt.Sprint(i, false)] {
			t.Errorf("%s was never true, or never false: %v", c, seen[fmt.Sprint(i, true)])
		}
	}
}

// TestAbsentIsFalse: a comparison with a field that has presence and is not set is false, in both
// forms, and in an index.
func TestAbsentIsFalse(t *testing.T) {
	s := shop(t)
	for _, condition := range []string{
		"row.note == ''", "row.note != 'x'", "row.note < 'x'", "'' == row.note", "row.note.size() == 0 ? row.note == '' : false",
		"row.placed_at < timestamp('2026-11-30T12:00:00Z')", "row.patience == duration('0s')",
	} {
		p := shopProjection(t, fmt.Sprintf("row: shop.v1.OrderRow\nkey: [order_id]\nvisible: %[1]q\n"+
			"from: [{entity: order, events: {OrderPlaced: {set: {note: '${event.note}'}}}}]\n"+
			"indexes: [{name: i, fields: [note], where: %[1]q}]", condition))
		d := compiled(t, p).Folder()
		r := event(t, s, "o", "shop.v1.OrderPlaced", "")
		rows := newMemory(compiled(t, p))
		if _, err := d.Apply(r, rows); err != nil {
			t.Fatal(err)
		}
		row := []byte("\x0a\x01o") // order_id only
		isVisible, err := d.Visible(row)
		_, in, indexErr := d.IndexEntry(nil, 0, row)
		if isVisible || in || err != nil || indexErr != nil {
			t.Errorf("%s of an absent field: visible %t (%v), in the index %t (%v)", condition, isVisible, err, in, indexErr)
		}
	}
}

package query

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/projections/mapping"
)

// TestShapesAreThoseOfTheFold: what is read has the form of what is written.
func TestShapesAreThoseOfTheFold(t *testing.T) {
	p := viewOf(t, fmt.Sprintf(spec, 4)).Projection
	f, err := mapping.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	key, err := tableOf(p, nil)
	if err != nil || fmt.Sprint(key.shape) != fmt.Sprint(f.KeyShape()) {
		t.Errorf("key %v, %v, want %v", key, err, f.KeyShape())
	}
	for i, x := range p.Indexes {
		got, err := tableOf(p, x)
		want := append(append(mapping.Shape(nil), f.IndexShape(i)...), f.KeyShape()...)
		if err != nil || fmt.Sprint(got.shape) != fmt.Sprint(want) {
			t.Errorf("index %s: %v, %v, want %v", x.Name, got, err, want)
		}
	}
	for i, a := range p.Aggregates {
		if got, err := groupsOf(a); err != nil || fmt.Sprint(got.shape) != fmt.Sprint(f.GroupShape(i)) {
			t.Errorf("aggregate %s: %v, %v, want %v", a.Name, got, err, f.GroupShape(i))
		}
	}
}

// TestPlansAtRunTime: which index, bounds and residual a request has.
func TestPlansAtRunTime(t *testing.T) {
	b := orders(t, 4)
	fill(b)
	for _, c := range []struct{ method, request, want string }{
		{"ListByCustomer", `customer_id: "c1"`, `by_customer: row.customer_id == params.customer_id; `},
		{"ListByCustomer", `customer_id: "c1" filter: "placed_at > 1970-01-12T00:00:00Z AND status = OPEN"`, `by_customer: row.customer_id == params.customer_id && row.placed_at > "1970-01-12T00:00:00Z"; status = OPEN`},
		{"ListByCustomer", `customer_id: "c1" filter: "placed_at = 1970-01-12T00:00:00Z"`, `by_customer: row.customer_id == params.customer_id && row.placed_at == "1970-01-12T00:00:00Z"; `},
		{"ListByStatus", `status: OPEN from: 5`, `by_status: row.status == params.status && row.total_cents >= params.from; `},
		{"ListAll", `filter: "status = OPEN"`, `by_status: row.status == "OPEN"; `},
		{"ListAll", `filter: "status = OPEN AND total_cents > 5 AND total_cents <= 9 AND note = \"x*\""`, `by_status: row.status == "OPEN" && row.total_cents > "5" && row.total_cents <= "9"; note = "x*"`},
		{"ListAll", `filter: "customer_id = \"c1\" AND (status = OPEN OR note:*)"`, `by_customer: row.customer_id == "c1"; (status = OPEN OR note:*)`},
		{"ListAll", `filter: "note >= \"x\""`, `by_note: row.note >= "x"; `},
		{"ListAll", `filter: "status = OPEN AND status = SHIPPED"`, `by_status: row.status == "OPEN"; status = SHIPPED`},
		{"ListScan", `above: 3 filter: "note = \"x\""`, `by_note: row.note == "x"; row.small > params.above`},
		{"ListOne", `order_id: "o07"`, `key: row.order_id == params.order_id; `},
	} {
		got, err := b.call(c.method, c.request+" explain: true")
		if err != nil {
			t.Errorf("%s {%s}: %v", c.method, c.request, err)
			continue
		}
		part := func(name string) string {
			_, rest, _ := strings.Cut(got, `"`+name+`":"`)
			end := 0
			for end < len(rest) && (rest[end] != '"' || rest[end-1] == '\\') {
				end++
			}
			return strings.ReplaceAll(rest[:end], `\"`, `"`)
		}
		if plan := fmt.Sprintf("%s: %s; %s", part("index"), part("bounds"), part("residual")); plan != c.want {
			t.Errorf("%s {%s}:\n\t%s\n\t%s", c.method, c.request, plan, c.want)
		}
	}
	b.scans = nil
	ids, _ := b.ids("ListOne", `order_id: "o07"`)
	if ids != "o07" || len(b.scans) != 1 || b.scans[0].Partition != b.PartitionOf("o07") {
		t.Errorf("%s from %d partitions", ids, len(b.scans))
	}
}

// TestAbsentFields: a comparison with an optional field that is absent is false, also that with the
// default.
func TestAbsentFields(t *testing.T) {
	b := orders(t, 1)
	b.put(`order_id: "absent"`)
	b.put(`order_id: "empty" note: ""`)
	b.put(`order_id: "x" note: "x"`)
	b.put(`order_id: "absent7" small: 7 express: true`)
	b.put(`order_id: "empty8" note: "" small: 8 express: true`)
	b.put(`order_id: "absent8" small: 8`)
	for _, c := range []struct{ method, request, want string }{
		{"ListByNote", ``, "empty empty8"},
		{"ListByNote", `note: "x"`, "x"},
		{"ListBelow", `note: "x"`, "empty empty8"},
		{"ListBelow", ``, ""},
		{"ListNotNote", `note: "x"`, "absent7 empty empty8"},
		{"ListNotNote", ``, "absent7 x"},
		{"ListEmpty", ``, "empty8"},
	} {
		if got, _ := b.ids(c.method, c.request); got != c.want {
			t.Errorf("%s {%s}: %q, want %q", c.method, c.request, got, c.want)
		}
	}
}

// TestWheres has forms of expressions that are evaluated on rows.
func TestWheres(t *testing.T) {
	for where, want := range map[string]string{
		`row.tags.exists(t, t == params.text)`:                              "a",
		`row.tags.all(t, t != params.text) && 'blue' in row.tags`:           "b",
		`has(row.note) && size(row.note) > 1`:                               "a",
		`!has(row.note) || row.note.startsWith('z')`:                        "a b c",
		`row.status in [Status.OPEN, Status.SHIPPED]`:                       "a",
		`(row.express ? row.small : 7) == 7`:                                "b c",
		`row.placed_at > timestamp('2020-01-01T00:00:00Z')`:                 "a",
		`!(row.placed_at > timestamp('2020-01-01T00:00:00Z'))`:              "b c",
		`row.patience >= duration('1m') || row.weight > 1.0`:                "c",
		`row.address.street == 'Main'`:                                      "c",
		`'x' in row.counts && row.counts['x'] == 5`:                         "b",
		`row.total_cents * 2 == 10 && string(row.total_cents) == '5'`:       "a",
		`row.items == 3u || row.raw == b'\x01' || row.ratio < -1.0`:         "b c",
		`row.small > 1 && double(row.small) < 1e12`:                         "a",
		`[1, 2].map(x, x * 2).exists(x, row.small == x)`:                    "a",
		`row.order_id.matches('^[bc]$') && !row.express`:                    "b c",
		`row.note == params.text || params.text == 'red' && row.note < 'b'`: "",
	} {
		text := strings.Replace(fmt.Sprintf(spec, 4), "    ListAll:\n",
			"    ListAll:\n      params: {text: string}\n      allowScan: true\n      where: "+strconv.Quote(where)+"\n", 1)
		b := newBench(t, text, 1)
		b.put(`order_id: "a" tags: "red" note: "zz" status: OPEN express: true small: 2 placed_at: {seconds: 1700000000} total_cents: 5`)
		b.put(`order_id: "b" tags: "blue" counts: {key: "x" value: 5} items: 3`)
		b.put(`order_id: "c" weight: 2 raw: "\001" address: {street: "Main"}`)
		if got, _ := b.ids("ListAll", `text: "red"`); got != want {
			t.Errorf("%s: %q, want %q", where, got, want)
		}
	}
}

// TestLongTexts: texts above what an index has are told apart by the rows.
func TestLongTexts(t *testing.T) {
	b := orders(t, 1)
	long := strings.Repeat("n", mapping.MaxIndexed)
	b.put(fmt.Sprintf(`order_id: "a" note: %q`, long+"a"))
	b.put(fmt.Sprintf(`order_id: "b" note: %q`, long+"b"))
	b.put(fmt.Sprintf(`order_id: "c" note: %q`, long))
	for _, c := range []struct{ method, request, want string }{
		{"ListByNote", fmt.Sprintf("note: %q", long+"a"), "a"},
		{"ListByNote", fmt.Sprintf("note: %q", long+"x"), ""},
		{"ListByNote", fmt.Sprintf("note: %q", long), "c"},
		{"ListBelow", fmt.Sprintf("note: %q", long+"b"), "c a"},
	} {
		if got, _ := b.ids(c.method, c.request); got != c.want {
			t.Errorf("%s: %q, want %q", c.method, got, c.want)
		}
	}
}

// TestSingles: a float of 32 bits compared with one of 64 gives the rows that CEL gives.
func TestSingles(t *testing.T) {
	b := orders(t, 1)
	for i, x := range []float32{0.1, 0.2, -1, float32(math.Inf(-1)), float32(math.NaN())} {
		text := fmt.Sprint(x)
		text = strings.ReplaceAll(strings.ReplaceAll(strings.ToLower(text), "+", ""), "-inf", "-inf")
		b.put(fmt.Sprintf(`order_id: "%d" ratio: %s`, i, text))
	}
	for from, want := range map[string]string{
		"0.1": "3 2", "0.2": "3 2 0", "0.10000000149011612": "3 2", "0.11": "3 2 0", "inf": "3 2 0 1", "nan": "", "-inf": "",
	} {
		if got, _ := b.ids("ListRatio", "from: "+from); got != want {
			t.Errorf("below %s: %q, want %q", from, got, want)
		}
	}
}

func isTrue(order int, operator string) bool {
	switch operator {
	case "==":
		return order == 0
	case "<":
		return order < 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	default:
		return order >= 0
	}
}

// TestFit: a comparison with a number means the same in the kind of the field.
func TestFit(t *testing.T) {
	numbers := []float64{-3, -2.5, -1, 0, 0.5, 1, 7, 7.25, 1e3, 3e9, -3e9, 1e19, -1e19, 1e30, math.Inf(1), math.Inf(-1)}
	fields := map[mapping.Kind][]int64{
		mapping.Int32:  {math.MinInt32, -3, -2, 0, 1, 7, math.MaxInt32},
		mapping.Int64:  {math.MinInt64, -3, 0, 7, math.MaxInt64},
		mapping.Uint32: {0, 1, 7, math.MaxUint32}, mapping.Uint64: {0, 1, 7, math.MaxInt64},
	}
	for kind, values := range fields {
		for _, x := range numbers {
			for _, operator := range []string{"==", "<", "<=", ">", ">="} {
				for _, n := range values {
					field := float64(n)
					want := isTrue(cmp.Compare(field, x), operator)
					f := fit(kind, operator, x)
					got := f.always
					if !f.always && !f.never {
						v := mapping.OfInt(n)
						order, _ := compare(kind, v, f.value)
						got = isTrue(order, f.operator)
					}
					if got != want && math.Abs(field) < 1<<53 {
						t.Errorf("%v: %d %s %v is %v, want %v (%+v)", kind, n, operator, x, got, want, f)
					}
				}
			}
		}
	}
	for _, operand := range []any{int64(5), uint64(5)} {
		if f := fit(mapping.Int32, "<", operand); f.value.Int() != 5 || f.never || f.always {
			t.Errorf("5: %+v", f)
		}
	}
	if f := fit(mapping.Int32, ">", int64(math.MaxInt64)); !f.never {
		t.Errorf("above all: %+v", f)
	}
	if f := fit(mapping.Uint64, ">=", int64(-1)); !f.always {
		t.Errorf("below all: %+v", f)
	}
	if f := fit(mapping.Int64, "==", math.NaN()); !f.never {
		t.Errorf("NaN: %+v", f)
	}
}

// TestAfter: a span goes on behind a tuple, in both directions.
func TestAfter(t *testing.T) {
	s := span{lower: []byte("a"), upper: []byte("z")}
	s.after([]byte("m"), false)
	if bytes.Compare([]byte("m"), s.lower) >= 0 || string(s.lower) != "m\x00" {
		t.Errorf("lower %q", s.lower)
	}
	s = span{lower: []byte("a"), upper: []byte("z")}
	if s.after([]byte("m"), true); string(s.upper) != "m" {
		t.Errorf("upper %q", s.upper)
	}
}

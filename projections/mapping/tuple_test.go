package mapping_test

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/projections/mapping"
)

// allKinds are all of them.
var allKinds = []mapping.Kind{
	mapping.Bool, mapping.Int32, mapping.Int64, mapping.Uint32, mapping.Uint64, mapping.Float, mapping.Double,
	mapping.Text, mapping.Time,
}

// shapes draws a shape of up to four fields.
func shapes(t *rapid.T) mapping.Shape {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) mapping.Field {
		return mapping.Field{
			Kind:     rapid.SampledFrom(allKinds).Draw(t, "kind"),
			Optional: rapid.Bool().Draw(t, "optional"),
			Desc:     rapid.Bool().Draw(t, "desc"),
			Cut:      rapid.Bool().Draw(t, "cut"),
		}
	}), 1, 4).Draw(t, "shape")
}

// Values come from small domains, so that tuples often share values, and from the whole range.
var (
	integers = rapid.OneOf(
		rapid.Int64Range(-2, 2), rapid.Int64(),
		rapid.SampledFrom([]int64{math.MinInt64, math.MaxInt64, math.MinInt32, math.MaxInt32}))
	unsigned = rapid.OneOf(
		rapid.Uint64Range(0, 3), rapid.Uint64(), rapid.SampledFrom([]uint64{math.MaxUint32, math.MaxUint64}))
	floats = rapid.OneOf(rapid.SampledFrom([]float64{
		0, math.Copysign(0, -1), 1, -1, math.Inf(1), math.Inf(-1), math.NaN(),
		math.Float64frombits(1<<63 | 0x7ff0000000000001),
		math.SmallestNonzeroFloat64, -math.SmallestNonzeroFloat64, math.MaxFloat32, math.MaxFloat64,
	}), rapid.Float64())
	texts = rapid.OneOf(
		rapid.SampledFrom([]string{"", "\x00", "\x00\x00", "\x00\x01", "\x00\xff", "\xff", "\xff\xff", "a", "a\x00", "ab", "a\x00b", "\x01"}),
		rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]byte("ab\x00\x01\xff")), 0, 4),
			func(b []byte) string { return string(b) }),
		rapid.String(),
		rapid.Custom(func(t *rapid.T) string { // about as long as an index takes
			text := strings.Repeat("x", mapping.MaxIndexed-2+rapid.IntRange(0, 4).Draw(t, "longer"))
			return text + rapid.SampledFrom([]string{"", "\x00", "a", "\xff"}).Draw(t, "end")
		}))
	nanos = rapid.SampledFrom([]int32{0, 1, -1, 999_999_999, -999_999_999, math.MinInt32, math.MaxInt32})
)

func value(t *rapid.T, f mapping.Field) mapping.Value {
	if f.Optional && rapid.IntRange(0, 4).Draw(t, "absent") == 0 {
		return mapping.Value{}
	}
	switch f.Kind {
	case mapping.Bool:
		return mapping.OfBool(rapid.Bool().Draw(t, "bool"))
	case mapping.Int32:
		return mapping.OfInt(int64(int32(integers.Draw(t, "int32"))))
	case mapping.Int64:
		return mapping.OfInt(integers.Draw(t, "int64"))
	case mapping.Uint32:
		return mapping.OfUint(uint64(uint32(unsigned.Draw(t, "uint32"))))
	case mapping.Uint64:
		return mapping.OfUint(unsigned.Draw(t, "uint64"))
	case mapping.Float:
		return mapping.OfFloat(float64(float32(floats.Draw(t, "float"))))
	case mapping.Double:
		return mapping.OfFloat(floats.Draw(t, "double"))
	case mapping.Text:
		return mapping.OfText(texts.Draw(t, "text"))
	default:
		return mapping.OfTime(integers.Draw(t, "seconds"), nanos.Draw(t, "nanos"))
	}
}

func values(t *rapid.T, s mapping.Shape) []mapping.Value {
	list := make([]mapping.Value, len(s))
	for i, f := range s {
		list[i] = value(t, f)
	}
	return list
}

// compare says how two values of a field are ordered. ok is false for two different texts of which
// an index only has the same beginning: their order is open.
func compare(f mapping.Field, a, b mapping.Value) (order int, ok bool) {
	ok = true
	switch {
	case !a.IsPresent() || !b.IsPresent():
		order = cmp.Compare(present(a), present(b))
	case f.Kind == mapping.Bool, f.Kind == mapping.Uint32, f.Kind == mapping.Uint64:
		order = cmp.Compare(a.Uint(), b.Uint())
	case f.Kind == mapping.Int32, f.Kind == mapping.Int64:
		order = cmp.Compare(a.Int(), b.Int())
	case f.Kind == mapping.Float, f.Kind == mapping.Double:
		if order = cmp.Compare(a.Float(), b.Float()); isNaN(f, a) || isNaN(f, b) {
			order = -order // cmp has NaN first
		}
	case f.Kind == mapping.Text:
		order, ok = compareTexts(f, string(a.Text()), string(b.Text()))
	default:
		aSeconds, aNanos := a.Time()
		bSeconds, bNanos := b.Time()
		order = cmp.Or(cmp.Compare(aSeconds, bSeconds), cmp.Compare(aNanos, bNanos))
	}
	if f.Desc {
		order = -order
	}
	return order, ok
}

func present(v mapping.Value) int {
	if v.IsPresent() {
		return 1
	}
	return 0
}

func compareTexts(f mapping.Field, a, b string) (order int, ok bool) {
	head := func(s string) string { return s[:min(len(s), mapping.MaxIndexed)] }
	isCut := func(s string) bool { return f.Cut && len(s) > mapping.MaxIndexed }
	if isCut(a) && isCut(b) && head(a) == head(b) {
		return 0, a == b
	}
	return cmp.Compare(a, b), true
}

// TestTuplesSortAsTheirValues: field by field, whatever the fields; equal values make equal bytes,
// and no tuple is the beginning of another.
func TestTuplesSortAsTheirValues(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := shapes(t)
		a, b := values(t, s), values(t, s)
		want, isKnown := 0, true
		for i, f := range s {
			if want, isKnown = compare(f, a[i], b[i]); want != 0 || !isKnown {
				break
			}
		}
		x, y := s.Append(nil, a...), s.Append(nil, b...)
		got := bytes.Compare(x, y)
		if isKnown && got != want || !isKnown && got == 0 {
			t.Fatalf("%v: %x and %x compare as %d, want %d (known: %v)", s, x, y, got, want, isKnown)
		}
		if got != 0 && (bytes.HasPrefix(x, y) || bytes.HasPrefix(y, x)) {
			t.Fatalf("%v: one of %x and %x is the beginning of the other", s, x, y)
		}
	})
}

// TestTuplesOfTheSameBeginning: tuples begin with the same bytes if and only if their first values
// are equal.
func TestTuplesOfTheSameBeginning(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := shapes(t)
		a, b := values(t, s), values(t, s)
		n := rapid.IntRange(0, len(s)).Draw(t, "fields")
		isEqual := true
		for i, f := range s[:n] {
			order, isKnown := compare(f, a[i], b[i])
			isEqual = isEqual && order == 0 && isKnown
		}
		prefix, tuple := s.Append(nil, a[:n]...), s.Append(nil, b...)
		if got := bytes.HasPrefix(tuple, prefix); got != isEqual {
			t.Fatalf("%v: %x begins with %x: %v, want %v", s, tuple, prefix, got, isEqual)
		}
		if next := mapping.Successor(prefix); isEqual && next != nil && bytes.Compare(tuple, next) >= 0 {
			t.Fatalf("%v: %x is not below %x, the successor of its beginning", s, tuple, next)
		}
		own, err := s.Prefix(append(s.Append(nil, a...), "rest"...), n)
		if err != nil || !bytes.Equal(own, prefix) {
			t.Fatalf("%v: the first %d fields are %x (%v), want %x", s, n, own, err, prefix)
		}
	})
}

// TestTuplesAreDecoded: the values come back, but for the sign of zero, the bits of NaN and the
// rest of a text that was cut; what follows on the tuple is left.
func TestTuplesAreDecoded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := shapes(t)
		in := values(t, s)
		header, trailer := "head", rapid.SampledFrom([]string{"", "\x00", "\xff", "tail"}).Draw(t, "trailer")
		tuple := append(s.Append([]byte(header), in...), trailer...)
		before := bytes.Clone(tuple)
		out, rest, err := s.Decode(nil, tuple[len(header):])
		if err != nil || string(rest) != trailer {
			t.Fatalf("%v: %x: %v, rest %x", s, tuple, err, rest)
		}
		for i, f := range s {
			if f.Optional && out[i].IsPresent() != in[i].IsPresent() {
				t.Fatalf("%v: value %d is present: %v", s, i, out[i].IsPresent())
			}
			if text := in[i].Text(); f.Kind == mapping.Text && f.Cut && len(text) > mapping.MaxIndexed {
				if !out[i].IsCut() || !bytes.Equal(out[i].Text(), text[:mapping.MaxIndexed]) {
					t.Fatalf("%v: value %d is %x, want the beginning of %x", s, i, out[i].Text(), text)
				}
				continue
			}
			if order, _ := compare(f, in[i], out[i]); order != 0 || out[i].IsCut() {
				t.Fatalf("%v: value %d is %v, want %v", s, i, out[i], in[i])
			}
		}
		again := append(s.Append([]byte(header), out...), trailer...)
		if !bytes.Equal(again, before) || !bytes.Equal(tuple, before) {
			t.Fatalf("%v: %x becomes %x", s, before, again)
		}
	})
}

// golden are tuples that must stay as they are: they lie in the stores of users.
// docs/views-keyspace.md has each line.
var golden = []struct {
	is    string
	field mapping.Field
	value mapping.Value
	tuple string
}{
	{is: "false", field: mapping.Field{Kind: mapping.Bool}, value: mapping.OfBool(false), tuple: "00"},
	{is: "true", field: mapping.Field{Kind: mapping.Bool}, value: mapping.OfBool(true), tuple: "01"},
	{is: "int32 -1", field: mapping.Field{Kind: mapping.Int32}, value: mapping.OfInt(-1), tuple: "7fffffff"},
	{is: "int32 1", field: mapping.Field{Kind: mapping.Int32}, value: mapping.OfInt(1), tuple: "80000001"},
	{is: "int64 -2", field: mapping.Field{Kind: mapping.Int64}, value: mapping.OfInt(-2), tuple: "7ffffffffffffffe"},
	{is: "uint32 258", field: mapping.Field{Kind: mapping.Uint32}, value: mapping.OfUint(258), tuple: "00000102"},
	{is: "uint64 258", field: mapping.Field{Kind: mapping.Uint64}, value: mapping.OfUint(258), tuple: "0000000000000102"},
	{is: "float 1.5", field: mapping.Field{Kind: mapping.Float}, value: mapping.OfFloat(1.5), tuple: "bfc00000"},
	{is: "double 1.5", field: mapping.Field{Kind: mapping.Double}, value: mapping.OfFloat(1.5), tuple: "bff8000000000000"},
	{is: "double -1.5", field: mapping.Field{Kind: mapping.Double}, value: mapping.OfFloat(-1.5), tuple: "4007ffffffffffff"},
	{is: "double 0 or -0", field: mapping.Field{Kind: mapping.Double}, value: mapping.OfFloat(math.Copysign(0, -1)), tuple: "8000000000000000"},
	{is: "double NaN", field: mapping.Field{Kind: mapping.Double}, value: mapping.OfFloat(math.NaN()), tuple: "ffffffffffffffff"},
	{is: "string \"\"", field: mapping.Field{Kind: mapping.Text}, value: mapping.OfText(""), tuple: "0001"},
	{is: "string \"ab\"", field: mapping.Field{Kind: mapping.Text}, value: mapping.OfText("ab"), tuple: "61620001"},
	{is: "bytes 61 00 62", field: mapping.Field{Kind: mapping.Text}, value: mapping.OfText("a\x00b"), tuple: "6100ff620001"},
	{is: "string \"ab\", desc", field: mapping.Field{Kind: mapping.Text, Desc: true}, value: mapping.OfText("ab"), tuple: "9e9dfffe"},
	{is: "optional string, absent", field: mapping.Field{Kind: mapping.Text, Optional: true}, tuple: "00"},
	{is: "optional string, absent, desc", field: mapping.Field{Kind: mapping.Text, Optional: true, Desc: true}, tuple: "ff"},
	{is: "optional string \"a\"", field: mapping.Field{Kind: mapping.Text, Optional: true}, value: mapping.OfText("a"), tuple: "01610001"},
	{is: "Timestamp 1s 2ns", field: mapping.Field{Kind: mapping.Time, Optional: true}, value: mapping.OfTime(1, 2), tuple: "01800000000000000180000002"},
	{is: "Duration -1s -2ns", field: mapping.Field{Kind: mapping.Time, Optional: true}, value: mapping.OfTime(-1, -2), tuple: "017fffffffffffffff7ffffffe"},
	{
		is: "indexed string of 513 x", field: mapping.Field{Kind: mapping.Text, Cut: true},
		value: mapping.OfText(strings.Repeat("x", 513)),
		tuple: strings.Repeat("78", 512) + "0002" + "35ade0090e64e74d",
	},
}

func TestGoldenTuples(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "views-keyspace.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range golden {
		if got := hex.EncodeToString(mapping.Shape{g.field}.Append(nil, g.value)); got != g.tuple {
			t.Errorf("%s is encoded as %s, want %s", g.is, got, g.tuple)
		}
		shown := strings.Replace(g.tuple, strings.Repeat("78", 512), "78 … 78 ", 1)
		if line := "| " + g.is + " | `" + shown + "` |"; !strings.Contains(string(page), line) {
			t.Errorf("docs/views-keyspace.md has no line %s", line)
		}
	}
}

// TestRangesHaveWhatFitsTheCondition compares ranges with conditions on values.
func TestRangesHaveWhatFitsTheCondition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := shapes(t)
		header := rapid.SampledFrom([]string{"h", "\x00", "h\xff"}).Draw(t, "header")
		equal := values(t, s[:rapid.IntRange(0, len(s)-1).Draw(t, "fields")])
		f := s[len(equal)]
		from, to, begins := bound(t, f), bound(t, f), texts.Draw(t, "begins")
		row := values(t, s)
		if rapid.Bool().Draw(t, "row is equal") {
			copy(row, equal)
		}
		tuple := s.Append([]byte(header), row...)
		isEqual := true
		for i := range equal {
			isEqual = isEqual && holds(s[i], row[i], equal[i], func(order int) bool { return order == 0 })
		}
		v := row[len(equal)]
		isBetween := isEqual && v.IsPresent() && !isNaN(f, v)
		if from != nil {
			isBetween = isBetween &&
				holds(f, v, from.Value, func(order int) bool { return order > 0 || order == 0 && !from.Exclusive })
		}
		if to != nil {
			isBetween = isBetween &&
				holds(f, v, to.Value, func(order int) bool { return order < 0 || order == 0 && !to.Exclusive })
		}
		r, ok := s.Equal([]byte(header), equal...)
		wantIn(t, "equal", r, ok, tuple, isEqual)
		r, ok = s.Between([]byte(header), equal, from, to)
		wantIn(t, "between", r, ok, tuple, isBetween)
		if f.Kind == mapping.Text {
			r, ok = s.Begins([]byte(header), equal, []byte(begins))
			wantIn(t, "begins", r, ok, tuple, isEqual && v.IsPresent() && strings.HasPrefix(string(v.Text()), begins))
		}
		other := append([]byte{header[0] + 1}, tuple[1:]...) // of another index
		if ok && bytes.Compare(other, r.Lower) >= 0 && (r.Upper == nil || bytes.Compare(other, r.Upper) < 0) {
			t.Fatalf("%x is in %x to %x", other, r.Lower, r.Upper)
		}
	})
}

func bound(t *rapid.T, f mapping.Field) *mapping.Bound {
	if rapid.IntRange(0, 3).Draw(t, "no bound") == 0 {
		return nil
	}
	return &mapping.Bound{Value: value(t, f), Exclusive: rapid.Bool().Draw(t, "exclusive")}
}

func isNaN(f mapping.Field, v mapping.Value) bool {
	return (f.Kind == mapping.Float || f.Kind == mapping.Double) && math.IsNaN(v.Float())
}

// holds says whether a comparison of a row's value is true, by the whole values.
func holds(f mapping.Field, row, with mapping.Value, is func(order int) bool) bool {
	if !row.IsPresent() || !with.IsPresent() || isNaN(f, row) || isNaN(f, with) {
		return false
	}
	f.Desc, f.Cut = false, false
	order, _ := compare(f, row, with)
	return is(order)
}

func wantIn(t *rapid.T, what string, r mapping.Range, ok bool, tuple []byte, want bool) {
	got := ok && bytes.Compare(tuple, r.Lower) >= 0 && (r.Upper == nil || bytes.Compare(tuple, r.Upper) < 0)
	if want && !got || got && !want && !r.Verify {
		t.Fatalf("%s: %x is in %x to %x (%v, verify %v): %v, want %v", what, tuple, r.Lower, r.Upper, ok, r.Verify, got, want)
	}
}

func TestSuccessor(t *testing.T) {
	for prefix, want := range map[string]string{"a": "b", "a\xff": "b", "a\x00": "a\x01", "": "", "\xff\xff": ""} {
		if got := mapping.Successor([]byte(prefix)); string(got) != want || (got == nil) != (want == "") {
			t.Errorf("successor of %q is %q, want %q", prefix, got, want)
		}
	}
}

func TestKeysHaveALimit(t *testing.T) {
	s := mapping.Shape{{Kind: mapping.Text}}
	longest := s.Append(nil, mapping.OfText(strings.Repeat("x", mapping.MaxKey-2)))
	if err := mapping.CheckKey(longest); err != nil {
		t.Error(err)
	}
	err := mapping.CheckKey(append(longest, 0))
	if !errors.Is(err, mapping.ErrKeyTooLong) ||
		!strings.Contains(err.Error(), "it has 1025 bytes, and the limit is 1024") {
		t.Errorf("a key of 1025 bytes: %v", err)
	}
}

// TestDamagedTuples: what no Append writes is refused, with the field.
func TestDamagedTuples(t *testing.T) {
	x512 := strings.Repeat("78", mapping.MaxIndexed)
	for name, test := range map[string]struct {
		field mapping.Field
		tuple string
		want  string
	}{
		"nothing":           {mapping.Field{Kind: mapping.Bool}, "", "ends too early"},
		"no bool":           {mapping.Field{Kind: mapping.Bool}, "02", "no value has this form"},
		"half a number":     {mapping.Field{Kind: mapping.Int64}, "80000000", "ends too early"},
		"no presence":       {mapping.Field{Kind: mapping.Bool, Optional: true}, "0201", "no presence byte"},
		"missing presence":  {mapping.Field{Kind: mapping.Bool, Optional: true}, "", "ends too early"},
		"another NaN":       {mapping.Field{Kind: mapping.Double}, "fff8000000000001", "no value has this form"},
		"a NaN below":       {mapping.Field{Kind: mapping.Float}, "00000001", "no value has this form"},
		"-0":                {mapping.Field{Kind: mapping.Float}, "7fffffff", "no value has this form"},
		"text without end":  {mapping.Field{Kind: mapping.Text}, "6161", "ends too early"},
		"half an end":       {mapping.Field{Kind: mapping.Text}, "6100", "ends too early"},
		"no end":            {mapping.Field{Kind: mapping.Text}, "610003", "no value has this form"},
		"cut where whole":   {mapping.Field{Kind: mapping.Text}, x512 + "00020102030405060708", "no value has this form"},
		"cut too early":     {mapping.Field{Kind: mapping.Text, Cut: true}, "6100020102030405060708", "no value has this form"},
		"half a hash":       {mapping.Field{Kind: mapping.Text, Cut: true}, x512 + "000201020304", "ends too early"},
		"whole where cut":   {mapping.Field{Kind: mapping.Text, Cut: true}, x512 + "780001", "no value has this form"},
		"descending absent": {mapping.Field{Kind: mapping.Bool, Optional: true, Desc: true}, "01", "no presence byte"},
	} {
		t.Run(name, func(t *testing.T) {
			tuple, err := hex.DecodeString("80000000" + test.tuple)
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = mapping.Shape{{Kind: mapping.Int32}, test.field}.Decode(nil, tuple)
			if !errors.Is(err, mapping.ErrTuple) || !strings.Contains(err.Error(), "field 1 of ") ||
				!strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

// FuzzDecode: the decoder never fails in another way than with an error, and what it accepts is
// encoded as it was.
func FuzzDecode(f *testing.F) {
	for _, g := range golden {
		tuple, _ := hex.DecodeString(g.tuple)
		f.Add(uint8(g.field.Kind), g.field.Optional, g.field.Desc, g.field.Cut, tuple)
	}
	f.Fuzz(func(t *testing.T, kind uint8, isOptional, isDesc, isCut bool, tuple []byte) {
		field := mapping.Field{Kind: allKinds[int(kind)%len(allKinds)], Optional: isOptional, Desc: isDesc, Cut: isCut}
		s := mapping.Shape{field, {Kind: mapping.Text, Desc: isDesc}}
		decoded, rest, err := s.Decode(nil, tuple)
		if err != nil {
			if !errors.Is(err, mapping.ErrTuple) {
				t.Errorf("%x: %v", tuple, err)
			}
			return
		}
		if again := append(s.Append(nil, decoded...), rest...); !bytes.Equal(again, tuple) {
			t.Errorf("%x becomes %x", tuple, again)
		}
	})
}

// customers is the index of an order's customer, newest order first, and the key behind it.
var customers = mapping.Shape{
	{Kind: mapping.Text, Cut: true}, {Kind: mapping.Time, Optional: true, Desc: true}, {Kind: mapping.Text},
}

var order = []mapping.Value{mapping.OfText("customer-1234567"), mapping.OfTime(1_700_000_000, 5), mapping.OfText("order-123456789")}

func TestTuplesDoNotAllocate(t *testing.T) {
	buf, decoded := make([]byte, 0, 256), make([]mapping.Value, 0, 4)
	tuple := customers.Append(nil, order...)
	if n := testing.AllocsPerRun(100, func() {
		buf = customers.Append(buf[:0], order...)
		decoded, _, _ = customers.Decode(decoded[:0], tuple)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if len(decoded) != 3 || !slices.Equal(buf, tuple) {
		t.Errorf("%x, decoded %v", buf, decoded)
	}
}

func BenchmarkAppend(b *testing.B) {
	buf := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		buf = customers.Append(buf[:0], order...)
	}
	b.SetBytes(int64(len(buf)))
}

func BenchmarkDecode(b *testing.B) {
	tuple := customers.Append(nil, order...)
	decoded := make([]mapping.Value, 0, 4)
	b.ReportAllocs()
	for b.Loop() {
		decoded, _, _ = customers.Decode(decoded[:0], tuple)
	}
}

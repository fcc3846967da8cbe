package mapping

import (
	"bytes"
	"math"
)

// Range has all tuples, behind a header, for which a condition is true: those with Lower <= tuple <
// Upper.
type Range struct {
	// Upper is nil where no key has such an end: then there is no bound.
	Lower, Upper []byte
	// Verify: a text of the condition is above MaxIndexed, so that there may be rows for which
	// it is false: each row must be looked at.
	Verify bool
}

// Bound is an end of a range of values.
type Bound struct {
	Value Value
	// Exclusive leaves the value itself out.
	Exclusive bool
}

// Successor returns the first key that does not begin with prefix, behind all that do; nil if there
// is none.
func Successor(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			next := bytes.Clone(prefix[:i+1])
			next[i]++
			return next
		}
	}
	return nil
}

// Equal returns the range of tuples whose first fields have these values. ok is false if there
// can be none: an absent value and NaN equal nothing.
func (s Shape) Equal(header []byte, values ...Value) (r Range, ok bool) {
	r.Lower = bytes.Clone(header)
	for i := range values {
		if !s[i].compares(&values[i]) {
			return Range{}, false
		}
		r.Lower = s[i].append(r.Lower, &values[i])
		r.Verify = r.Verify || s[i].cuts(&values[i])
	}
	r.Upper = Successor(r.Lower)
	return r, true
}

// Between returns the range of tuples whose first fields have the values equal and whose next one
// is between two bounds; nil is no bound. ok is false if there can be none. A field that is absent
// or NaN is in no such range, even in one without bounds.
func (s Shape) Between(header []byte, equal []Value, from, to *Bound) (r Range, ok bool) {
	r, ok = s.Equal(header, equal...)
	f, prefix := s[len(equal)], r.Lower
	if !ok || from != nil && !f.compares(&from.Value) || to != nil && !f.compares(&to.Value) {
		return Range{}, false
	}
	first, last := from, to
	if f.Desc {
		first, last = to, from
	}
	r.Lower, r.Upper = f.edge(prefix, first, false), f.edge(prefix, last, true)
	r.Verify = r.Verify || from != nil && f.cuts(&from.Value) || to != nil && f.cuts(&to.Value)
	return r, r.Upper == nil || bytes.Compare(r.Lower, r.Upper) < 0
}

// Begins returns the range of tuples whose first fields have the values equal and whose next one,
// of kind Text, begins with a text. ok is false if there can be none.
func (s Shape) Begins(header []byte, equal []Value, text []byte) (r Range, ok bool) {
	r, ok = s.Equal(header, equal...)
	if !ok {
		return Range{}, false
	}
	f := s[len(equal)]
	if f.Cut && len(text) > MaxIndexed {
		r.Verify, text = true, text[:MaxIndexed]
	}
	r.Lower = f.beginning(r.Lower, text)
	r.Upper = Successor(r.Lower)
	return r, true
}

// compares is false for values with which each comparison is false.
func (f Field) compares(v *Value) bool {
	return v.isPresent && (f.Kind != Float && f.Kind != Double || v.Float() == v.Float()) //nolint:gocritic // NaN
}

// cuts reports whether the encoding of a value is not all of it.
func (f Field) cuts(v *Value) bool {
	return f.Kind == Text && (v.isCut || f.Cut && len(v.text) > MaxIndexed)
}

// beginning appends what a present value, of kind Text with this beginning, begins with.
func (f Field) beginning(prefix, text []byte) []byte {
	start := len(prefix)
	prefix = bytes.Clone(prefix)
	if f.Optional {
		prefix = append(prefix, present)
	}
	return f.ordered(appendEscaped(prefix, text), start)
}

// edge returns the first key that counts, or, with isEnd, the first one behind those that do.
func (f Field) edge(prefix []byte, b *Bound, isEnd bool) []byte {
	var key []byte
	behind := isEnd
	switch isNaNFirst := f.Desc; {
	case b == nil && (f.Kind == Float || f.Kind == Double) && isEnd != isNaNFirst:
		nan := OfFloat(math.NaN())
		key, behind = f.append(bytes.Clone(prefix), &nan), !isEnd
	case b == nil:
		key = f.beginning(prefix, nil)
	case f.cuts(&b.Value):
		start := len(prefix)
		key = bytes.Clone(prefix)
		if f.Optional {
			key = append(key, present)
		}
		key = f.ordered(append(appendEscaped(key, b.Value.text[:MaxIndexed]), escape, textCut), start)
	default:
		key, behind = f.append(bytes.Clone(prefix), &b.Value), isEnd != b.Exclusive
	}
	if behind {
		return Successor(key)
	}
	return key
}

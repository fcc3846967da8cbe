package mapping

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxDepth bounds how deep messages may be nested, as the protobuf library does.
const maxDepth = 10_000

var (
	errWire  = errors.New("the message is damaged")
	errUTF8  = errors.New("the text is not valid UTF-8")
	errDepth = errors.New("messages are nested too deeply")
)

// message is what the wire form of a message depends on.
type message struct {
	name   protoreflect.FullName
	fields []*field // by number
	oneofs int
}

// field is what the wire form of a field depends on.
type field struct {
	name     string
	number   protowire.Number
	kind     protoreflect.Kind
	isList   bool
	isPacked bool
	presence bool
	// oneof is the index of the oneof, -1 without one.
	oneof int
	// key and value are those of a map.
	key, value *field
	message    *message
}

// messages makes each message once: they may hold each other.
type messages map[protoreflect.FullName]*message

func (ms messages) of(md protoreflect.MessageDescriptor) *message {
	if m := ms[md.FullName()]; m != nil {
		return m
	}
	m := &message{name: md.FullName(), oneofs: md.Oneofs().Len()}
	ms[m.name] = m
	for i := range md.Fields().Len() {
		m.fields = append(m.fields, ms.field(md.Fields().Get(i)))
	}
	slices.SortFunc(m.fields, func(a, b *field) int { return cmp.Compare(a.number, b.number) })
	return m
}

func (ms messages) field(fd protoreflect.FieldDescriptor) *field {
	f := &field{
		name: string(fd.Name()), number: fd.Number(), kind: fd.Kind(), isList: fd.IsList(), isPacked: fd.IsPacked(),
		presence: fd.HasPresence(), oneof: -1,
	}
	if o := fd.ContainingOneof(); o != nil && !o.IsSynthetic() {
		f.oneof = o.Index()
	}
	switch {
	case fd.IsMap():
		f.key, f.value = ms.field(fd.MapKey()), ms.field(fd.MapValue())
		f.key.presence, f.value.presence = true, true // an entry has both, always
	case fd.Message() != nil:
		f.message = ms.of(fd.Message())
	}
	return f
}

// index returns the position of a field by number, -1 when there is none.
func (m *message) index(number protowire.Number) int {
	if n := int(number) - 1; n < len(m.fields) && m.fields[n].number == number {
		return n // numbered without gaps, as most messages are
	}
	i, found := slices.BinarySearchFunc(m.fields, number, func(f *field, n protowire.Number) int {
		return cmp.Compare(f.number, n)
	})
	if !found {
		return -1
	}
	return i
}

// fits says whether a record of a wire type is one of the field; others are unknown fields.
func (f *field) fits(t protowire.Type) bool {
	own := wireType(f.kind)
	return t == own || f.isList && t == protowire.BytesType && own >= 0
}

// entry is a record of a known field: the bytes of its value, without length.
type entry struct {
	field    int32
	typ      protowire.Type
	from, to int
}

// rewriter turns wire forms into the canonical one: known fields by number, each once, map entries
// by key. Its memory is used again and again.
type rewriter struct {
	entries []entry
	winners []int32
	joined  []byte
	pairs   []pair
	moved   []byte
}

// consume reads the value of a record, and returns its bytes and the size of all of it.
func consume(b []byte, number protowire.Number, t protowire.Type) (from, to, size int, err error) {
	if t == protowire.BytesType {
		v, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return 0, 0, 0, errWire
		}
		return n - len(v), n, n, nil
	}
	n := protowire.ConsumeFieldValue(number, t, b)
	if n < 0 {
		return 0, 0, 0, errWire
	}
	return 0, n, n, nil
}

// collect appends the entries of a message, sorted by field; those of one field are in their order.
// Members of a oneof that another one has replaced are left out.
func (w *rewriter) collect(m *message, b []byte) error {
	base, last, isSorted := len(w.entries), int32(-1), true
	for at := 0; at < len(b); {
		number, t, n := protowire.ConsumeTag(b[at:])
		if n < 0 {
			return errWire
		}
		at += n
		from, to, size, err := consume(b[at:], number, t)
		if err != nil {
			return err
		}
		if i := m.index(number); i >= 0 && m.fields[i].fits(t) {
			e := entry{field: int32(i), typ: t, from: at + from, to: at + to} //nolint:gosec // fields of a message
			isSorted = isSorted && e.field >= last
			last = e.field
			w.entries = append(w.entries, e)
		}
		at += size
	}
	if m.oneofs > 0 {
		w.entries = w.entries[:base+w.survivors(m, w.entries[base:])]
	}
	if !isSorted {
		slices.SortStableFunc(w.entries[base:], func(a, b entry) int { return cmp.Compare(a.field, b.field) })
	}
	return nil
}

// survivors moves the entries that count to the front, in their order, and returns how many they
// are: of a oneof those of the last member, since it was another one.
func (w *rewriter) survivors(m *message, entries []entry) int {
	const none, over = -1, -2
	w.winners = w.winners[:0]
	for range m.oneofs {
		w.winners = append(w.winners, none)
	}
	kept := len(entries)
	for _, e := range slices.Backward(entries) { // what is moved has been looked at
		if o := m.fields[e.field].oneof; o >= 0 {
			switch w.winners[o] {
			case none:
				w.winners[o] = e.field
			case e.field:
			default:
				w.winners[o] = over
				continue
			}
		}
		kept--
		entries[kept] = e
	}
	return copy(entries, entries[kept:])
}

// message appends the canonical form of a message.
func (w *rewriter) message(out []byte, m *message, b []byte, depth int) ([]byte, error) {
	if depth > maxDepth {
		return out, errDepth
	}
	base := len(w.entries)
	if err := w.collect(m, b); err != nil {
		return out, err
	}
	var err error
	for i := base; i < len(w.entries); {
		j := i + 1
		for ; j < len(w.entries) && w.entries[j].field == w.entries[i].field; j++ {
		}
		f := m.fields[w.entries[i].field]
		if out, err = w.emit(out, f, b, i, j, depth); err != nil {
			return out, fmt.Errorf("%s.%s: %w", m.name, f.name, err)
		}
		i = j
	}
	w.entries = w.entries[:base]
	return out, nil
}

// emit appends a field whose records are the entries from i to j.
func (w *rewriter) emit(out []byte, f *field, b []byte, i, j, depth int) ([]byte, error) {
	switch {
	case f.key != nil:
		return w.emitMap(out, f, b, i, j, depth)
	case f.isList:
		return w.emitList(out, f, b, i, j, depth)
	case f.message != nil:
		payload := w.merged(b, i, j)
		out, err := w.nested(out, f, payload, depth)
		return out, err
	default:
		return f.appendRaw(out, w.entries[j-1].typ, b[w.entries[j-1].from:w.entries[j-1].to])
	}
}

// merged returns what is decoded as the messages of some entries merged: their bytes behind each
// other.
func (w *rewriter) merged(b []byte, i, j int) []byte {
	if j == i+1 {
		return b[w.entries[i].from:w.entries[i].to]
	}
	start := len(w.joined)
	for _, e := range w.entries[i:j] {
		w.joined = append(w.joined, b[e.from:e.to]...)
	}
	return w.joined[start:]
}

// nested appends a message as the value of a field.
func (w *rewriter) nested(out []byte, f *field, payload []byte, depth int) ([]byte, error) {
	out = protowire.AppendTag(out, f.number, protowire.BytesType)
	start := len(out)
	out, err := w.message(out, f.message, payload, depth+1)
	return prefixed(out, start), err
}

// prefixed puts the length before what was appended from start on.
func prefixed(out []byte, start int) []byte {
	n := uint64(len(out) - start) //nolint:gosec // not negative
	size := protowire.SizeVarint(n)
	for range size {
		out = append(out, 0)
	}
	copy(out[start+size:], out[start:len(out)-size])
	protowire.AppendVarint(out[:start], n)
	return out
}

func (w *rewriter) emitList(out []byte, f *field, b []byte, i, j, depth int) ([]byte, error) {
	if wireType(f.kind) == protowire.BytesType {
		for ; i < j; i++ {
			value := b[w.entries[i].from:w.entries[i].to]
			var err error
			if f.message != nil {
				out, err = w.nested(out, f, value, depth)
			} else {
				out, err = f.appendText(out, value)
			}
			if err != nil {
				return out, err
			}
		}
		return out, nil
	}
	begin := len(out)
	if f.isPacked {
		out = protowire.AppendTag(out, f.number, protowire.BytesType)
	}
	start := len(out)
	for ; i < j; i++ {
		rest := b[w.entries[i].from:w.entries[i].to]
		for len(rest) > 0 {
			bits, n := consumeNumber(rest, f.kind)
			if n < 0 {
				return out, errWire
			}
			rest = rest[n:]
			if !f.isPacked {
				out = protowire.AppendTag(out, f.number, wireType(f.kind))
			}
			out = appendNumber(out, f.kind, bits)
		}
	}
	if !f.isPacked {
		return out, nil
	}
	if len(out) == start {
		return out[:begin], nil
	}
	return prefixed(out, start), nil
}

// pair is an entry of a map in the output.
type pair struct {
	order    uint64
	text     []byte
	from, to int
}

func comparePairs(a, b pair) int {
	return cmp.Or(cmp.Compare(a.order, b.order), bytes.Compare(a.text, b.text))
}

func (w *rewriter) emitMap(out []byte, f *field, b []byte, i, j, depth int) ([]byte, error) {
	base, start := len(w.pairs), len(out)
	for ; i < j; i++ {
		p := pair{from: len(out)}
		var err error
		if out, err = w.emitPair(out, f, b[w.entries[i].from:w.entries[i].to], &p, depth); err != nil {
			return out, err
		}
		p.to = len(out)
		w.pairs = append(w.pairs, p)
	}
	out = w.sortPairs(out, start, base)
	w.pairs = w.pairs[:base]
	return out, nil
}

// sortPairs puts the pairs behind base, which stand in the output behind start, into their order;
// of those with one key the last one stays.
func (w *rewriter) sortPairs(out []byte, start, base int) []byte {
	pairs := w.pairs[base:]
	isSorted := true
	for i := 1; i < len(pairs); i++ {
		isSorted = isSorted && comparePairs(pairs[i-1], pairs[i]) < 0
	}
	if isSorted {
		return out
	}
	slices.SortStableFunc(pairs, comparePairs)
	w.moved = append(w.moved[:0], out[start:]...)
	out = out[:start]
	for i, p := range pairs {
		if i+1 < len(pairs) && comparePairs(p, pairs[i+1]) == 0 {
			continue
		}
		out = append(out, w.moved[p.from-start:p.to-start]...)
	}
	return out
}

// emitPair appends an entry of a map, and notes its key.
func (w *rewriter) emitPair(out []byte, f *field, b []byte, p *pair, depth int) ([]byte, error) {
	const keyNumber, valueNumber = 1, 2
	var key []byte
	var values int
	keyType, valueType := protowire.Type(-1), protowire.Type(-1)
	var value []byte
	for at := 0; at < len(b); {
		number, t, n := protowire.ConsumeTag(b[at:])
		if n < 0 {
			return out, errWire
		}
		at += n
		from, to, size, err := consume(b[at:], number, t)
		if err != nil {
			return out, err
		}
		switch {
		case number == keyNumber && f.key.fits(t):
			key, keyType = b[at+from:at+to], t
		case number == valueNumber && f.value.fits(t):
			if values++; values > 1 && f.value.message != nil {
				value = append(bytes.Clone(value), b[at+from:at+to]...) // messages merge
			} else {
				value = b[at+from : at+to]
			}
			valueType = t
		}
		at += size
	}
	out = protowire.AppendTag(out, f.number, protowire.BytesType)
	start := len(out)
	if keyType < 0 {
		key, keyType = f.key.zero(), wireType(f.key.kind)
	}
	if f.key.kind == protoreflect.StringKind {
		p.text = key
	} else {
		bits, _ := consumeNumber(key, f.key.kind)
		p.order = orderOf(f.key.kind, bits)
	}
	out, err := f.key.appendRaw(out, keyType, key)
	if err != nil {
		return out, err
	}
	switch {
	case f.value.message != nil:
		out, err = w.nested(out, f.value, value, depth)
	case valueType < 0:
		out, err = f.value.appendRaw(out, wireType(f.value.kind), f.value.zero())
	default:
		out, err = f.value.appendRaw(out, valueType, value)
	}
	return prefixed(out, start), err
}

// zero is the wire form of the value zero.
func (f *field) zero() []byte {
	switch wireType(f.kind) {
	case protowire.VarintType:
		return []byte{0}
	case protowire.Fixed32Type:
		return make([]byte, 4)
	case protowire.Fixed64Type:
		return make([]byte, 8)
	default:
		return nil
	}
}

// orderOf is the order of keys of maps.
func orderOf(k protoreflect.Kind, bits uint64) uint64 {
	switch k {
	case protoreflect.BoolKind, protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Fixed32Kind,
		protoreflect.Fixed64Kind:
		return bits
	default:
		return bits ^ signBit64
	}
}

// appendRaw appends a single field whose value, without length, has this wire form.
func (f *field) appendRaw(out []byte, t protowire.Type, value []byte) ([]byte, error) {
	if t == protowire.BytesType {
		return f.appendText(out, value)
	}
	bits, n := consumeNumber(value, f.kind)
	if n < 0 {
		return out, errWire
	}
	return f.appendBits(out, bits), nil
}

// appendText appends a string or bytes.
func (f *field) appendText(out, text []byte) ([]byte, error) {
	if f.kind == protoreflect.StringKind && !utf8.Valid(text) {
		return out, errUTF8
	}
	if len(text) == 0 && !f.presence && !f.isList {
		return out, nil
	}
	out = protowire.AppendTag(out, f.number, protowire.BytesType)
	return protowire.AppendBytes(out, text), nil
}

// appendBits appends a number in the form of consumeNumber.
func (f *field) appendBits(out []byte, bits uint64) []byte {
	if bits == 0 && !f.presence && !f.isList {
		return out
	}
	out = protowire.AppendTag(out, f.number, wireType(f.kind))
	return appendNumber(out, f.kind, bits)
}

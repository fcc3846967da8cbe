package projections

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/millrace-io/millrace/internal/plural"
	"github.com/millrace-io/millrace/materializer"
)

// A row in the store is a header and the message. The header has the flags (1 byte), the number of
// sources (1 byte), and for each source the offset of its last record that the row was made of,
// plus one; 0: there is none.

// flagHidden marks a row that is not visible: it is neither indexed nor returned.
const flagHidden = 1

var (
	errRow   = fmt.Errorf("row of a view: %w", materializer.ErrCorrupt)
	errGroup = fmt.Errorf("group of an aggregate: %w", materializer.ErrCorrupt)
)

func appendRow(buf []byte, isHidden bool, offsets []int64, message []byte) []byte {
	var flags byte
	if isHidden {
		flags |= flagHidden
	}
	buf = append(buf, flags, byte(len(offsets))) //nolint:gosec // sources are few
	for _, offset := range offsets {
		buf = binary.AppendUvarint(buf, uint64(offset)) //nolint:gosec // not negative
	}
	return append(buf, message...)
}

// parseRow takes a row apart. It writes the offsets to offsets, which has one for each source and
// may be nil.
func parseRow(value []byte, offsets []int64) (isHidden bool, message []byte, err error) {
	if len(value) < 2 {
		return false, nil, errRow
	}
	isHidden = value[0]&flagHidden != 0
	n, rest := int(value[1]), value[2:]
	for i := range n {
		offset, size := binary.Uvarint(rest)
		if size <= 0 {
			return false, nil, errRow
		}
		rest = rest[size:]
		if i < len(offsets) {
			offsets[i] = int64(offset) //nolint:gosec // as written
		}
	}
	return isHidden, rest, nil
}

// Sum is a sum of 128 bits, so that no row is too much for it.
type Sum struct {
	High int64
	Low  uint64
}

// SumOf returns a number as a sum.
func SumOf(n int64) Sum { return Sum{High: n >> 63, Low: uint64(n)} } //nolint:gosec // bit by bit

// Plus returns the sum of two.
func (s Sum) Plus(o Sum) Sum {
	low, carry := bits.Add64(s.Low, o.Low, 0)
	return Sum{High: s.High + o.High + int64(carry), Low: low} //nolint:gosec // 0 or 1
}

// Minus returns the difference of two.
func (s Sum) Minus(o Sum) Sum {
	low, borrow := bits.Sub64(s.Low, o.Low, 0)
	return Sum{High: s.High - o.High - int64(borrow), Low: low} //nolint:gosec // 0 or 1
}

// Int64 returns the sum; ok is false if it does not fit.
func (s Sum) Int64() (n int64, ok bool) {
	n = int64(s.Low) //nolint:gosec // checked
	return n, n>>63 == s.High
}

// group is the value of a group of an aggregate, or what is added to it.
type group struct {
	count int64
	sums  []Sum
}

// add adds a row with a sign, 1 or -1.
func (g *group) add(sign int64, sums []int64, of *part) {
	g.count += sign
	if g.sums == nil {
		g.sums = make([]Sum, len(sums))
	}
	for i, n := range sums {
		sum := SumOf(n)
		if of.fold.SumUnsigned(of.at, i) {
			sum = Sum{Low: uint64(n)} //nolint:gosec // bit by bit
		}
		if sign > 0 {
			g.sums[i] = g.sums[i].Plus(sum)
		} else {
			g.sums[i] = g.sums[i].Minus(sum)
		}
	}
}

// plus adds another group.
func (g *group) plus(o *group) error {
	if len(g.sums) != len(o.sums) {
		return fmt.Errorf("%w: the store has %s, the definition %d", errGroup, plural.Of(len(g.sums), "sum"), len(o.sums))
	}
	g.count += o.count
	for i := range g.sums {
		g.sums[i] = g.sums[i].Plus(o.sums[i])
	}
	return nil
}

// isZero: no row is in the group.
func (g *group) isZero() bool {
	for _, s := range g.sums {
		if s != (Sum{}) {
			return false
		}
	}
	return g.count == 0
}

func (g *group) append(buf []byte) []byte {
	buf = binary.AppendVarint(buf, g.count)
	for _, s := range g.sums {
		buf = binary.BigEndian.AppendUint64(buf, uint64(s.High)) //nolint:gosec // bit by bit
		buf = binary.BigEndian.AppendUint64(buf, s.Low)
	}
	return buf
}

// parseGroup reads a group. The sums are appended to sums.
func parseGroup(b []byte, sums []Sum) (g group, err error) {
	count, size := binary.Varint(b)
	if size <= 0 || (len(b)-size)%16 != 0 {
		return group{}, errGroup
	}
	for b = b[size:]; len(b) > 0; b = b[16:] {
		sums = append(sums, Sum{High: int64(binary.BigEndian.Uint64(b)), Low: binary.BigEndian.Uint64(b[8:])}) //nolint:gosec // bit by bit
	}
	return group{count: count, sums: sums}, nil
}

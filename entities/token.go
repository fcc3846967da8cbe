package entities

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
)

// ErrToken: a token was not issued by millrace, is truncated, or belongs to another app.
var ErrToken = errors.New("token is not valid")

// Position is a position in one partition: it covers all offsets before Next.
type Position struct {
	Partition int32
	Next      int64
}

// Token is a vector of positions in the journal of one app and generation. It says how fresh an
// answer is, or has to be. It is not a capability.
type Token struct {
	App        string
	Generation uint32
	Positions  []Position
}

// tokenVersion is the first byte of an encoded token.
const tokenVersion = 1

// Encode returns the token as callers get it: base64url of version, app (its checksum), generation,
// positions, checksum.
func (t *Token) Encode() string {
	buf := make([]byte, 0, 24+10*len(t.Positions))
	buf = append(buf, tokenVersion)
	buf = binary.BigEndian.AppendUint32(buf, appSum(t.App))
	buf = binary.AppendUvarint(buf, uint64(t.Generation))
	slices.SortFunc(t.Positions, func(a, b Position) int { return cmp.Compare(a.Partition, b.Partition) })
	for _, p := range t.Positions {
		buf = binary.AppendUvarint(buf, uint64(p.Partition)) //nolint:gosec // partitions are positive
		buf = binary.AppendUvarint(buf, uint64(p.Next))      //nolint:gosec // offsets are positive
	}
	sum := crc32.Checksum(buf, crc32.MakeTable(crc32.Castagnoli))
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint16(buf, uint16(sum))) //nolint:gosec // half of it
}

// DecodeToken reads a token that was issued for the given app.
func DecodeToken(app, s string) (Token, error) {
	buf, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(buf) < 8 {
		return Token{}, fmt.Errorf("%w: %q is not base64url of a whole token", ErrToken, s)
	}
	body, sum := buf[:len(buf)-2], binary.BigEndian.Uint16(buf[len(buf)-2:])
	if uint16(crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli))) != sum { //nolint:gosec // as written
		return Token{}, fmt.Errorf("%w: the checksum of %q is wrong", ErrToken, s)
	}
	if body[0] != tokenVersion {
		return Token{}, fmt.Errorf("%w: version %d is not known", ErrToken, body[0])
	}
	if binary.BigEndian.Uint32(body[1:]) != appSum(app) {
		return Token{}, fmt.Errorf("%w: it belongs to another app than %q", ErrToken, app)
	}
	t := Token{App: app}
	rest := body[5:]
	next := func() uint64 {
		v, n := binary.Uvarint(rest)
		if n <= 0 {
			err = fmt.Errorf("%w: %q is truncated", ErrToken, s)
			rest = nil
			return 0
		}
		rest = rest[n:]
		return v
	}
	generation := next()
	if err == nil && generation != Generation {
		return Token{}, fmt.Errorf("%w: it is from generation %d of the journal, which has generation %d", ErrToken,
			generation, Generation)
	}
	t.Generation = Generation
	for len(rest) > 0 && err == nil {
		partition, offset := next(), next()
		if err == nil && (partition >= Slots || offset > math.MaxInt64) {
			err = fmt.Errorf("%w: %q names offset %d of partition %d, which no journal has", ErrToken, s, offset, partition)
		}
		t.Positions = append(t.Positions, Position{Partition: int32(partition), Next: int64(offset)}) //nolint:gosec // checked
	}
	return t, err
}

func appSum(app string) uint32 {
	return crc32.Checksum([]byte(app), crc32.MakeTable(crc32.Castagnoli))
}

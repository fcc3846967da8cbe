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
	// Positions are at most MaxPositions, at most one for each partition.
	Positions []Position
	// Latest stands for more positions than a token holds: an answer has to be as fresh as a strong
	// read. Then there are no Positions.
	Latest bool
}

// MaxPositions bounds the positions of a token.
const MaxPositions = 256

// Headers of sessions. A session is what one caller sees over several calls: a browser with a
// cookie, or a client library that merges the tokens of its answers.
const (
	// SessionToken has the merged token of the session. A query that names no freshness of its own
	// includes it. It is never a reason to refuse a query.
	SessionToken = "millrace-session-token"
	// SessionDropped is there in the answer to a query that did not use the session's token: it is
	// of another app, or of a journal that is no more. The session begins again without one.
	SessionDropped = "millrace-session-dropped"
)

const (
	// tokenVersion is the first byte of an encoded token.
	tokenVersion = 1
	// latest is written in place of a partition by a token without positions; no partition has it.
	latest = Slots
)

// Merge makes t cover everything that u covers as well, by the later position of each partition.
// Both are of one app and generation.
func (t *Token) Merge(u *Token) {
	if t.Latest = t.Latest || u.Latest; !t.Latest {
		all := slices.Concat(t.Positions, u.Positions)
		slices.SortFunc(all, func(a, b Position) int {
			return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(b.Next, a.Next))
		})
		t.Positions = slices.CompactFunc(all, func(a, b Position) bool { return a.Partition == b.Partition })
		t.Latest = len(t.Positions) > MaxPositions
	}
	if t.Latest {
		t.Positions = nil
	}
}

// Encode returns the token as callers get it: base64url of version, app (its checksum), generation,
// positions in the order of their partitions, checksum.
func (t *Token) Encode() string { return t.encode(appSum(t.App)) }

func (t *Token) encode(app uint32) string {
	buf := make([]byte, 0, 24+10*len(t.Positions))
	buf = append(buf, tokenVersion)
	buf = binary.BigEndian.AppendUint32(buf, app)
	buf = binary.AppendUvarint(buf, uint64(t.Generation))
	if t.Latest {
		buf = binary.AppendUvarint(binary.AppendUvarint(buf, latest), 0)
	}
	slices.SortFunc(t.Positions, func(a, b Position) int { return cmp.Compare(a.Partition, b.Partition) })
	for _, p := range t.Positions {
		buf = binary.AppendUvarint(buf, uint64(p.Partition)) //nolint:gosec // partitions are positive
		buf = binary.AppendUvarint(buf, uint64(p.Next))      //nolint:gosec // offsets are positive
	}
	sum := crc32.Checksum(buf, crc32.MakeTable(crc32.Castagnoli))
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint16(buf, uint16(sum))) //nolint:gosec // half of it
}

// DecodeToken reads a token that was issued for the given app. It takes nothing that Encode does
// not write: the error, an ErrToken, says what is wrong.
func DecodeToken(app, s string) (Token, error) {
	t, sum, err := decodeToken(s)
	if err == nil && sum != appSum(app) {
		err = fmt.Errorf("%w: it belongs to another app than %q", ErrToken, app)
	}
	if err != nil {
		return Token{}, err
	}
	t.App = app
	return t, nil
}

// MergeTokens returns a token that covers both, of whichever app they are. The error is an ErrToken
// if one is not valid, or they are of two apps.
func MergeTokens(a, b string) (string, error) {
	merged, app, err := decodeToken(a)
	if err != nil {
		return "", err
	}
	other, appOfOther, err := decodeToken(b)
	if err == nil && app != appOfOther {
		err = fmt.Errorf("%w: %q and %q are of two apps", ErrToken, a, b)
	}
	if err != nil {
		return "", err
	}
	merged.Merge(&other)
	return merged.encode(app), nil
}

// decodeToken reads a token, and the checksum of its app.
func decodeToken(s string) (t Token, app uint32, err error) {
	buf, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(buf) < 8 {
		return Token{}, 0, fmt.Errorf("%w: %q is not base64url of a whole token", ErrToken, s)
	}
	body, sum := buf[:len(buf)-2], binary.BigEndian.Uint16(buf[len(buf)-2:])
	if uint16(crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli))) != sum { //nolint:gosec // as written
		return Token{}, 0, fmt.Errorf("%w: the checksum of %q is wrong", ErrToken, s)
	}
	if body[0] != tokenVersion {
		return Token{}, 0, fmt.Errorf("%w: version %d is not known", ErrToken, body[0])
	}
	app = binary.BigEndian.Uint32(body[1:])
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
		return Token{}, 0, fmt.Errorf("%w: it is from generation %d of the journal, which has generation %d", ErrToken,
			generation, Generation)
	}
	t.Generation = Generation
	for before := int64(-1); len(rest) > 0 && err == nil; {
		partition, offset := next(), next()
		switch {
		case err != nil:
		case partition == latest && offset == 0 && before < 0 && len(rest) == 0:
			t.Latest = true
			return t, app, nil
		case partition >= Slots || offset > math.MaxInt64:
			err = fmt.Errorf("%w: %q names offset %d of partition %d, which no journal has", ErrToken, s, offset, partition)
		case int64(partition) <= before:
			err = fmt.Errorf("%w: %q names partition %d after partition %d", ErrToken, s, partition, before)
		case len(t.Positions) == MaxPositions:
			err = fmt.Errorf("%w: it names more than %d partitions", ErrToken, MaxPositions)
		default:
			before = int64(partition)
			t.Positions = append(t.Positions, Position{Partition: int32(partition), Next: int64(offset)})
		}
	}
	if err != nil {
		return Token{}, 0, err
	}
	return t, app, nil
}

func appSum(app string) uint32 {
	return crc32.Checksum([]byte(app), crc32.MakeTable(crc32.Castagnoli))
}

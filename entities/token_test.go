package entities

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"strings"
	"testing"
)

// TestTokens: a token decodes to what was issued, and anything else is refused with a reason.
func TestTokens(t *testing.T) {
	issued := Token{
		App: "shop", Generation: 1, Positions: []Position{{Partition: 12, Next: 8813}, {Partition: 3, Next: 2}},
	}
	text := issued.Encode()
	got, err := DecodeToken("shop", text)
	if err != nil || got.Generation != 1 || len(got.Positions) != 2 || got.Positions[0] != (Position{3, 2}) ||
		got.Positions[1] != (Position{12, 8813}) {
		t.Fatalf("issued %+v, read %+v, %v", issued, got, err)
	}
	changed := text[:8] + "A" + text[9:]
	if changed == text {
		changed = text[:8] + "B" + text[9:]
	}
	for name, test := range map[string]struct{ app, text, why string }{
		"another app":      {"bank", text, "another app"},
		"cut":              {"shop", text[:len(text)-4], "checksum"},
		"changed":          {"shop", changed, "checksum"},
		"no token":         {"shop", "hello", "base64url"},
		"empty":            {"shop", "", "base64url"},
		"unsorted":         {"shop", sealed(3, 1, 2, 1), "partition 2 after partition 3"},
		"twice":            {"shop", sealed(3, 1, 3, 2), "partition 3 after partition 3"},
		"no partition":     {"shop", sealed(Slots, 1), "which no journal has"},
		"negative":         {"shop", sealed(3, 1<<63), "which no journal has"},
		"half":             {"shop", sealed(3), "truncated"},
		"latest, and more": {"shop", sealed(Slots, 0, 3, 1), "which no journal has"},
		"too many":         {"shop", sealed(many(MaxPositions + 1)...), "more than 256"},
	} {
		if _, err := DecodeToken(test.app, test.text); !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), test.why) {
			t.Errorf("%s: %v, want one that says %q", name, err, test.why)
		}
	}
}

// sealed returns a token of app shop with these numbers as its positions, and a checksum that fits.
func sealed(numbers ...uint64) string {
	buf := binary.AppendUvarint(binary.BigEndian.AppendUint32([]byte{tokenVersion}, appSum("shop")), Generation)
	for _, n := range numbers {
		buf = binary.AppendUvarint(buf, n)
	}
	sum := uint16(crc32.Checksum(buf, crc32.MakeTable(crc32.Castagnoli)))
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint16(buf, sum))
}

// many returns the numbers of n positions.
func many(n uint64) (numbers []uint64) {
	for i := range n {
		numbers = append(numbers, i, 1)
	}
	return numbers
}

// TestTokensMerge: the later position of each partition; more than a token holds are the latest
// ones.
func TestTokensMerge(t *testing.T) {
	a := Token{App: "shop", Generation: Generation, Positions: []Position{{3, 5}, {1, 2}}}
	b := Token{App: "shop", Generation: Generation, Positions: []Position{{1, 1}, {3, 6}, {7, 1}}}
	a.Merge(&b)
	if want := []Position{{1, 2}, {3, 6}, {7, 1}}; !slices.Equal(a.Positions, want) || a.Latest {
		t.Errorf("merged: %+v, want %v", a, want)
	}
	full, err := DecodeToken("shop", sealed(many(MaxPositions)...))
	if err != nil {
		t.Fatal(err)
	}
	if full.Merge(&a); full.Latest || len(full.Positions) != MaxPositions {
		t.Errorf("merged with partitions that it has: latest %v, %d positions", full.Latest, len(full.Positions))
	}
	full.Merge(&Token{Positions: []Position{{MaxPositions, 1}}})
	if got, err := DecodeToken("shop", full.Encode()); err != nil || !got.Latest || got.Positions != nil || !full.Latest {
		t.Errorf("one too many: %+v, %v, want latest", got, err)
	}
	if a.Merge(&full); !a.Latest || a.Positions != nil {
		t.Errorf("merged with latest: %+v", a)
	}
}

package entities

import (
	"strings"
	"testing"
)

// TestMurmur2IsKafkas: other tools compute an entity's slot with Kafka's own hash, whose published
// test values these are.
func TestMurmur2IsKafkas(t *testing.T) {
	for text, want := range map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := int32(murmur2(text)); got != want {
			t.Errorf("murmur2(%q) = %d, want %d", text, got, want)
		}
	}
}

// TestPartitionsAreRangesOfSlots: halving the number of partitions joins neighbours and moves
// nothing else.
func TestPartitionsAreRangesOfSlots(t *testing.T) {
	for _, id := range []string{"", "42", "apple", strings.Repeat("x", 1024)} {
		for p := 4096; p > 1; p /= 2 {
			if here, half := Partition(id, p), Partition(id, p/2); here/2 != half || int(here) >= p {
				t.Errorf("%q lies in partition %d of %d and in %d of %d", id, here, p, half, p/2)
			}
		}
	}
}

// TestParseKey: the type ends at the first slash, and both parts are needed.
func TestParseKey(t *testing.T) {
	if key, err := ParseKey("cart/a/b"); err != nil || key != (Key{Type: "cart", ID: "a/b"}) ||
		key.String() != "cart/a/b" {
		t.Errorf("cart/a/b is read as %+v, %v", key, err)
	}
	for _, wrong := range []string{"", "cart", "cart/", "/42"} {
		if _, err := ParseKey(wrong); err == nil || !strings.Contains(err.Error(), "type/id") {
			t.Errorf("%q: %v, want an error that shows the form", wrong, err)
		}
	}
}

package entities

import (
	"fmt"
	"strings"
)

// Key names one entity: its type (the persistence id) and its id within the type.
type Key struct {
	Type string
	ID   string
}

// String returns the key as it stands in the log and on the command line, type/id.
func (k Key) String() string { return k.Type + "/" + k.ID }

// ParseKey reads type/id. The type ends at the first slash; the id may contain more of them.
func ParseKey(s string) (Key, error) {
	typ, id, found := strings.Cut(s, "/")
	if !found || typ == "" || id == "" {
		return Key{}, fmt.Errorf("%q does not name an entity: write it as type/id, for example cart/42", s)
	}
	return Key{Type: typ, ID: id}, nil
}

// Slots is the number of slots into which entity ids are hashed. A partition is a contiguous range
// of slots.
const Slots = 4096

// Slot returns the slot of an entity id: murmur2(id) & 4095, with Kafka's murmur2, so that other
// tools can compute it. Entities of different types with the same id are in the same slot.
func Slot(id string) int { return int(murmur2(id) & (Slots - 1)) }

// Partition returns the partition of an entity id in a journal of the given number of partitions, a
// power of two.
func Partition(id string, partitions int) int32 {
	return int32(Slot(id) * partitions / Slots) //nolint:gosec // below 4096
}

// murmur2 is the 32-bit hash that Kafka's default partitioner uses (seed 0x9747b28c), without the
// sign bit being cleared.
func murmur2(s string) uint32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
		r    = 24
	)
	h := uint32(seed) ^ uint32(len(s)) //nolint:gosec // ids are at most 1 KiB
	for ; len(s) >= 4; s = s[4:] {
		k := uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
		k *= m
		k ^= k >> r
		k *= m
		h *= m
		h ^= k
	}
	switch len(s) {
	case 3:
		h ^= uint32(s[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(s[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(s[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	h ^= h >> 15
	return h
}

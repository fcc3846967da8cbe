package balance

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// joinData is what a worker sends when it joins, besides what every Kafka consumer sends (the topic
// and the partitions that it owns).
//
//	version (1 byte) · address · incarnation (8 bytes) · leaving (1 byte: 0 or 1)
//	· requests (uvarint)
//	· images (uvarint), each partition less the one before (uvarint), magnitude of its lag (1 byte)
//	· public address · what the worker serves; both left out, or the second, when there is nothing
//
// So an image takes two bytes, or three if partitions are far apart. Readers skip trailing fields
// that they do not know; the last two were added in that way.
type joinData struct {
	address     string
	incarnation uint64
	// leaving: the worker hands over what it owns.
	leaving bool
	// requests counts the rebalances that this worker requested: a group rebalances only if join
	// data have changed.
	requests uint64
	images   []broker.Image
	public   string
	// serves is opaque to this package.
	serves string
}

const joinVersion = 2

var errJoinData = errors.New("join data are not those of a millrace worker")

func (j joinData) encode() []byte {
	b := appendText([]byte{joinVersion}, j.address)
	b = binary.BigEndian.AppendUint64(b, j.incarnation)
	b = append(b, 0)
	if j.leaving {
		b[len(b)-1] = 1
	}
	b = binary.AppendUvarint(b, j.requests)
	b = binary.AppendUvarint(b, uint64(len(j.images)))
	before := int32(0)
	for _, i := range j.images {
		b = binary.AppendUvarint(b, uint64(i.Partition-before)) //nolint:gosec // sorted
		b = append(b, magnitude(i.Lag))
		before = i.Partition
	}
	if j.public != "" || j.serves != "" {
		b = appendText(b, j.public)
	}
	if j.serves != "" {
		b = appendText(b, j.serves)
	}
	return b
}

func decodeJoinData(b []byte) (joinData, error) {
	d := decoder{rest: b}
	if v := d.byte(); d.err == nil && v != joinVersion {
		return joinData{}, fmt.Errorf("join data have version %d, this release reads %d", v, joinVersion)
	}
	j := joinData{address: d.text(), incarnation: d.uint64(), leaving: d.byte() != 0, requests: d.uvarint()}
	partition := uint64(0)
	for range d.count(maxPartitions) {
		partition += d.uvarint()
		if partition >= maxPartitions {
			return joinData{}, errJoinData
		}
		j.images = append(j.images, broker.Image{Partition: int32(partition), Lag: lagOf(d.byte())})
	}
	if len(d.rest) > 0 {
		j.public = d.text()
	}
	if len(d.rest) > 0 {
		j.serves = d.text()
	}
	if d.err != nil {
		return joinData{}, errJoinData
	}
	return j, nil
}

// magnitude returns the number of bits of a lag. The plan needs no more precision, and broker.Warm
// is a limit between two magnitudes.
func magnitude(lag int64) byte { return byte(bits.Len64(uint64(max(0, lag)))) } //nolint:gosec // at most 63

// lagOf returns the largest lag of a magnitude.
func lagOf(magnitude byte) int64 { return int64(uint64(1)<<min(magnitude, 63) - 1) } //nolint:gosec // at most 63 bits

// imagesOf returns lags as images, ordered by partition.
func imagesOf(lags map[int32]int64) []broker.Image {
	images := make([]broker.Image, 0, len(lags))
	for _, p := range slices.Sorted(maps.Keys(lags)) {
		if p >= 0 && p < maxPartitions {
			images = append(images, broker.Image{Partition: p, Lag: lags[p]})
		}
	}
	return images
}

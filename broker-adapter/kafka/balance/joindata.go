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

// joinData are what a worker says of itself when it joins, beside what every Kafka consumer says (the topic and the partitions
// that it owns).
//
//	version (1 byte) · address · incarnation (8 bytes) · leaving (1 byte: 0 or 1) · wishes (uvarint)
//	· images (uvarint), each partition less the one before (uvarint) and magnitude of its lag (1 byte)
//	· public address · what the worker serves; both left out, or the second, when there is nothing
//
// So an image takes two bytes, three where they are far apart. Readers skip what stands behind what they know: that is how the public
// address came in, and what is served.
type joinData struct {
	address     string
	incarnation uint64
	// leaving: it hands over what it owns.
	leaving bool
	// wishes counts the balancings that this worker asked for: a group balances only if join data have changed.
	wishes uint64
	images []broker.Image
	public string
	// serves is opaque here.
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
	b = binary.AppendUvarint(b, j.wishes)
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
	j := joinData{address: d.text(), incarnation: d.uint64(), leaving: d.byte() != 0, wishes: d.uvarint()}
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

// magnitude is how many bits a lag takes. Balancing needs no more, and broker.Warm is a limit between two magnitudes.
func magnitude(lag int64) byte { return byte(bits.Len64(uint64(max(0, lag)))) } //nolint:gosec // not negative, at most 63

// lagOf is the largest lag of a magnitude.
func lagOf(magnitude byte) int64 { return int64(uint64(1)<<min(magnitude, 63) - 1) } //nolint:gosec // at most 63 bits

// imagesOf puts what a worker says of its images in order.
func imagesOf(lags map[int32]int64) []broker.Image {
	images := make([]broker.Image, 0, len(lags))
	for _, p := range slices.Sorted(maps.Keys(lags)) {
		if p >= 0 && p < maxPartitions {
			images = append(images, broker.Image{Partition: p, Lag: lags[p]})
		}
	}
	return images
}

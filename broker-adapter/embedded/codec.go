package embedded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
	"time"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// A record as stored, all in one value:
//
//	version   1 byte, recordVersion
//	checksum  4 bytes, CRC-32C of the row's key and of everything after these four
//	flags     1 byte: hasKey, hasValue (they distinguish nil from empty)
//	time      8 bytes, append time in nanoseconds since 1970
//	key       uvarint length and bytes, when hasKey
//	headers   uvarint count, then for each: uvarint length and bytes of its key, the same of its value
//	value     the rest
//
// Fixed numbers are little-endian. The checksum covers the row's key, so a record at a wrong offset
// is detected as well.
const (
	recordVersion = 1

	checksumAt = 1
	flagsAt    = checksumAt + 4
	timeAt     = flagsAt + 1
	fixedSize  = timeAt + 8

	hasKey   = 1 << 0
	hasValue = 1 << 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli) //nolint:gochecknoglobals // a constant

var (
	errChecksum = errors.New("checksum does not match")
	errMalform  = errors.New("record is malformed")
)

// encodedSize is the number of bytes that encode fills.
func encodedSize(r *broker.Record) int {
	n := fixedSize + uvarintSize(len(r.Headers)) + len(r.Value)
	if r.Key != nil {
		n += uvarintSize(len(r.Key)) + len(r.Key)
	}
	for i := range r.Headers {
		h := &r.Headers[i]
		n += uvarintSize(len(h.Key)) + len(h.Key) + uvarintSize(len(h.Value)) + len(h.Value)
	}
	return n
}

func uvarintSize(n int) int {
	return (bits.Len64(uint64(n)|1) + 6) / 7 //nolint:gosec // lengths are not negative
}

// encode fills dst, which has encodedSize bytes, with the record that goes to the row with this
// key.
func encode(dst, rowKey []byte, r *broker.Record, at int64) {
	var flags byte
	if r.Key != nil {
		flags |= hasKey
	}
	if r.Value != nil {
		flags |= hasValue
	}
	dst[0] = recordVersion
	dst[flagsAt] = flags
	binary.LittleEndian.PutUint64(dst[timeAt:], uint64(at)) //nolint:gosec // two's complement both ways
	rest := dst[fixedSize:]
	if r.Key != nil {
		rest = rest[putSized(rest, r.Key):]
	}
	rest = rest[binary.PutUvarint(rest, uint64(len(r.Headers))):]
	for i := range r.Headers {
		rest = rest[putSized(rest, r.Headers[i].Key):]
		rest = rest[putSized(rest, r.Headers[i].Value):]
	}
	copy(rest, r.Value)
	binary.LittleEndian.PutUint32(dst[checksumAt:], checksum(rowKey, dst))
}

func putSized[T string | []byte](dst []byte, v T) int {
	n := binary.PutUvarint(dst, uint64(len(v)))
	return n + copy(dst[n:], v)
}

func checksum(rowKey, row []byte) uint32 {
	return crc32.Update(crc32.Checksum(rowKey, castagnoli), castagnoli, row[flagsAt:])
}

// decoder turns rows into records. It belongs to one reader.
type decoder struct {
	// headers holds the headers of the records of a batch.
	headers []broker.Header
	// names keeps the few header names that a topic uses, so that they are not allocated for each
	// record.
	names map[string]string
}

// maxNames bounds decoder.names, maxNameBytes what is kept in it.
const (
	maxNames     = 64
	maxNameBytes = 64
)

// decode fills r from a row; r aliases the row and the decoder's headers.
func (d *decoder) decode(rowKey, row []byte, r *broker.Record) error {
	if len(row) == 0 {
		return errMalform
	}
	if row[0] != recordVersion {
		return fmt.Errorf("%w: record version %d, this millrace reads %d", errMalform, row[0], recordVersion)
	}
	if len(row) < fixedSize {
		return errMalform
	}
	if binary.LittleEndian.Uint32(row[checksumAt:]) != checksum(rowKey, row) {
		return errChecksum
	}
	flags := row[flagsAt]
	at := int64(binary.LittleEndian.Uint64(row[timeAt:])) //nolint:gosec // two's complement both ways
	*r = broker.Record{Offset: recordOffset(rowKey), Time: time.Unix(0, at)}
	rest := row[fixedSize:]
	var ok bool
	if flags&hasKey != 0 {
		if r.Key, rest, ok = takeSized(rest); !ok {
			return errMalform
		}
	}
	if r.Headers, rest, ok = d.decodeHeaders(rest); !ok {
		return errMalform
	}
	if flags&hasValue != 0 {
		r.Value = rest
	}
	return nil
}

func (d *decoder) decodeHeaders(rest []byte) ([]broker.Header, []byte, bool) {
	count, n := binary.Uvarint(rest)
	if n <= 0 || count > uint64(len(rest)) {
		return nil, nil, false
	}
	rest = rest[n:]
	first := len(d.headers)
	for range count {
		var key, value []byte
		var ok bool
		if key, rest, ok = takeSized(rest); !ok {
			return nil, nil, false
		}
		if value, rest, ok = takeSized(rest); !ok {
			return nil, nil, false
		}
		d.headers = append(d.headers, broker.Header{Key: d.name(key), Value: value})
	}
	return d.headers[first:len(d.headers):len(d.headers)], rest, true
}

// name returns b as a string, without allocation for a name that it knows.
func (d *decoder) name(b []byte) string {
	if s, ok := d.names[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(b) <= maxNameBytes && len(d.names) < maxNames {
		d.names[s] = s
	}
	return s
}

// takeSized splits off what putSized wrote.
func takeSized(b []byte) (value, rest []byte, ok bool) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) { //nolint:gosec // n bytes of b were read
		return nil, nil, false
	}
	end := n + int(size) //nolint:gosec // bounded by len(b) above
	return b[n:end:end], b[end:], true
}

package embedded

import "encoding/binary"

// The key space. Numbers are big-endian, so that the order of the keys is the order of the log.
//
//	't' name                               topicRow as JSON
//	'r' topic number, partition, offset    a record (codec.go)
//	'k' topic number, partition, key       offset of the newest record with this key; compacted topics only
//
// Topics are numbered from 1; a number is never used again.
const (
	topicPrefix  = 't'
	recordPrefix = 'r'
	newestPrefix = 'k'

	// partitionKeySize is that of a prefix, a topic number and a partition; recordKeySize has an
	// offset besides.
	partitionKeySize = 1 + 4 + 4
	recordKeySize    = partitionKeySize + 8
)

func topicKey(name string) []byte { return append([]byte{topicPrefix}, name...) }

// putRecordKey writes the key of a record into dst, which has recordKeySize bytes.
func putRecordKey(dst []byte, topic uint32, partition int32, offset int64) {
	dst[0] = recordPrefix
	binary.BigEndian.PutUint32(dst[1:], topic)
	binary.BigEndian.PutUint32(dst[5:], uint32(partition)) //nolint:gosec // partitions are never negative
	binary.BigEndian.PutUint64(dst[9:], uint64(offset))    //nolint:gosec // offsets are never negative here
}

func recordKey(topic uint32, partition int32, offset int64) []byte {
	key := make([]byte, recordKeySize)
	putRecordKey(key, topic, partition, offset)
	return key
}

// recordOffset is the offset in a record's key.
func recordOffset(key []byte) int64 {
	return int64(binary.BigEndian.Uint64(key[partitionKeySize:])) //nolint:gosec // written by putRecordKey
}

// newestKey is the key of the row that finds the newest record of a key.
func newestKey(topic uint32, partition int32, key []byte) []byte {
	row := make([]byte, partitionKeySize, partitionKeySize+len(key))
	row[0] = newestPrefix
	binary.BigEndian.PutUint32(row[1:], topic)
	binary.BigEndian.PutUint32(row[5:], uint32(partition)) //nolint:gosec // partitions are never negative
	return append(row, key...)
}

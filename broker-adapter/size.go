package broker

import "slices"

// The most that an append takes beyond its keys, values and headers in any log, in bytes: the
// overhead of Kafka's record batches, with every length and number at its longest.
const (
	// AppendOverhead counts once for each append, RecordOverhead for each record, HeaderOverhead
	// for each header.
	AppendOverhead = 61
	RecordOverhead = 5 + 1 + 10 + 5 + 5 + 5 + 5 // length, attributes, time, offset, lengths of key, value and headers
	HeaderOverhead = 5 + 5                      // lengths of key and value
)

// LacksKey reports whether one of the records has no key, so that a compacted topic refuses them.
func LacksKey(records []Record) bool {
	return slices.ContainsFunc(records, func(r Record) bool { return r.Key == nil })
}

// Size returns the size of an append of these records in bytes, to be compared with
// TopicInfo.MaxAppendBytes. All logs count in the same way, so a caller knows the size beforehand.
func Size(records []Record) int {
	n := AppendOverhead
	for i := range records {
		r := &records[i]
		n += RecordOverhead + len(r.Key) + len(r.Value)
		for j := range r.Headers {
			n += HeaderOverhead + len(r.Headers[j].Key) + len(r.Headers[j].Value)
		}
	}
	return n
}

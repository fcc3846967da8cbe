package broker

// The bytes that an append takes beyond its keys, values and headers, at most, in any log: those of Kafka's record batches,
// with every length and number at its longest.
const (
	// AppendOverhead is once for each append, RecordOverhead for each record, HeaderOverhead for each header.
	AppendOverhead = 61
	RecordOverhead = 5 + 1 + 10 + 5 + 5 + 5 + 5 // length, attributes, time, offset, lengths of key, value and headers
	HeaderOverhead = 5 + 5                      // lengths of key and value
)

// Size returns the bytes by which an append of these records is held against TopicInfo.MaxAppendBytes. All logs count alike,
// so that a caller can tell beforehand what an append will be: no log needs more than this.
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

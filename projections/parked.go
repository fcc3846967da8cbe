package projections

import "bytes"

// Parked returns the parked entities of a dataset in a partition, in the order of their ids, from
// after one on and at most limit of them; "" is the beginning. Errors are *NotHereError and those
// of the store.
func (e *Engine) Parked(dataset uint32, partition int32, after string, limit int) ([]Parked, error) {
	p := e.partition(partition)
	if p == nil {
		return nil, &NotHereError{dataset, partition, Absent, "the worker has no image of the partition"}
	}
	p.mu.Lock()
	s := p.shown[dataset]
	p.mu.Unlock()
	if s == nil || s.store == nil {
		return nil, &NotHereError{dataset, partition, Absent, "it is not defined, was dropped, or has not begun"}
	}
	d := Dataset{Address: p.address, Number: dataset}
	lower, upper := d.KindRange(KindParked)
	if after != "" {
		lower = append(d.ParkedKey(nil, after), 0)
	}
	var parked []Parked
	var failed error
	err := s.store.Scan(lower, upper, func(_, value []byte) bool {
		var one Parked
		if one, failed = parseParked(bytes.Clone(value)); failed == nil {
			parked = append(parked, one)
		}
		return failed == nil && len(parked) < limit
	})
	if err == nil {
		err = failed
	}
	return parked, err
}

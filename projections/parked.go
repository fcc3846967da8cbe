package projections

import (
	"bytes"
)

// Parked returns the parked entities of a dataset in a partition, in the order of their ids, from
// after one on and at most limit of them; "" is the beginning. Of a dataset that has stopped the
// record at which it did so is the first one. Errors are *NotHereError and those of the store.
func (e *Engine) Parked(dataset uint32, partition int32, after string, limit int) ([]Parked, error) {
	s, d, err := e.shownOf(dataset, partition)
	if err != nil {
		return nil, err
	}
	lower, upper := d.KindRange(KindParked)
	var parked []Parked
	switch {
	case after != "":
		lower = append(d.ParkedKey(nil, after), 0)
	case s.position.stopped:
		parked = append(parked, s.position.stoppedAt())
	}
	var failed error
	err = s.store.Scan(lower, upper, func(_, value []byte) bool {
		if len(parked) >= limit {
			return false
		}
		var one Parked
		if one, failed = parseParked(bytes.Clone(value)); failed == nil {
			parked = append(parked, one)
		}
		return failed == nil
	})
	if err == nil {
		err = failed
	}
	return parked, err
}

// ParkedAt returns what a record of a partition has parked, or stopped; nil if it has not. Errors
// are those of Parked.
func (e *Engine) ParkedAt(dataset uint32, partition int32, offset int64) (*Parked, error) {
	s, d, err := e.shownOf(dataset, partition)
	if err != nil {
		return nil, err
	}
	if s.position.stopped && s.position.failed.Offset == offset {
		one := s.position.stoppedAt()
		return &one, nil
	}
	lower, upper := d.KindRange(KindParked)
	var found *Parked
	var failed error
	err = s.store.Scan(lower, upper, func(_, value []byte) bool {
		var one Parked
		if one, failed = parseParked(bytes.Clone(value)); failed == nil && one.Offset == offset {
			found = &one
		}
		return failed == nil && found == nil
	})
	if err == nil {
		err = failed
	}
	return found, err
}

// shownOf returns what callers see of a dataset of a partition that has a store.
func (e *Engine) shownOf(dataset uint32, partition int32) (*shown, Dataset, error) {
	p := e.partition(partition)
	if p == nil {
		return nil, Dataset{}, &NotHereError{dataset, partition, Absent, "the worker has no image of the partition"}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.shown[dataset]
	if s == nil || s.store == nil {
		return nil, Dataset{}, &NotHereError{dataset, partition, Absent, "it is not defined, was dropped, or has not begun"}
	}
	return s, Dataset{Address: p.address, Number: dataset}, nil
}

// stoppedAt is the record at which a dataset has stopped.
func (p *position) stoppedAt() Parked {
	return Parked{Offset: p.failed.Offset, Entity: p.failed.Entity, Text: p.failed.Text, Stopped: true}
}

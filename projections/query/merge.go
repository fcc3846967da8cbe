package query

import (
	"bytes"
	"context"
	"fmt"
)

// scan reads the plan's span in all its partitions and gives the entries to each, in their order,
// until it returns false. more says that there are entries behind the last one. An entry is valid
// during the call.
func (c *call) scan(ctx context.Context, limit int, each func(*Entry) (goesOn bool, err error)) (more bool, err error) {
	if c.plan.span.none {
		return false, nil
	}
	var scans []*Scan
	for _, partition := range c.partitions() {
		scans = append(scans, &Scan{
			Dataset: c.method.p.view.Dataset, Partition: partition, Table: c.plan.table, Number: c.plan.number,
			Lower: c.plan.span.lower, Upper: c.plan.span.upper, Reverse: c.plan.reverse, Limit: limit,
		})
	}
	opened, err := c.open(ctx, scans)
	defer func() {
		for _, rows := range opened {
			if rows != nil {
				rows.Close()
			}
		}
	}()
	if err != nil {
		return false, err
	}
	m := &merger{reverse: c.plan.reverse}
	for i := range opened {
		if err := m.add(ctx, &source{call: c, scan: scans[i], rows: &opened[i]}); err != nil {
			return false, err
		}
	}
	for goesOn := true; len(m.heads) > 0; {
		if !goesOn {
			return true, nil
		}
		if err := ctx.Err(); err != nil {
			return false, err
		}
		c.examined++
		if goesOn, err = each(m.heads[0].entry); err != nil {
			return false, err
		}
		if err := m.next(ctx); err != nil {
			return false, err
		}
	}
	return false, nil
}

// merger returns the entries of several partitions in the order of their tuples. heads is a heap of
// those that have one, the first tuple first. No two partitions have the same tuple, because the
// entity id is part of it.
type merger struct {
	heads   []head
	reverse bool
}

type head struct {
	source *source
	entry  *Entry
}

// maxReopens is how often a partition is opened again during a scan.
const maxReopens = 3

// source is a partition that is scanned. If its rows end with an error, as when their worker dies,
// it goes on behind the last entry with those of another replica.
type source struct {
	call    *call
	scan    *Scan
	rows    *Rows // the caller closes it
	last    []byte
	reopens int
}

func (s *source) next(ctx context.Context) (*Entry, error) {
	for {
		entry, err := (*s.rows).Next(ctx)
		if err == nil {
			if entry != nil {
				s.last = append(s.last[:0], entry.Tuple...)
			}
			return entry, nil
		}
		if s.reopens++; s.reopens > maxReopens || ctx.Err() != nil {
			return nil, err
		}
		if err := s.reopen(ctx, err); err != nil {
			return nil, err
		}
	}
}

// reopen opens the rest of the scan, at no earlier moment.
func (s *source) reopen(ctx context.Context, cause error) error {
	rest := *s.scan
	rest.Reach = max(rest.Reach, (*s.rows).At().Position)
	if s.last != nil {
		left := span{lower: rest.Lower, upper: rest.Upper}
		left.after(bytes.Clone(s.last), rest.Reverse)
		rest.Lower, rest.Upper = left.lower, left.upper
	}
	waiting, cancel := context.WithTimeout(ctx, s.call.demand.wait)
	defer cancel()
	rows, err := s.call.service.o.Executor.Open(waiting, &rest)
	if err != nil {
		return fmt.Errorf("%w; it was asked for again after: %w", err, cause)
	}
	(*s.rows).Close()
	*s.rows = rows
	s.call.include(reading{rest.Partition, rows.At()})
	return nil
}

func (m *merger) before(i, j int) bool {
	order := bytes.Compare(m.heads[i].entry.Tuple, m.heads[j].entry.Tuple)
	if m.reverse {
		return order > 0
	}
	return order < 0
}

// add takes a partition in.
func (m *merger) add(ctx context.Context, s *source) error {
	entry, err := s.next(ctx)
	if err != nil || entry == nil {
		return err
	}
	m.heads = append(m.heads, head{s, entry})
	for i := len(m.heads) - 1; i > 0; {
		parent := (i - 1) / 2
		if !m.before(i, parent) {
			break
		}
		m.heads[i], m.heads[parent] = m.heads[parent], m.heads[i]
		i = parent
	}
	return nil
}

// next passes the first entry.
func (m *merger) next(ctx context.Context) error {
	entry, err := m.heads[0].source.next(ctx)
	if err != nil {
		return err
	}
	if m.heads[0].entry = entry; entry == nil {
		last := len(m.heads) - 1
		m.heads[0] = m.heads[last]
		m.heads = m.heads[:last]
	}
	for i := 0; ; {
		first := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(m.heads); child++ {
			if m.before(child, first) {
				first = child
			}
		}
		if first == i {
			return nil
		}
		m.heads[i], m.heads[first] = m.heads[first], m.heads[i]
		i = first
	}
}

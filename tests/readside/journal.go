package readside

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
)

// Record is a record of a journal that takes effect.
type Record struct {
	Offset int64
	Kind   record.Kind
	Entity entities.Key
	// Type is the full name of the message in Value.
	Type  string
	Value []byte
	Time  time.Time
}

// Partition are the records of a partition that take effect, in the order of the log.
type Partition struct {
	Records []Record
	// Next is the offset after the last record, Void how many do not take effect.
	Next int64
	Void int
}

// Read reads all of a topic by the reader rule, partition by partition.
func Read(ctx context.Context, log broker.Log, topic string) ([]Partition, error) {
	info, err := log.Describe(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("describe %s: %w", topic, err)
	}
	partitions := make([]Partition, info.Partitions)
	for id := range info.Partitions {
		at := broker.Partition{Topic: topic, ID: id}
		if partitions[id], err = readPartition(ctx, log, at); err != nil {
			return nil, fmt.Errorf("read partition %d of %s: %w", id, topic, err)
		}
	}
	return partitions, nil
}

func readPartition(ctx context.Context, log broker.Log, at broker.Partition) (p Partition, err error) {
	end, err := log.End(ctx, at)
	if err != nil {
		return p, err
	}
	reader, err := log.Read(at, 0)
	if err != nil {
		return p, err
	}
	defer reader.Close() //nolint:errcheck // only read
	s := scan{partition: &p}
	for p.Next < end {
		batch, err := reader.Next(ctx)
		if err != nil {
			return p, err
		}
		for i := range batch.Records {
			if err := s.add(&batch.Records[i]); err != nil {
				return p, err
			}
		}
		p.Next = batch.Next
	}
	return p, nil
}

// scan finds the records that take effect.
type scan struct {
	partition *Partition
	rule      record.Rule
	parser    record.Parser
	group     []Record
}

func (s *scan) add(r *broker.Record) error {
	var e record.Envelope
	if s.parser.Parse(r.Header(record.HeaderKey), &e) != nil {
		s.partition.Void++
		return nil //nolint:nilerr // no record of ours
	}
	verdict, dropped := s.rule.Step(&e)
	if dropped {
		s.partition.Void += len(s.group)
		s.group = nil
	}
	switch verdict {
	case record.Void:
		s.partition.Void++
	case record.Pending, record.Complete:
		key, err := entities.ParseKey(string(r.Key))
		if err != nil {
			return fmt.Errorf("offset %d: %w", r.Offset, err)
		}
		s.group = append(s.group, Record{
			Offset: r.Offset, Kind: e.Kind, Entity: key, Value: bytes.Clone(r.Value),
			Type: strings.TrimPrefix(e.TypeURL, "type.googleapis.com/"), Time: time.Unix(0, e.LogTime),
		})
		if verdict == record.Complete {
			s.partition.Records = append(s.partition.Records, s.group...)
			s.group = nil
		}
	case record.Foreign, record.Claimed, record.Control:
	}
	return nil
}

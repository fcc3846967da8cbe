package partitions

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
)

// This file finds out, before anything is owned, by which layout the data of a journal was written (ADR 18). What decides is the first
// layout in the log of partition 0, which every number of partitions has: a log puts what several workers write at once in one order.
// The worker that finds none writes its own there, as a claim of epoch 0, which no reader takes for an ownership.

// maxAdded is how many records of a partition that holds no data are looked at.
const maxAdded = 10_000

// Settlement is a journal whose layout is to be settled.
type Settlement struct {
	Log    broker.Log
	Topic  broker.TopicInfo
	Layout entities.Layout
	// Given: the number of partitions was asked for. Then it may be smaller than the topic's, where the rest holds nothing.
	Given bool
	// Stored: the store was folded from this topic by this layout, so that the log need not be asked.
	Stored bool
	// Worker and Nonce name the writer of a declaration.
	Worker string
	Nonce  uint64
}

// Settle makes sure that the journal's data is of the layout, and declares it in a journal without data. The error names both layouts and
// the remedy; then nothing was written.
func (s *Settlement) Settle(ctx context.Context) error {
	if !s.Log.SingleProcess() && !s.Stored {
		found, ok, err := s.declared(ctx, 0)
		if err == nil && !ok {
			found, err = s.declare(ctx)
		}
		if err != nil {
			return err
		}
		if err := s.Layout.Differs(found, "the journal in topic "+s.Topic.Name); err != nil {
			return err
		}
	}
	if err := s.Layout.Check(); err != nil {
		return fmt.Errorf("topic %s has %w", s.Topic.Name, err)
	}
	if err := CheckPartitions(s.Layout, s.Topic, s.Given); err != nil {
		return err
	}
	return s.checkAdded(ctx)
}

// declared returns the first layout in the log of partition 0; ok is false if there is none up to its end, which is at least at until.
func (s *Settlement) declared(ctx context.Context, until int64) (found entities.Layout, ok bool, err error) {
	err = s.read(ctx, 0, until, func(r *materializer.Read) bool {
		if c := r.Envelope.Claim; r.Envelope.Kind == record.Claim && c != nil && c.Layout != (entities.Layout{}) {
			found, ok = c.Layout, true
		}
		return !ok
	})
	return found, ok, err
}

// read hands the records of a partition to each until that returns false, up to the end of the log, which is at least at until.
func (s *Settlement) read(ctx context.Context, partition int32, until int64, each func(*materializer.Read) bool) error {
	from, end, err := s.bounds(ctx, partition)
	if end = max(end, until); err != nil || from >= end {
		return err
	}
	p := broker.Partition{Topic: s.Topic.Name, ID: partition}
	reader, err := s.Log.Read(p, from)
	if err != nil {
		return fmt.Errorf("read partition %d of topic %s: %w", partition, p.Topic, err)
	}
	defer reader.Close() //nolint:errcheck // only read

	address := materializer.Address{Generation: s.Layout.Generation, Partition: uint16(partition)} //nolint:gosec // at most 4096
	for r, err := range materializer.Browse(reader, address, from).Until(ctx, end) {
		switch {
		case r == nil:
			return fmt.Errorf("topic %s: %w", p.Topic, err)
		case !each(r):
			return nil
		}
	}
	return nil
}

func (s *Settlement) bounds(ctx context.Context, partition int32) (start, end int64, err error) {
	p := broker.Partition{Topic: s.Topic.Name, ID: partition}
	if start, err = s.Log.Start(ctx, p); err == nil {
		end, err = s.Log.End(ctx, p)
	}
	if err != nil {
		err = fmt.Errorf("ask for the records of partition %d of topic %s: %w", partition, p.Topic, err)
	}
	return start, end, err
}

// declare writes the layout into a journal that has none, and returns the first one that stands there then: another worker may have been
// quicker.
func (s *Settlement) declare(ctx context.Context) (entities.Layout, error) {
	if err := s.mayDeclare(ctx); err != nil {
		return entities.Layout{}, err
	}
	env := record.Envelope{Kind: record.Claim, Nonce: s.Nonce, Claim: &record.ClaimInfo{Worker: s.Worker, Layout: s.Layout}}
	acked := make(chan broker.AppendResult, 1)
	s.Log.Append(broker.Partition{Topic: s.Topic.Name}, []broker.Record{{Headers: []broker.Header{{Key: record.HeaderKey, Value: env.Append(nil)}}}}, func(r broker.AppendResult) { acked <- r })
	var result broker.AppendResult
	select {
	case result = <-acked:
	case <-ctx.Done():
		result.Err = context.Cause(ctx)
	}
	if result.Err != nil {
		return entities.Layout{}, fmt.Errorf("declare the layout of topic %s: %w", s.Topic.Name, result.Err)
	}
	found, ok, err := s.declared(ctx, result.Last+1)
	if err == nil && !ok {
		err = fmt.Errorf("declare the layout of topic %s: %w: the log does not show what it has acknowledged", s.Topic.Name, broker.ErrRegressed)
	}
	return found, err
}

// mayDeclare looks at a journal without a layout. Without records it is of as many partitions as the topic has. With records it was
// written by an older version, which wrote a claim to every partition: those without a record were added since.
func (s *Settlement) mayDeclare(ctx context.Context) error {
	if err := s.Layout.Check(); err != nil {
		return fmt.Errorf("topic %s has %w", s.Topic.Name, err)
	}
	written, err := s.written(ctx)
	if err != nil {
		return err
	}
	used := int32(0)
	for p, has := range written {
		if has {
			used = int32(p) + 1
		}
	}
	switch complete := !slices.Contains(written[:used], false); {
	case used == 0 && s.Topic.Partitions != s.Layout.Partitions:
		return fmt.Errorf("topic %s has %d partitions, not %d: leave --partitions out", s.Topic.Name, s.Topic.Partitions, s.Layout.Partitions)
	case used == 0, used == s.Layout.Partitions && complete, s.Given && used <= s.Layout.Partitions:
		return nil
	case complete && entities.LayoutOf(s.Layout.App, used).Check() == nil:
		found := s.Layout
		found.Partitions = used
		return s.Layout.Differs(found, fmt.Sprintf("the journal in topic %s, of whose %d partitions only the first %d have records,", s.Topic.Name, s.Topic.Partitions, used))
	default:
		return fmt.Errorf("%w: the journal in topic %s does not say how many partitions its data is of, and of the topic's %d only some up to number %d have records: "+
			"start with --partitions and the number that the topic was created with", entities.ErrLayout, s.Topic.Name, s.Topic.Partitions, used-1)
	}
}

// askedAtOnce bounds the questions to the log that are under way.
const askedAtOnce = 16

// written says of each partition of the topic whether the log ever had a record of it.
func (s *Settlement) written(ctx context.Context) ([]bool, error) {
	written, errs := make([]bool, s.Topic.Partitions), make([]error, s.Topic.Partitions)
	var asked sync.WaitGroup
	places := make(chan struct{}, askedAtOnce)
	for p := range s.Topic.Partitions {
		places <- struct{}{}
		asked.Go(func() { // bounded by its two questions; waited for below
			defer func() { <-places }()
			_, end, err := s.bounds(ctx, p)
			written[p], errs[p] = end > 0, err
		})
	}
	asked.Wait()
	return written, errors.Join(errs...)
}

// checkAdded makes sure that the partitions beyond the layout hold nothing that an entity is made of.
func (s *Settlement) checkAdded(ctx context.Context) error {
	for p := s.Layout.Partitions; p < s.Topic.Partitions; p++ {
		count, why := 0, ""
		err := s.read(ctx, p, 0, func(r *materializer.Read) bool {
			kind := r.Envelope.Kind
			switch count++; {
			case r.Foreign == nil && kind != record.Claim && kind != record.Barrier && kind != record.Release:
				why = fmt.Sprintf("has a %s record at offset %d", kind, r.Offset)
			case count == maxAdded:
				why = fmt.Sprintf("has more than %d records", maxAdded)
			}
			return why == ""
		})
		if err == nil && why != "" {
			err = fmt.Errorf("%w: the data is of %d partitions, and partition %d %s: it cannot be left out. Some worker wrote by another number of partitions; "+
				"look at it with `millrace log tail --partition %d`, and delete its records (kafka-delete-records.sh) if they may be lost",
				entities.ErrLayout, s.Layout.Partitions, p, why, p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/plural"
	"github.com/millrace-io/millrace/materializer"
)

// This file finds out, before anything is owned, which layout the data of a journal has (ADR 18).
// The first layout in the log of partition 0 decides, because every number of partitions has that
// partition, and a log puts what several workers write at once in one order. A worker that finds
// none writes its own there, as a claim of epoch 0, which no reader takes for an ownership.

// maxAdded is how many records of a partition without data are read.
const maxAdded = 10_000

// Declaration is the layout that a worker wants to use, and the journal that it is compared with or
// declared in.
type Declaration struct {
	Log    broker.Log
	Topic  broker.TopicInfo
	Layout entities.Layout
	// Given: the number of partitions was asked for. Then it may be smaller than the topic's, if the
	// other partitions hold nothing.
	Given bool
	// Stored: the store was folded from this topic with this layout, so that the log need not be read.
	Stored bool
	// Worker and Nonce name the writer of a declaration.
	Worker string
	Nonce  uint64
}

// Ensure makes sure that the journal's data has the layout, and declares it in a journal without
// data. An error names both layouts and the remedy; then nothing was written.
func (d *Declaration) Ensure(ctx context.Context) error {
	if !d.Log.SingleProcess() && !d.Stored {
		found, ok, err := d.declared(ctx, 0)
		if err == nil && !ok {
			found, err = d.declare(ctx)
		}
		if err != nil {
			return err
		}
		if err := d.Layout.Differs(found, "the journal in topic "+d.Topic.Name); err != nil {
			return err
		}
	}
	if err := d.Layout.Check(); err != nil {
		return fmt.Errorf("topic %s has %w", d.Topic.Name, err)
	}
	if err := CheckPartitions(d.Layout, d.Topic, d.Given); err != nil {
		return err
	}
	return d.checkAdded(ctx)
}

// declared returns the first layout in the log of partition 0; ok is false if there is none up to
// its end, which is at least at until.
func (d *Declaration) declared(ctx context.Context, until int64) (found entities.Layout, ok bool, err error) {
	err = d.read(ctx, 0, until, func(r *materializer.Read) bool {
		if c := r.Envelope.Claim; r.Envelope.Kind == record.Claim && c != nil && c.Layout != (entities.Layout{}) {
			found, ok = c.Layout, true
		}
		return !ok
	})
	return found, ok, err
}

// read passes the records of a partition to each until that returns false, up to the end of the
// log, which is at least at until.
func (d *Declaration) read(
	ctx context.Context, partition int32, until int64, each func(*materializer.Read) bool,
) error {
	from, end, err := d.bounds(ctx, partition)
	if end = max(end, until); err != nil || from >= end {
		return err
	}
	p := broker.Partition{Topic: d.Topic.Name, ID: partition}
	reader, err := d.Log.Read(p, from)
	if err != nil {
		return fmt.Errorf("read partition %d of topic %s: %w", partition, p.Topic, err)
	}
	defer reader.Close() //nolint:errcheck // only read

	address := materializer.Address{Generation: d.Layout.Generation, Partition: uint16(partition)} //nolint:gosec // at most 4096
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

func (d *Declaration) bounds(ctx context.Context, partition int32) (start, end int64, err error) {
	p := broker.Partition{Topic: d.Topic.Name, ID: partition}
	if start, err = d.Log.Start(ctx, p); err == nil {
		end, err = d.Log.End(ctx, p)
	}
	if err != nil {
		err = fmt.Errorf("ask for the records of partition %d of topic %s: %w", partition, p.Topic, err)
	}
	return start, end, err
}

// declare writes the layout into a journal that has none, and returns the first one that stands
// there then: another worker may have been faster.
func (d *Declaration) declare(ctx context.Context) (entities.Layout, error) {
	if err := d.mayDeclare(ctx); err != nil {
		return entities.Layout{}, err
	}
	env := record.Envelope{
		Kind: record.Claim, Nonce: d.Nonce, Claim: &record.ClaimInfo{Worker: d.Worker, Layout: d.Layout},
	}
	acked := make(chan broker.AppendResult, 1)
	declaration := broker.Record{Headers: []broker.Header{{Key: record.HeaderKey, Value: env.Append(nil)}}}
	d.Log.Append(broker.Partition{Topic: d.Topic.Name}, []broker.Record{declaration},
		func(r broker.AppendResult) { acked <- r })
	var result broker.AppendResult
	select {
	case result = <-acked:
	case <-ctx.Done():
		result.Err = context.Cause(ctx)
	}
	if result.Err != nil {
		return entities.Layout{}, fmt.Errorf("declare the layout of topic %s: %w", d.Topic.Name, result.Err)
	}
	found, ok, err := d.declared(ctx, result.Last+1)
	if err == nil && !ok {
		err = fmt.Errorf("declare the layout of topic %s: %w: the log does not show what it has acknowledged",
			d.Topic.Name, broker.ErrRegressed)
	}
	return found, err
}

// mayDeclare checks a journal without a layout. Without records it has as many partitions as the
// topic. With records it was written by an older version, which wrote a claim to every partition:
// those without a record were added since.
func (d *Declaration) mayDeclare(ctx context.Context) error {
	if err := d.Layout.Check(); err != nil {
		return fmt.Errorf("topic %s has %w", d.Topic.Name, err)
	}
	written, err := d.written(ctx)
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
	case used == 0 && d.Topic.Partitions != d.Layout.Partitions:
		return fmt.Errorf("topic %s has %s, not %d: leave --partitions out",
			d.Topic.Name, plural.Of(d.Topic.Partitions, "partition"), d.Layout.Partitions)
	case used == 0, used == d.Layout.Partitions && complete, d.Given && used <= d.Layout.Partitions:
		return nil
	case complete && entities.LayoutOf(d.Layout.App, used).Check() == nil:
		found := d.Layout
		found.Partitions = used
		return d.Layout.Differs(found, fmt.Sprintf("the journal in topic %s, which has records in %d of %s,", d.Topic.Name,
			used, plural.Of(d.Topic.Partitions, "partition")))
	default:
		return fmt.Errorf("%w: the journal in topic %s does not say with how many partitions it was written, and of the topic's %d only some up to number %d have records: "+
			"start with --partitions and the number that the topic was created with",
			entities.ErrLayout, d.Topic.Name, d.Topic.Partitions, used-1)
	}
}

// askedAtOnce bounds the questions to the log that are under way.
const askedAtOnce = 16

// written reports for each partition of the topic whether the log ever had a record of it.
func (d *Declaration) written(ctx context.Context) ([]bool, error) {
	written, errs := make([]bool, d.Topic.Partitions), make([]error, d.Topic.Partitions)
	var asked sync.WaitGroup
	places := make(chan struct{}, askedAtOnce)
	for p := range d.Topic.Partitions {
		places <- struct{}{}
		asked.Go(func() { // bounded by its two questions; waited for below
			defer func() { <-places }()
			_, end, err := d.bounds(ctx, p)
			written[p], errs[p] = end > 0, err
		})
	}
	asked.Wait()
	return written, errors.Join(errs...)
}

// checkAdded makes sure that the partitions beyond the layout hold nothing that entities are made
// of.
func (d *Declaration) checkAdded(ctx context.Context) error {
	for p := d.Layout.Partitions; p < d.Topic.Partitions; p++ {
		count, why := 0, ""
		err := d.read(ctx, p, 0, func(r *materializer.Read) bool {
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
			err = fmt.Errorf("%w: the data was written with %s, and partition %d %s: it cannot be left out. A worker wrote with another number of partitions; "+
				"look at it with `millrace log tail --partition %d`, and delete its records (kafka-delete-records.sh) if they may be lost",
				entities.ErrLayout, plural.Of(d.Layout.Partitions, "partition"), p, why, p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

package materializer

import (
	"context"
	"fmt"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
)

// Image is the copy of one partition in a worker's store, and the journal that it is folded from.
// The fields are set when it is made, and do not change.
type Image struct {
	Log broker.Log
	// Journal is the partition of the topic, TopicID the id that the log gave the topic, Layout
	// that of the journal.
	Journal broker.Partition
	TopicID string
	Layout  entities.Layout

	Store   Store
	Address Address

	// Rebuilds bounds how many partitions of a worker are read in bulk at a time: a reader puts a
	// value into it first.
	Rebuilds chan struct{}
	// Progress is called with the progress of a catch-up; it may be nil.
	Progress func(Progress)
}

// View returns the image's rows.
func (i *Image) View() Partition { return Partition{Rows: i.Store, Address: i.Address} }

// Start returns the offset of the first record that the log has.
func (i *Image) Start(ctx context.Context) (int64, error) {
	start, err := i.Log.Start(ctx, i.Journal)
	if err != nil {
		return 0, fmt.Errorf("ask for the start of %s: %w", i.Address, err)
	}
	return start, nil
}

// End returns the log's end.
func (i *Image) End(ctx context.Context) (int64, error) {
	end, err := i.Log.End(ctx, i.Journal)
	if err != nil {
		return 0, fmt.Errorf("ask for the end of %s: %w", i.Address, err)
	}
	return end, nil
}

// Read begins to read the log at an offset.
func (i *Image) Read(from int64) (broker.Reader, error) {
	reader, err := i.Log.Read(i.Journal, from)
	if err != nil {
		return nil, fmt.Errorf("read %s from offset %d: %w", i.Address, from, err)
	}
	return reader, nil
}

// AwaitRebuild waits until there is room for another partition that is read in bulk. The caller
// ends its reading with done.
func (i *Image) AwaitRebuild(ctx context.Context) (done func(), err error) {
	select {
	case i.Rebuilds <- struct{}{}:
		return func() { <-i.Rebuilds }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Losses returns what the log, up to end, has lost of what the store was folded from, of which meta
// is the position; err says that it could not be read. progress is called with the position; it may
// be nil.
func (i *Image) Losses(ctx context.Context, meta *Meta, end int64, progress func(next int64)) (loss, err error) {
	start, err := i.Start(ctx)
	if err != nil {
		return nil, err
	}
	if start > meta.Start {
		return fmt.Errorf("%w: it begins at offset %d", ErrLost, start), nil
	}
	reader, err := i.Read(meta.Start)
	if err != nil {
		return nil, err
	}
	defer reader.Close() //nolint:errcheck // only read
	found, err := NewJournal(reader, i.Address, i.TopicID, MetaFrom(i.TopicID, meta.Start)).Inspect(ctx, end, progress)
	if found.Loss != nil {
		return found.Loss, nil
	}
	return nil, err
}

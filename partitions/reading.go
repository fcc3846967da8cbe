package partitions

import (
	"bytes"
	"context"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
)

// This file runs what reads in the background for a partition, and reports to its loop.

// catchUp reads the log to its end, or to where its owner has released the partition.
func (p *Partition) catchUp(ctx context.Context, incarnation uint64, handedOver bool) {
	owner, next, err := p.replica.CatchUp(ctx, handedOver)
	if err != nil {
		p.post(inFailed{incarnation: incarnation, fail: err})
		return
	}
	p.post(inCaughtUp{owner: owner, next: next})
}

// readBack folds up to and including the claim, and passes the owner at that point to the core.
func (p *Partition) readBack(ctx context.Context, incarnation uint64, claim int64) {
	switch fold, next, err := p.replica.ReadBack(ctx, claim); {
	case err != nil:
		p.post(inFailed{incarnation: incarnation, fail: err})
	case fold != nil:
		p.post(inReadBack{incarnation: incarnation, owner: fold.Owner(), next: next, fold: fold})
	}
}

// surveyed examines store and log for a repair.
func (p *Partition) surveyed(ctx context.Context, incarnation uint64, choice materializer.Choice) {
	s, err := p.repair.Survey(ctx, choice)
	p.post(inSurveyed{incarnation: incarnation, survey: s, fail: err})
}

// restored folds the records that a repair has appended, and finds what it writes next.
func (p *Partition) restored(ctx context.Context, incarnation uint64, choice materializer.Choice, until int64) {
	page, err := p.repair.Restore(ctx, choice, until)
	p.post(inRestored{incarnation: incarnation, owner: page.Owner, page: page.Entries, restored: page.Restored, fail: err})
}

// readGap reads the records that stand where the owner's own were expected: from (inclusive) to
// until (exclusive).
func (p *Partition) readGap(ctx context.Context, incarnation uint64, from, until int64) {
	gap, err := p.gap(ctx, from, until)
	p.post(inGapRead{incarnation: incarnation, gap: gap, fail: err})
}

func (p *Partition) gap(ctx context.Context, from, until int64) ([]materializer.GapRecord, error) {
	reader, err := p.image.Read(from)
	if err != nil {
		return nil, err
	}
	defer reader.Close() //nolint:errcheck // only read
	var gap []materializer.GapRecord
	for r, err := range materializer.Browse(reader, p.image.Address, from).Until(ctx, until) {
		if r == nil {
			return nil, err
		}
		if r.Offset >= until {
			break
		}
		e := r.Clone()
		gap = append(gap, materializer.GapRecord{Envelope: e.Envelope, Foreign: r.Foreign != nil, Record: broker.Record{
			Key: e.Key, Value: e.Value, Offset: e.Offset, Time: r.Record.Time,
			Headers: []broker.Header{{Key: record.HeaderKey, Value: bytes.Clone(r.Record.Header(record.HeaderKey))}},
		}})
	}
	return gap, nil
}

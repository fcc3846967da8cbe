package main

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"
)

// The numbers of entities between which throughput should stay flat.
const (
	fewEntities  = 10_000
	manyEntities = 1_000_000
	sizeClients  = 64
	fillClients  = 256
	// fillRound is long enough that some calls end in each, also while the disk is busy.
	fillRound = 5 * time.Second
)

// size measures throughput with few and with many entities, the memory of passive entities, and how
// fast a deleted store is rebuilt.
func (b *bench) size(ctx context.Context) error {
	empty, err := b.startMillrace(ctx, "empty")
	if err != nil {
		return err
	}
	nothing := settled(empty)
	empty.stop()

	if err := b.flat(ctx); err != nil {
		return err
	}
	began := time.Now()
	server, err := b.startMillrace(ctx, "many")
	if err != nil {
		return err
	}
	warm := time.Since(began)
	b.figures.single("memory of 10^6 passive entities", "MiB", float64(settled(server)-nothing)/(1<<20))
	server.stop()
	return b.rebuild(ctx, warm)
}

// flat measures increments evenly spread over all entities of two workers, one with few and one
// with many, in turns, because processor speed varies.
func (b *bench) flat(ctx context.Context) error {
	few, err := b.filled(ctx, "few", fewEntities)
	if err != nil {
		return err
	}
	defer few.stop()
	many, err := b.filled(ctx, "many", manyEntities)
	if err != nil {
		return err
	}
	defer many.stop()
	var overFew, overMany []round
	for range b.rounds {
		for _, load := range []struct {
			server   *process
			entities int
			rounds   *[]round
		}{{few, fewEntities, &overFew}, {many, manyEntities, &overMany}} {
			r, err := drive(ctx, sizeClients, nil, b.warm, b.length, []*process{load.server},
				increments(load.server.address, spread(load.entities)))
			if err != nil {
				return err
			}
			*load.rounds = append(*load.rounds, r)
			progressf("%d entities: %.0f/s", load.entities, r.rate())
		}
	}
	b.figures.single("throughput at 10^4 entities", "calls/s", median(overFew, (*round).rate))
	b.figures.single("throughput at 10^6 entities", "calls/s", median(overMany, (*round).rate))
	b.figures.single("flatness, 10^6 over 10^4", "", medianQuotient(overMany, overFew, (*round).rate))
	b.figures.single("memory of a worker with 10^6 entities that are called in turn", "MiB",
		float64(many.usage().rss)/(1<<20))
	return nil
}

// filled starts a worker and makes its entities.
func (b *bench) filled(ctx context.Context, name string, entities int) (*process, error) {
	server, err := b.startMillrace(ctx, name)
	if err != nil {
		return nil, err
	}
	progressf("making %d entities", entities)
	var next atomic.Int64
	fill := increments(server.address,
		func(int, int) string { return "c" + strconv.FormatInt(next.Add(1)%int64(entities), 10) })
	for next.Load() < int64(entities) {
		if _, err := drive(ctx, fillClients, nil, 0, fillRound, []*process{server}, fill); err != nil {
			server.stop()
			return nil, err
		}
	}
	return server, nil
}

// rebuild deletes the store and measures how long the worker takes to rebuild it, beyond an
// ordinary start.
func (b *bench) rebuild(ctx context.Context, warm time.Duration) error {
	if err := os.RemoveAll(filepath.Join(b.dir, "many", "store")); err != nil {
		return err
	}
	began := time.Now()
	server, err := b.startMillrace(ctx, "many")
	if err != nil {
		return err
	}
	took := time.Since(began)
	defer server.stop()
	events, err := b.events(ctx, server)
	if err != nil {
		return err
	}
	b.figures.single("start with a warm store", "s", warm.Seconds())
	b.figures.single("start without its store", "s", took.Seconds())
	b.figures.single("events in the log", "", float64(events))
	b.figures.single("rebuild", "events/s", float64(events)/(took-warm).Seconds())
	return nil
}

// settled returns the memory of an idle process.
func settled(p *process) int64 {
	time.Sleep(3 * time.Second)
	return p.usage().rss
}

// events reads the number of records in the journal from the metrics.
func (b *bench) events(ctx context.Context, server *process) (int64, error) {
	sum, err := scrape(ctx, server.admin, "millrace_partitions_next_offset")
	if err != nil {
		return 0, err
	}
	return int64(sum), nil
}

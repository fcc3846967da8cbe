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
)

// size measures throughput with few and with many entities, what many passive ones cost in memory, and how fast a deleted
// store comes back.
func (b *bench) size(ctx context.Context) error {
	empty, err := b.startMillrace(ctx, "empty")
	if err != nil {
		return err
	}
	nothing := settled(empty)
	empty.stop()

	server, err := b.startMillrace(ctx, "size")
	if err != nil {
		return err
	}
	few, err := b.flat(ctx, server, 0, fewEntities)
	if err != nil {
		return err
	}
	many, err := b.flat(ctx, server, fewEntities, manyEntities)
	if err != nil {
		return err
	}
	server.stop()
	b.figures.single("throughput at 10^4 entities", "calls/s", few)
	b.figures.single("throughput at 10^6 entities", "calls/s", many)
	b.figures.single("flatness, 10^6 over 10^4", "", many/few)

	began := time.Now()
	if server, err = b.startMillrace(ctx, "size"); err != nil {
		return err
	}
	warm := time.Since(began)
	b.figures.single("memory of 10^6 passive entities", "MiB", float64(settled(server)-nothing)/(1<<20))
	server.stop()
	return b.rebuild(ctx, warm)
}

// flat makes the entities from first to last and measures increments evenly spread over all of them.
func (b *bench) flat(ctx context.Context, server *process, first, last int) (float64, error) {
	var next atomic.Int64
	next.Store(int64(first))
	fill := increments(server.address, func(int, int) string { return "c" + strconv.FormatInt(next.Add(1)%int64(last), 10) })
	progressf("making entities %d to %d", first, last)
	for next.Load() < int64(last) {
		if _, err := drive(ctx, fillClients, nil, 0, time.Second, []*process{server}, fill); err != nil {
			return 0, err
		}
	}
	var rounds []round
	for range b.rounds {
		r, err := drive(ctx, sizeClients, nil, b.warm, b.length, []*process{server}, increments(server.address, spread(last)))
		if err != nil {
			return 0, err
		}
		rounds = append(rounds, r)
		progressf("%d entities: %.0f/s", last, r.rate())
	}
	return median(rounds, (*round).rate), nil
}

// rebuild deletes the store and measures how long the worker takes to have it back, beyond what a start takes anyway.
func (b *bench) rebuild(ctx context.Context, warm time.Duration) error {
	if err := os.RemoveAll(filepath.Join(b.dir, "size", "store")); err != nil {
		return err
	}
	began := time.Now()
	server, err := b.startMillrace(ctx, "size")
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

// settled is the memory of a process once it has nothing to do.
func settled(p *process) int64 {
	time.Sleep(3 * time.Second)
	return p.usage().rss
}

// events asks the metrics page how many records the journal holds.
func (b *bench) events(ctx context.Context, server *process) (int64, error) {
	sum, err := scrape(ctx, server.admin, "millrace_partitions_next_offset")
	if err != nil {
		return 0, err
	}
	return int64(sum), nil
}

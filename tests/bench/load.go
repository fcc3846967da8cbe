package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// call makes one call: client counts the callers from 0, n the calls of this one.
type call func(ctx context.Context, client, n int) error

// round is what one round of one load measured.
type round struct {
	ops      int
	elapsed  time.Duration
	p50, p99 time.Duration
	p999     time.Duration
	usage    usage
}

func (r *round) rate() float64 { return float64(r.ops) / r.elapsed.Seconds() }

// cpu is what a thousand calls cost, in seconds of all servers together.
func (r *round) cpu() float64 { return r.usage.cpu.Seconds() * 1000 / float64(r.ops) }

// drive runs a closed loop: clients callers, each with one call under way, for a warm-up and then for the time that counts.
func drive(ctx context.Context, clients int, warm, length time.Duration, servers []*process, do call) (round, error) {
	var (
		counting, stopped atomic.Bool
		failed            atomic.Pointer[error]
		wait              sync.WaitGroup
	)
	latencies := make([][]time.Duration, clients)
	for c := range clients {
		wait.Go(func() { // ends with stopped; waited for below
			for n := 0; !stopped.Load(); n++ {
				began := time.Now()
				if err := do(ctx, c, n); err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
				if counting.Load() {
					latencies[c] = append(latencies[c], time.Since(began))
				}
			}
		})
	}
	time.Sleep(warm)
	before := used(servers)
	began := time.Now()
	counting.Store(true)
	time.Sleep(length)
	counting.Store(false)
	elapsed := time.Since(began)
	usage := used(servers).since(before)
	stopped.Store(true)
	wait.Wait()
	if err := failed.Load(); err != nil {
		return round{}, fmt.Errorf("a call did not succeed, so nothing is measured: %w", *err)
	}
	all := slices.Concat(latencies...)
	if len(all) == 0 {
		return round{}, fmt.Errorf("no call ended within %s", length)
	}
	slices.Sort(all)
	at := func(q float64) time.Duration { return all[min(int(q*float64(len(all))), len(all)-1)] }
	return round{ops: len(all), elapsed: elapsed, p50: at(0.5), p99: at(0.99), p999: at(0.999), usage: usage}, nil
}

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

// cpu returns the CPU seconds of all servers for a thousand calls.
func (r *round) cpu() float64 { return r.usage.cpu.Seconds() * 1000 / float64(r.ops) }

// pace schedules the calls of all callers.
type pace struct {
	every time.Duration
	mu    sync.Mutex
	next  time.Time
}

// newPace returns a pace, or none for 0.
func newPace(callsPerSecond float64) *pace {
	if callsPerSecond == 0 {
		return nil
	}
	return &pace{every: time.Duration(float64(time.Second) / callsPerSecond)}
}

// wait returns when the next call is due. Missed calls are made up for, up to those of a tenth of a
// second. Without a pace it returns at once.
func (p *pace) wait() {
	if p == nil {
		return
	}
	p.mu.Lock()
	now := time.Now()
	if late := now.Add(-time.Second / 10); p.next.Before(late) {
		p.next = late
	}
	at := p.next
	p.next = at.Add(p.every)
	p.mu.Unlock()
	time.Sleep(at.Sub(now))
}

// drive runs callers, each with one call at a time, at a pace or as fast as they can, for a warm-up
// and then for the measured time.
func drive(ctx context.Context, clients int, pace *pace, warm, length time.Duration, servers []*process,
	do call,
) (round, error) {
	var (
		counting, stopped atomic.Bool
		failed            atomic.Pointer[error]
		wait              sync.WaitGroup
	)
	latencies := make([][]time.Duration, clients)
	for c := range clients {
		wait.Go(func() { // ends with stopped; waited for below
			for n := 0; !stopped.Load(); n++ {
				pace.wait()
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

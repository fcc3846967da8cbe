package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	"github.com/millrace-io/millrace/tests/kit"
)

const (
	// parkedEffects are parked while the others are measured, in commands of parkedGroup effects
	// each.
	parkedEffects, parkedGroup = 4096, 512
	// deadEffects are sent to the dead target at first, and deadMore more in each turn.
	deadEffects, deadMore = 512, 64
	// relayCallers send commands of relayGroup effects each while less than relayBacklog effects
	// are open: many more than the 64 that a partition sends at a time, so that its rate is
	// measured and not that of the callers.
	relayCallers, relayGroup, relayBacklog = 8, 16, 512
	// relayTargets is the number of counters b-….
	relayTargets = 1024
	// parkedBaseline is the number of turns before anything is parked, and again of those before
	// the target is dead.
	parkedBaseline = 5
	// maxTurn bounds the time of one worker in a turn. Short turns are under the same conditions.
	maxTurn = 5 * time.Second
)

// relay is a worker with one partition, and what is measured of it.
type relay struct {
	*process
	counters []counterv1.CounterServiceClient
	// sent counts the effects that were asked for, delivered those that the function of their
	// targets has seen.
	sent, delivered atomic.Int64
	rates           []float64
	rss             []int64
}

// parked measures how 4 096 parked effects and a target that does not answer slow down other
// effects of the same partition. Two workers do the same in turns, one of them without these, so
// that other load on the machine affects both, and the memory that both need is known.
func (b *bench) parked(ctx context.Context) error {
	program := filepath.Join(b.dir, "relay")
	if err := kit.Build(ctx, ".", program, "tests/bench/relay"); err != nil {
		return err
	}
	free, laden := &relay{}, &relay{}
	for name, r := range map[string]*relay{"free": free, "laden": laden} {
		p, err := b.startWorker(ctx, "parked-"+name, program, "dev", "--partitions", "1")
		if err != nil {
			return err
		}
		defer p.stop()
		r.process, r.counters = p, dialAll(p.address)
	}
	length := min(maxTurn, max(b.hold/20, time.Second))
	for range parkedBaseline {
		if err := b.turn(ctx, length, free, laden); err != nil {
			return err
		}
	}
	if err := laden.ask(ctx, "lost", parkedEffects, parkedGroup); err != nil {
		return err
	}
	if err := laden.awaitParked(ctx); err != nil {
		return err
	}
	for range parkedBaseline {
		if err := b.turn(ctx, length, free, laden); err != nil {
			return err
		}
	}
	if err := laden.ask(ctx, "dead", deadEffects, parkedGroup); err != nil {
		return err
	}
	for began := time.Now(); time.Since(began) < b.hold; {
		if err := laden.ask(ctx, "dead", deadMore, deadMore); err != nil {
			return err
		}
		if err := b.turn(ctx, length, free, laden); err != nil {
			return err
		}
	}
	if err := laden.awaitParked(ctx); err != nil { // they must still be parked
		return err
	}
	for _, r := range []*relay{free, laden} {
		if err := r.check(ctx); err != nil {
			return err
		}
	}
	b.parkedFigures(length, free, laden)
	return nil
}

// turn measures one worker after the other. Which is first changes with every turn.
func (b *bench) turn(ctx context.Context, length time.Duration, free, laden *relay) error {
	pair := []*relay{free, laden}
	if len(free.rates)%2 == 1 {
		slices.Reverse(pair)
	}
	for _, r := range pair {
		if err := r.measure(ctx, b.warm, length); err != nil {
			return err
		}
	}
	last := len(free.rates) - 1
	progressf("turn %d: %.0f effects/s without, %.0f with; %d and %d MiB", last+1, free.rates[last], laden.rates[last],
		free.rss[last]>>20, laden.rss[last]>>20)
	return nil
}

// measure drives effects for a warm-up and then for the time that counts, and waits until all have
// arrived.
func (r *relay) measure(ctx context.Context, warm, length time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, warm+length+time.Minute)
	defer cancel()
	var (
		stopped atomic.Bool
		failed  atomic.Pointer[error]
		wait    sync.WaitGroup
	)
	for c := range relayCallers {
		wait.Go(func() { // ends with stopped, or an error; waited for below
			for n := 0; !stopped.Load(); n++ {
				if r.sent.Load()-r.delivered.Load() > relayBacklog-relayGroup {
					time.Sleep(time.Millisecond)
					continue
				}
				r.sent.Add(relayGroup)
				if err := r.increment(ctx, "a-"+strconv.Itoa(c), relayGroup); err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
			}
		})
	}
	// passes counts arrived effects until the time is over, so that the callers know the backlog.
	passes := func(length time.Duration) (count int64, elapsed time.Duration, err error) {
		began, before := time.Now(), r.delivered.Load()
		for time.Since(began) < length && err == nil && failed.Load() == nil {
			time.Sleep(5 * time.Millisecond)
			err = r.poll(ctx)
		}
		return r.delivered.Load() - before, time.Since(began), err
	}
	_, _, err := passes(warm)
	var count int64
	var elapsed time.Duration
	if err == nil {
		count, elapsed, err = passes(length)
	}
	r.rates, r.rss = append(r.rates, float64(count)/elapsed.Seconds()), append(r.rss, r.usage().rss)
	stopped.Store(true)
	wait.Wait()
	if first := failed.Load(); first != nil {
		err = *first
	}
	for err == nil && r.delivered.Load() < r.sent.Load() {
		time.Sleep(5 * time.Millisecond)
		err = r.poll(ctx)
	}
	if err != nil {
		return fmt.Errorf("%d of %d effects arrived: %w", r.delivered.Load(), r.sent.Load(), err)
	}
	return nil
}

// poll asks how many effects have arrived.
func (r *relay) poll(ctx context.Context) error {
	c, err := r.counters[0].Get(ctx, &counterv1.GetRequest{CounterId: "delivered"})
	r.delivered.Store(max(r.delivered.Load(), c.GetValue()))
	return err
}

func (r *relay) increment(ctx context.Context, counter string, by int64) error {
	_, err := r.counters[0].Increment(ctx, &counterv1.IncrementRequest{CounterId: counter, By: by})
	return err
}

// ask sends n effects by commands to one counter.
func (r *relay) ask(ctx context.Context, counter string, n, group int64) error {
	for ; n > 0; n -= group {
		if err := r.increment(ctx, counter+"-0", group); err != nil {
			return fmt.Errorf("%d effects of counter %s-0: %w", group, counter, err)
		}
	}
	return nil
}

// awaitParked returns when exactly the effects without a key are parked.
func (r *relay) awaitParked(ctx context.Context) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		n, err := scrape(ctx, r.admin, "millrace_partitions_parked_effects")
		if err != nil {
			return err
		}
		if n == parkedEffects {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%.0f effects are parked; want %d", n, parkedEffects)
		}
	}
}

// check compares what the targets have with what was sent: each effect once.
func (r *relay) check(ctx context.Context) error {
	var sum int64
	for i := range relayTargets {
		c, err := r.counters[i%connections].Get(ctx, &counterv1.GetRequest{CounterId: "b-" + strconv.Itoa(i)})
		if err != nil {
			return err
		}
		sum += c.GetValue()
	}
	if sent := r.sent.Load(); sum != sent {
		return fmt.Errorf("%d effects were sent, and their targets have %d", sent, sum)
	}
	return nil
}

// parkedFigures prints a line for the turns of each phase. The two workers are not quite equal even
// without parked effects, so the last column is the quotient of all over that before anything was
// parked.
func (b *bench) parkedFigures(length time.Duration, free, laden *relay) {
	const mib = 1 << 20
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 1, ' ', 0)
	fmt.Fprintln(out, "| turns of "+length.String()+"\t| effects/s without\t| with\t| quotient: median, of all, lowest\t| RSS without: begin, end, most, MiB\t| with\t| of all, over before\t|")
	fmt.Fprintln(out, "| ---\t| ---\t| ---\t| ---\t| ---\t| ---\t| ---\t|")
	var baseline float64
	for _, part := range []struct {
		name     string
		from, to int
	}{
		{"before", 0, parkedBaseline},
		{"4 096 parked", parkedBaseline, 2 * parkedBaseline},
		{"4 096 parked and a dead target", 2 * parkedBaseline, len(free.rates)},
	} {
		under, over := free.rates[part.from:part.to], laden.rates[part.from:part.to]
		quotients := make([]float64, len(over))
		var sumUnder, sumOver float64
		for i := range over {
			quotients[i] = over[i] / under[i]
			sumUnder, sumOver = sumUnder+under[i], sumOver+over[i]
		}
		lowest, all := slices.Min(quotients), sumOver/sumUnder
		if part.from == 0 {
			baseline = all
		}
		memory := func(rss []int64) string {
			return fmt.Sprintf("%d, %d, %d", rss[0]/mib, rss[len(rss)-1]/mib, slices.Max(rss)/mib)
		}
		fmt.Fprintf(out, "| %s, %d turns\t| %.0f\t| %.0f\t| %.2f, %.2f, %.2f\t| %s\t| %s\t| %.2f\t|\n", part.name, len(over),
			medianOf(slices.Clone(under)), medianOf(slices.Clone(over)), medianOf(quotients), all, lowest,
			memory(free.rss[part.from:part.to]), memory(laden.rss[part.from:part.to]), all/baseline)
		b.figures.record("effects/s without, "+part.name, medianOf(slices.Clone(under)))
		b.figures.record("effects/s with, "+part.name, medianOf(slices.Clone(over)))
		b.figures.record("effects, quotient of all, "+part.name, all)
		b.figures.record("effects, quotient of all over before, "+part.name, all/baseline)
		b.figures.record("effects, lowest quotient, "+part.name, lowest)
		b.figures.record("MiB at the end without, "+part.name, float64(free.rss[part.to-1])/mib)
		b.figures.record("MiB at the end with, "+part.name, float64(laden.rss[part.to-1])/mib)
	}
	_ = out.Flush()
}

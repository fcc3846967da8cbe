package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/millrace-io/millrace/entities"
	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
	"github.com/millrace-io/millrace/tests/kafkaserver"
)

// clusterPartitions is the number of partitions in this part: three workers can share them almost
// evenly.
const clusterPartitions = 64

// paceShare is the share of the slowest way's rate at which all ways are compared once more. At a
// higher rate a process handles more calls per wake-up and per message, so costs are comparable
// only at the same rate.
const paceShare = 0.6

// app is one app on Kafka with all its workers.
type app struct {
	workers []*process
	// callers has, for each worker, the connections that the loads share.
	callers [][]counterv1.CounterServiceClient
	// owners holds, for each partition, the index of its owner; standbys is how many all have
	// together.
	owners   []int
	standbys int
}

// way is how calls choose a worker, in one of the apps.
type way struct {
	name string
	app  *app
	// choose picks the worker for an entity that owner owns.
	choose func(owner, workers int) int
}

// quotient compares two ways, turn by turn.
type quotient struct{ name, over, under string }

// cluster measures what a command costs that goes to the wrong worker, and what three workers cost
// where one is enough. All ways are measured in short turns and compared turn by turn, so that
// other load on the machine affects all of them. First callers call as fast as they can, then at
// one rate.
func (b *bench) cluster(ctx context.Context) error {
	brokers := b.brokers
	if brokers == "" {
		c, err := kafkaserver.Launch(ctx, kafkaserver.Options{Dir: filepath.Join(b.dir, "kafka")})
		if err != nil {
			return fmt.Errorf("start a Kafka broker (or name some with -brokers): %w", err)
		}
		defer c.Kill() //nolint:errcheck // its data is not needed
		brokers = c.String()
	}
	one, three, alone := &app{}, &app{}, &app{}
	defer func() {
		for _, p := range slices.Concat(one.workers, three.workers, alone.workers) {
			p.stop()
		}
	}()
	for _, a := range []struct {
		app      *app
		name     string
		workers  int
		standbys int
	}{{one, "one", 1, 1}, {three, "three", 3, 1}, {alone, "alone", 3, 0}} {
		if err := b.startApp(ctx, a.app, a.name, brokers, a.workers, a.standbys); err != nil {
			return err
		}
	}
	owner := func(owner, _ int) int { return owner }
	other := func(owner, workers int) int { return (owner + 1 + rand.IntN(workers-1)) % workers } //nolint:gosec // a load
	anyone := func(_, workers int) int { return rand.IntN(workers) }                              //nolint:gosec // a load
	ways := []way{
		{"one worker", one, owner},
		{"three, to the owner", three, owner},
		{"three, to another", three, other},
		{"three, to any", three, anyone},
		{"three without standbys, to the owner", alone, owner},
		{"three without standbys, to another", alone, other},
	}
	ways = slices.DeleteFunc(ways, func(w way) bool { return !b.wanted(w.name) })
	quotients := []quotient{
		{"forwarded over local", "three, to another", "three, to the owner"},
		{"forwarded over local, no standbys", "three without standbys, to another", "three without standbys, to the owner"},
		{"three over one, to any", "three, to any", "one worker"},
		{"three over one, to the owner", "three, to the owner", "one worker"},
		{"three over one, to the owner, no standbys", "three without standbys, to the owner", "one worker"},
	}
	b.idle(map[string]*app{"one worker": one, "three": three, "three without standbys": alone})
	for _, clients := range b.clients {
		slowest, err := b.turns(ctx, clients, 0, ways, quotients)
		if err != nil {
			return err
		}
		if _, err := b.turns(ctx, clients, paceShare*slowest, ways, quotients); err != nil {
			return err
		}
	}
	return nil
}

// turns measures all ways with a number of callers, and the quotients; with a rate, calls begin at
// that many a second. It returns the calls a second of the slowest way.
func (b *bench) turns(ctx context.Context, clients int, rate float64, ways []way,
	quotients []quotient,
) (float64, error) {
	var at string
	if rate > 0 {
		at = fmt.Sprintf(" at %.0f/s", rate)
	}
	measured := map[string][]round{}
	for turn := range b.rounds {
		for i := range ways {
			w := &ways[(i+turn)%len(ways)] // rotate which way is first
			r, err := drive(ctx, clients, newPace(rate), b.warm, b.length, w.app.workers, b.calls(w))
			if err != nil {
				return 0, fmt.Errorf("%s%s with %d callers: %w", w.name, at, clients, err)
			}
			measured[w.name+at] = append(measured[w.name+at], r)
			progressf("callers %d, turn %d, %s%s: %.0f/s", clients, turn+1, w.name, at, r.rate())
		}
	}
	slowest := math.Inf(1)
	for _, w := range ways {
		b.figures.add(w.name+at, clients, measured[w.name+at], nil)
		slowest = min(slowest, median(measured[w.name+at], (*round).rate))
	}
	b.figures.table(clients, func(f *figure) bool { return measured[f.Name] != nil })
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(out, "quotients, medians of turns\tCPU\tp50\tp99\tcalls/s\t")
	for _, q := range quotients {
		over, under := measured[q.over+at], measured[q.under+at]
		if over == nil || under == nil {
			continue // excluded by -only
		}
		c := comparison{
			Name: q.name + at, Clients: clients, Turns: len(over),
			CPU:  medianQuotient(over, under, (*round).cpu),
			P50:  medianQuotient(over, under, func(r *round) float64 { return r.p50.Seconds() }),
			P99:  medianQuotient(over, under, func(r *round) float64 { return r.p99.Seconds() }),
			Rate: medianQuotient(over, under, (*round).rate),
		}
		b.figures.Quotients = append(b.figures.Quotients, c)
		fmt.Fprintf(out, "%s\t%.2f\t%.2f\t%.2f\t%.2f\t\n", c.Name, c.CPU, c.P50, c.P99, c.Rate)
	}
	return slowest, out.Flush()
}

// idle measures workers without calls.
func (b *bench) idle(apps map[string]*app) {
	const length = 5 * time.Second
	before := map[string]usage{}
	for name, a := range apps {
		before[name] = used(a.workers)
	}
	time.Sleep(length)
	for name, a := range apps {
		b.figures.single("idle, "+name, "CPU s/s", used(a.workers).since(before[name]).cpu.Seconds()/length.Seconds())
	}
}

// startApp starts the workers of an app, and returns when shares are even and every partition has
// its standbys. Some may have more until the next rebalance; their number is printed.
func (b *bench) startApp(ctx context.Context, a *app, name, brokers string, workers, standbys int) error {
	journal := fmt.Sprintf("bench%d%s", time.Now().Unix(), name)
	for i := range workers {
		worker := name + strconv.Itoa(i)
		p, err := b.startWorker(ctx, worker, b.counter, "run", "--brokers", brokers, "--app", journal, "--worker", worker,
			"--partitions", strconv.Itoa(clusterPartitions), "--standbys", strconv.Itoa(standbys), "--debug-endpoints")
		if err != nil {
			return err
		}
		a.workers = append(a.workers, p)
		a.callers = append(a.callers, dialAll(p.address))
	}
	conn, err := grpc.NewClient("passthrough:///"+a.workers[0].admin,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // only read
	admin := adminv1.NewAdminServiceClient(conn)
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		page, err := admin.Cluster(ctx, &adminv1.ClusterRequest{})
		if err == nil && a.know(page, name, min(standbys, workers-1)) {
			b.figures.single("standbys of app "+name, "", float64(a.standbys)/clusterPartitions)
			return nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return errors.Join(fmt.Errorf("app %s: its %d partitions are not shared evenly by %d workers: %v", journal,
				clusterPartitions, workers, page), err)
		}
	}
}

// know records the owners, and reports whether shares and standbys are complete.
func (a *app) know(page *adminv1.ClusterResponse, name string, standbys int) bool {
	if len(page.GetPartitions()) != clusterPartitions {
		return false
	}
	a.owners = make([]int, clusterPartitions)
	a.standbys = 0
	share := make([]int, len(a.workers))
	for _, p := range page.GetPartitions() {
		i, err := strconv.Atoi(p.GetOwner()[min(len(name), len(p.GetOwner())):])
		if err != nil || i >= len(a.workers) || len(p.GetStandbys()) < standbys {
			return false
		}
		a.owners[p.GetPartition()] = i
		share[i]++
		a.standbys += len(p.GetStandbys())
	}
	return slices.Max(share)-slices.Min(share) <= 1
}

// calls returns a call that increments counters of an app by a way.
func (b *bench) calls(w *way) call {
	id := spread(b.keys)
	return func(ctx context.Context, client, n int) error {
		counter := id(client, n)
		worker := w.choose(w.app.owners[entities.Partition(counter, clusterPartitions)], len(w.app.workers))
		_, err := w.app.callers[worker][client%connections].Increment(ctx,
			&counterv1.IncrementRequest{CounterId: counter, By: 1})
		return err
	}
}

package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/tests/kit"
)

// options say what is measured and for how long.
type options struct {
	clients []int
	rounds  int
	warm    time.Duration
	length  time.Duration
	only    string
	parts   string
	brokers string
	json    string
	dir     string
	keys    int
	hold    time.Duration
	against string
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "echo" {
		if err := serveEcho(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	var o options
	clients := flag.String("clients", "1,16,64,256", "numbers of closed-loop callers")
	flag.IntVar(&o.rounds, "rounds", 9, "rounds of each load, in turns; medians count")
	flag.DurationVar(&o.warm, "warm", 300*time.Millisecond, "warm-up of a round")
	flag.DurationVar(&o.length, "length", time.Second, "length of a round")
	flag.StringVar(&o.only, "only", "", "only loads whose name contains one of these words, comma separated")
	flag.StringVar(&o.parts, "parts", "load,size,cluster",
		"parts to run: load; size (flatness, memory and rebuild with a million entities); cluster (three workers against one, forwarded against local); parked (effects beside 4 096 parked ones and a dead target); queries (of a view, against the echo; commands with projections against without); commands (the command line with a million entities)")
	flag.StringVar(&o.brokers, "brokers", "",
		"also measure on Kafka at these brokers; without them only part cluster does, on one that it starts (Java 17)")
	flag.StringVar(&o.json, "json", "", "also write the figures to this file, as JSON")
	flag.StringVar(&o.dir, "dir", "", "directory for data; a temporary one by default: it decides which disk is measured")
	flag.IntVar(&o.keys, "keys", 10_000, "entities of the loads")
	flag.DurationVar(&o.hold, "hold", 10*time.Minute,
		"how long part parked measures with parked effects and a dead target")
	flag.StringVar(&o.against, "against", "",
		"another checkout: part load measures its programs in turns with those of this one, and prints quotients; with -rounds 40 -length 400ms they are known to a few percent")
	flag.Parse()
	for word := range strings.SplitSeq(*clients, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 {
			fmt.Fprintf(os.Stderr, "bench: -clients: %q is not a number of callers\n", word)
			os.Exit(2)
		}
		o.clients = append(o.clients, n)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run builds the binaries and measures all parts.
func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp(o.dir, "millrace-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // temporary
	b := &bench{options: o, dir: dir}
	if err := b.build(ctx, "."); err != nil {
		return err
	}
	b.describe()
	parts := strings.Split(o.parts, ",")
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"load", b.loadOrCompare},
		{"size", b.sizeOrCompare},
		{"cluster", b.cluster},
		{"parked", b.parked},
		{"queries", b.queries},
		{"commands", b.commands},
	} {
		if slices.Contains(parts, part.name) {
			if err := part.run(ctx); err != nil {
				return fmt.Errorf("%s: %w", part.name, err)
			}
		}
	}
	return b.write()
}

// bench is one run.
type bench struct {
	options
	dir      string
	millrace string
	counter  string
	figures  figures
}

// build compiles the programs that are measured.
func (b *bench) build(ctx context.Context, checkout string) error {
	b.millrace, b.counter = filepath.Join(b.dir, "millrace"), filepath.Join(b.dir, "counter")
	for out, pkg := range map[string]string{b.millrace: "cmd/millrace", b.counter: "examples/counter"} {
		if err := kit.Build(ctx, checkout, out, pkg); err != nil {
			return err
		}
	}
	return nil
}

// load measures every kind of load at every number of callers, in turns.
func (b *bench) load(ctx context.Context) error {
	if err := b.fdatasync(); err != nil {
		return err
	}
	loads, stop, err := b.loads(ctx)
	defer stop()
	if err != nil {
		return err
	}
	for _, clients := range b.clients {
		if err := b.inRounds(ctx, clients, loads, "echo"); err != nil {
			return err
		}
	}
	return nil
}

// inRounds measures loads with one number of callers, in turns, and prints their table. echo names
// the one that the others are compared with.
func (b *bench) inRounds(ctx context.Context, clients int, loads []load, echo string) error {
	measured := map[string][]round{}
	for r := range b.rounds {
		for _, l := range loads {
			if l.most > 0 && clients > l.most {
				continue
			}
			result, err := drive(ctx, clients, nil, b.warm, b.length, []*process{l.server}, l.do)
			if err != nil {
				return fmt.Errorf("%s with %d callers: %w", l.name, clients, err)
			}
			measured[l.name] = append(measured[l.name], result)
			progressf("callers %d, round %d, %s: %.0f/s", clients, r+1, l.name, result.rate())
		}
	}
	for _, l := range loads {
		if rounds := measured[l.name]; len(rounds) > 0 {
			b.figures.add(l.name, clients, rounds, measured[echo])
		}
	}
	b.figures.table(clients, func(f *figure) bool { return measured[f.Name] != nil })
	return nil
}

func progressf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "  "+format+"\n", args...)
}

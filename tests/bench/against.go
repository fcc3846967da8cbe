package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// loadOrCompare is load, or compare if there is another checkout.
func (b *bench) loadOrCompare(ctx context.Context) error {
	if b.against == "" {
		return b.load(ctx)
	}
	return b.compare(ctx)
}

// compare measures every load with the programs of this checkout and of another one, in turns:
// they alternate which is first. The results are quotients of rounds, because machines drift.
func (b *bench) compare(ctx context.Context) error {
	other, err := b.other(ctx)
	if err != nil {
		return err
	}
	loads, stop, err := b.loads(ctx)
	defer stop()
	if err != nil {
		return err
	}
	theirs, stopTheirs, err := other.loads(ctx)
	defer stopTheirs()
	if err != nil {
		return err
	}
	b.printHeader()
	for _, clients := range b.clients {
		for i := range loads {
			if loads[i].most > 0 && clients > loads[i].most {
				continue
			}
			over, under, err := b.inTurns(ctx, clients, &loads[i], &theirs[i])
			if err != nil {
				return fmt.Errorf("%s with %d callers: %w", loads[i].name, clients, err)
			}
			printQuotients(clients, loads[i].name, over, under)
		}
	}
	return nil
}

// sizeOrCompare is size, or compareSize if there is another checkout.
func (b *bench) sizeOrCompare(ctx context.Context) error {
	if b.against == "" {
		return b.size(ctx)
	}
	return b.compareSize(ctx)
}

// compareSize measures increments spread over few and over many entities with the programs of this
// checkout and of another one, in turns.
func (b *bench) compareSize(ctx context.Context) error {
	other, err := b.other(ctx)
	if err != nil {
		return err
	}
	b.printHeader()
	for _, size := range []struct {
		name     string
		entities int
	}{{"few", fewEntities}, {"many", manyEntities}} {
		var loads [2]load
		for i, of := range []*bench{b, other} {
			server, err := of.filled(ctx, size.name, size.entities)
			if err != nil {
				return err
			}
			defer server.stop()
			loads[i] = load{
				name:   fmt.Sprintf("%d entities", size.entities),
				server: server, do: increments(server.address, spread(size.entities)),
			}
		}
		over, under, err := b.inTurns(ctx, sizeClients, &loads[0], &loads[1])
		if err != nil {
			return err
		}
		printQuotients(sizeClients, loads[0].name, over, under)
	}
	return nil
}

// other builds the programs of the checkout to compare with. Its data is beside ours.
func (b *bench) other(ctx context.Context) (*bench, error) {
	other := &bench{options: b.options, dir: filepath.Join(b.dir, "against")}
	if err := os.Mkdir(other.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return other, other.build(ctx, b.against)
}

func (b *bench) printHeader() {
	fmt.Printf("quotients of this checkout over %s, medians of %d turns of %v\n%8s %24s %8s %8s %8s %8s\n",
		b.against, b.rounds, b.length, "callers", "load", "calls", "CPU", "p50", "p99")
}

// printQuotients prints a line of the table that printHeader begins.
func printQuotients(clients int, name string, over, under []round) {
	quotient := func(of func(*round) float64) float64 { return medianQuotient(over, under, of) }
	fmt.Printf("%8d %24s %8.3f %8.3f %8.3f %8.3f\n", clients, name, quotient((*round).rate),
		quotient((*round).cpu),
		quotient(func(r *round) float64 { return r.p50.Seconds() }),
		quotient(func(r *round) float64 { return r.p99.Seconds() }))
}

// inTurns measures a load of ours and the same one of theirs.
func (b *bench) inTurns(ctx context.Context, clients int, ours, theirs *load) (over, under []round, err error) {
	for r := range b.rounds {
		for i := range 2 {
			of, to := ours, &over
			if (r+i)%2 == 1 {
				of, to = theirs, &under
			}
			result, err := drive(ctx, clients, nil, b.warm, b.length, []*process{of.server}, of.do)
			if err != nil {
				return nil, nil, err
			}
			*to = append(*to, result)
		}
	}
	return over, under, nil
}

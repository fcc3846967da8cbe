package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// options say which groups are simulated and what is assumed of their environment.
type options struct {
	Workers, Partitions []int
	Standbys            int
	Seed                uint64
	// Restarts is the number of workers of a rolling restart.
	Restarts int
	// Most is the largest number of partitions that is tried to find how many fit.
	Most int
	// Heartbeat is the members', Session the time after which a silent one is removed.
	Heartbeat, Session time.Duration
	// CatchUp is how many partitions a second a worker that begins to follow reads to the end.
	CatchUp float64
	// Network is how many bytes a second the group's coordinator can send.
	Network float64
	// Claims is how many claims a second the brokers take from the whole group.
	Claims float64
}

func main() {
	o, asJSON, err := parse(os.Args[1:], os.Stderr)
	if err != nil {
		os.Exit(2)
	}
	if err := run(o, asJSON, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func parse(args []string, to io.Writer) (o options, asJSON bool, err error) {
	flags := flag.NewFlagSet("scale", flag.ContinueOnError)
	flags.SetOutput(to)
	workers := flags.String("workers", "10,100,1000", "sizes of groups")
	partitions := flags.String("partitions", "4096,100000", "partitions of their journals; an app has at most 4096 today")
	flags.IntVar(&o.Standbys, "standbys", 1, "workers besides the owner that follow each partition")
	flags.Uint64Var(&o.Seed, "seed", 1,
		"decides when members learn of a rebalance, which ones die, and which keys are called")
	flags.IntVar(&o.Restarts, "restarts", 3, "workers of a rolling restart")
	flags.IntVar(&o.Most, "most", 1<<16, "largest journal that is tried to find how many partitions fit, at most 65536")
	flags.DurationVar(&o.Heartbeat, "heartbeat", 250*time.Millisecond, "pause between heartbeats of a member")
	flags.DurationVar(&o.Session, "session", 6*time.Second, "silence after which a member is removed")
	flags.Float64Var(&o.CatchUp, "catch-up", 500, "partitions that a worker which begins to follow reads in a second")
	flags.Float64Var(&o.Network, "network", 125e6, "bytes a second that the coordinator can send")
	flags.Float64Var(&o.Claims, "claims", 10_000, "claims a second that the brokers take")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	if err := flags.Parse(args); err != nil {
		return o, asJSON, err
	}
	if o.Workers, err = numbers("-workers", *workers, 2); err == nil {
		o.Partitions, err = numbers("-partitions", *partitions, 1)
	}
	if err == nil && (o.Standbys < 0 || o.Restarts < 0 || o.Most < 0 || o.Most > 1<<16 || o.Heartbeat <= 0 ||
		o.Session <= 0 || o.CatchUp <= 0 || o.Network <= 0 || o.Claims <= 0) {
		err = errors.New("-standbys and -restarts must not be negative, -most must be between 0 and 65536, all other numbers positive")
	}
	if err != nil {
		fmt.Fprintln(to, "scale:", err)
	}
	return o, asJSON, err
}

func numbers(name, list string, least int) (all []int, err error) {
	for word := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < least {
			return nil, fmt.Errorf("%s: %q is not a number from %d on", name, word, least)
		}
		all = append(all, n)
	}
	return all, nil
}

// run simulates every group and prints the results.
func run(o options, asJSON bool, out, progress io.Writer) error {
	var all []figures
	fits := map[int]int{}
	for _, workers := range o.Workers {
		n, err := fitsUpTo(o, workers)
		if err != nil {
			return fmt.Errorf("%d workers, seed %d: %w", workers, o.Seed, err)
		}
		fits[workers] = n
	}
	for _, partitions := range o.Partitions {
		for _, workers := range o.Workers {
			began := time.Now()
			f, err := play(o, workers, partitions)
			if err != nil {
				return fmt.Errorf("%d workers, %d partitions, seed %d: %w", workers, partitions, o.Seed, err)
			}
			fmt.Fprintf(progress, "%d workers, %d partitions: simulated in %v\n", workers, partitions,
				time.Since(began).Round(time.Millisecond))
			f.Rest.FitsUpTo = fits[workers]
			all = append(all, *f)
		}
	}
	if !asJSON {
		return tables(out, o, all)
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		Options options   `json:"options"`
		Groups  []figures `json:"groups"`
	}{o, all})
}

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const (
	// commandRounds is how often each command is run; figures are medians.
	commandRounds = 9
	// firstRowLimit is within what the first row of a list must be there.
	firstRowLimit = 200 * time.Millisecond
)

// commands measures the command line against a worker with a million entities: the time from the
// start of the program to its first line (in a pipe each row is one), the time to its end, and the
// most memory that program and worker need.
func (b *bench) commands(ctx context.Context) error {
	server, err := b.filled(ctx, "commands", manyEntities)
	if err != nil {
		return err
	}
	defer server.stop()
	for _, c := range []struct {
		args   []string
		rounds int
	}{
		{[]string{"--help"}, commandRounds},
		{[]string{"get", "counter/c77"}, commandRounds},
		{[]string{"list", "counter"}, commandRounds},
		{[]string{"list", "counter", "--limit", "1"}, commandRounds},
		{[]string{"list", "counter", "--prefix", "c77777"}, commandRounds},
		{[]string{"list"}, commandRounds},
		{[]string{"list", "--all"}, 3},
		{[]string{"list", "counter", "--all"}, 3},
	} {
		name := "millrace " + strings.Join(c.args, " ")
		if c.args[0] != "--help" {
			c.args = append(c.args, "--admin", server.admin)
		}
		var firsts, wholes []time.Duration
		var most, before int64
		before = server.usage().rss
		for range c.rounds {
			first, whole, rss, err := b.command(ctx, c.args)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			firsts, wholes, most = append(firsts, first), append(wholes, whole), max(most, rss)
		}
		milli := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
		b.figures.single(name+": first row", "ms", milli(medianOf(firsts)))
		b.figures.single(name+": end", "ms", milli(medianOf(wholes)))
		b.figures.single(name+": memory", "MiB", float64(most)/(1<<20))
		b.figures.single(name+": memory of the worker, more than before", "MiB",
			float64(server.usage().rss-before)/(1<<20))
		if first := medianOf(firsts); first > firstRowLimit && !strings.HasSuffix(name, "list --all") {
			return fmt.Errorf("%s: the first row came after %v, and must within %v", name, first, firstRowLimit)
		}
	}
	return nil
}

// command runs millrace once. first is when its first line was there, rss the most memory that it
// had.
func (b *bench) command(ctx context.Context, args []string) (first, whole time.Duration, rss int64, err error) {
	cmd := exec.CommandContext(ctx, b.millrace, args...)
	cmd.Dir = b.dir
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, 0, 0, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, 0, 0, err
	}
	lines := bufio.NewReader(out)
	_, err = lines.ReadString('\n')
	first = time.Since(began)
	if err == nil {
		_, err = io.Copy(io.Discard, lines)
	}
	if failed := cmd.Wait(); err == nil {
		err = failed
	}
	used, _ := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return first, time.Since(began), used.Maxrss << 10, err
}

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/tests/kit"
)

// process is a server under measurement.
type process struct {
	kit.Process

	address string
	// admin is the admin port of a worker.
	admin string
}

const (
	readyTimeout = 60 * time.Second
	stopTimeout  = 20 * time.Second
)

// usage is the resource usage of a process as reported by the operating system.
type usage struct {
	cpu     time.Duration
	written int64
	rss     int64
}

func (u usage) since(before usage) usage {
	return usage{cpu: u.cpu - before.cpu, written: u.written - before.written, rss: u.rss}
}

// used adds up what several processes use.
func used(all []*process) (sum usage) {
	for _, p := range all {
		u := p.usage()
		sum.cpu, sum.written, sum.rss = sum.cpu+u.cpu, sum.written+u.written, sum.rss+u.rss
	}
	return sum
}

// start runs a program until stop, and waits until ready has no error.
func start(ctx context.Context, dir, address string, ready func(context.Context) error, program string,
	args ...string,
) (*process, error) {
	log, err := os.CreateTemp(dir, "server-*.log")
	if err != nil {
		return nil, err
	}
	p := &process{
		address: address, Process: kit.Process{Command: kit.Command{Program: program, Args: args, Dir: dir, Log: log.Name()}},
	}
	if err := errors.Join(log.Close(), p.Start()); err != nil {
		return nil, err
	}
	if err := p.Await(ctx, readyTimeout, "ready", ready); err != nil {
		return nil, errors.Join(err, p.Kill())
	}
	return p, nil
}

func (p *process) stop() { _ = p.Stop(stopTimeout) } // one that does not end in time is killed

// clockTick is the unit of CPU times in /proc: 100 a second on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// usage reads /proc; what cannot be read counts as nothing.
func (p *process) usage() usage {
	var u usage
	base := "/proc/" + strconv.Itoa(p.PID())
	if stat, err := os.ReadFile(base + "/stat"); err == nil {
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		user, _ := strconv.ParseInt(fields[11], 10, 64)
		system, _ := strconv.ParseInt(fields[12], 10, 64)
		u.cpu = time.Duration(user+system) * clockTick
	}
	u.written = readField(base+"/io", "write_bytes:")
	u.rss = readField(base+"/status", "VmRSS:") << 10
	return u
}

func readField(path, name string) int64 {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close() //nolint:errcheck // only read
	lines := bufio.NewScanner(io.LimitReader(f, 1<<20))
	for lines.Scan() {
		if rest, found := strings.CutPrefix(lines.Text(), name); found {
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n
		}
	}
	return 0
}

// scrape adds up all samples of one metric.
func scrape(ctx context.Context, admin, metric string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/metrics", http.NoBody)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close() //nolint:errcheck // only read
	var sum float64
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), metric+"{") {
			continue
		}
		v, err := strconv.ParseFloat(lines.Text()[strings.LastIndexByte(lines.Text(), ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("metric line %q: %w", lines.Text(), err)
		}
		sum += v
	}
	return sum, lines.Err()
}

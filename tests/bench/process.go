package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/millrace-io/millrace/tests/freeport"
)

// process is a server under measurement.
type process struct {
	cmd     *exec.Cmd
	address string
	// admin is the admin port of a worker.
	admin string
	log   *os.File
}

// usage is what the operating system says of a process.
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

// start runs a program until stop; ready is asked until it says yes.
func start(ctx context.Context, dir, address string, ready func() bool, program string, args ...string) (*process, error) {
	log, err := os.CreateTemp(dir, "server-*.log")
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // the benchmark's own programs
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, address: address, log: log}
	for deadline := time.Now().Add(60 * time.Second); !ready(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) || ctx.Err() != nil {
			p.stop()
			content, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("%s %s did not become ready:\n%s", program, strings.Join(args, " "), content)
		}
	}
	return p, nil
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	ended := make(chan struct{})
	go func() { // ends with the process
		_ = p.cmd.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		<-ended
	}
	_ = p.log.Close()
}

// clockTick is the unit of CPU times in /proc: 100 a second on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// usage reads /proc; what cannot be read counts as nothing.
func (p *process) usage() usage {
	var u usage
	base := "/proc/" + strconv.Itoa(p.cmd.Process.Pid)
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

// freePort returns an address on which nobody listens now.
func freePort() string {
	address, err := freeport.On("127.0.0.1")
	if err != nil {
		panic(err)
	}
	return address
}

// answers asks an HTTP page whether it is well.
func answers(url string) func() bool {
	client := http.Client{Timeout: time.Second}
	return func() bool {
		res, err := client.Get(url) //nolint:noctx // the client's timeout bounds it
		if err != nil {
			return false
		}
		_ = res.Body.Close()
		return res.StatusCode == http.StatusOK
	}
}

// listens asks whether somebody takes connections.
func listens(address string) func() bool {
	return func() bool {
		conn, err := net.DialTimeout("tcp", address, time.Second) //nolint:noctx // bounded by its timeout
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	}
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

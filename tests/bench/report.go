package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// figure is the median of the rounds of one load.
type figure struct {
	Name    string  `json:"name"`
	Clients int     `json:"clients"`
	Rounds  int     `json:"rounds"`
	Rate    float64 `json:"ops_per_second"`
	// Ratio is the median of the quotients of the rate and the bare echo's rate in the same turn,
	// with as many callers; 0 without an echo.
	Ratio float64 `json:"ratio_to_echo,omitempty"`
	P50   float64 `json:"p50_us"`
	P99   float64 `json:"p99_us"`
	P999  float64 `json:"p999_us"`
	// CPU is the server's CPU seconds for a thousand calls, Written its bytes to disk for one call.
	CPU     float64 `json:"cpu_seconds_per_1000"`
	Written float64 `json:"bytes_written_per_call"`
}

// comparison compares the cost of two ways of calling, by turns.
type comparison struct {
	Name    string  `json:"name"`
	Clients int     `json:"clients"`
	Turns   int     `json:"turns"`
	CPU     float64 `json:"cpu"`
	P50     float64 `json:"p50"`
	P99     float64 `json:"p99"`
	Rate    float64 `json:"ops_per_second"`
}

// figures has all results of a run.
type figures struct {
	Machine string             `json:"machine"`
	Began   time.Time          `json:"began"`
	Loads   []figure           `json:"loads"`
	Single  map[string]float64 `json:"single"`
	// Quotients are those of part cluster.
	Quotients []comparison `json:"quotients,omitempty"`
}

func median[T cmp.Ordered](rounds []round, of func(*round) T) T {
	values := make([]T, len(rounds))
	for i := range rounds {
		values[i] = of(&rounds[i])
	}
	return medianOf(values)
}

// medianOf sorts values and returns the one in the middle.
func medianOf[T cmp.Ordered](values []T) T {
	slices.Sort(values)
	return values[len(values)/2]
}

// add takes the rounds of a load, and those of the echo in the same turns if there are any.
func (f *figures) add(name string, clients int, rounds, echo []round) {
	micros := func(of func(*round) time.Duration) float64 { return float64(median(rounds, of).Nanoseconds()) / 1e3 }
	var ratio float64
	if len(echo) > 0 {
		ratio = medianQuotient(rounds, echo, (*round).rate)
	}
	f.Loads = append(f.Loads, figure{
		Name: name, Clients: clients, Rounds: len(rounds),
		Rate:    median(rounds, (*round).rate),
		Ratio:   ratio,
		P50:     micros(func(r *round) time.Duration { return r.p50 }),
		P99:     micros(func(r *round) time.Duration { return r.p99 }),
		P999:    micros(func(r *round) time.Duration { return r.p999 }),
		CPU:     median(rounds, (*round).cpu),
		Written: median(rounds, func(r *round) float64 { return float64(r.usage.written) / float64(r.ops) }),
	})
}

// medianQuotient is the median of the quotients of each turn.
func medianQuotient(over, under []round, of func(*round) float64) float64 {
	all := make([]float64, len(over))
	for i := range over {
		all[i] = of(&over[i]) / of(&under[i])
	}
	return medianOf(all)
}

// table prints the loads of a part with one number of callers.
func (f *figures) table(clients int, mine func(*figure) bool) {
	fmt.Printf("\n%d callers\n", clients)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "load\tcalls/s\tof echo\tp50 µs\tp99 µs\tp99.9 µs\tCPU s per 1000\tbytes written per call\t")
	for i := range f.Loads {
		if l := &f.Loads[i]; l.Clients == clients && mine(l) {
			ofEcho := "-"
			if l.Ratio > 0 {
				ofEcho = fmt.Sprintf("%.2f", l.Ratio)
			}
			fmt.Fprintf(w, "%s\t%.0f\t%s\t%.0f\t%.0f\t%.0f\t%.4f\t%.0f\t\n", l.Name, l.Rate, ofEcho, l.P50, l.P99, l.P999,
				l.CPU, l.Written)
		}
	}
	_ = w.Flush()
}

func (f *figures) record(name string, value float64) {
	if f.Single == nil {
		f.Single = map[string]float64{}
	}
	f.Single[name] = value
}

func (f *figures) single(name, unit string, value float64) {
	f.record(name, value)
	fmt.Printf("%s: %.4g %s\n", name, value, unit)
}

// describe prints the machine.
func (b *bench) describe() {
	model := "unknown processor"
	if content, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(content)) {
			if rest, found := strings.CutPrefix(line, "model name"); found {
				model = strings.TrimSpace(strings.TrimLeft(rest, "\t :"))
				break
			}
		}
	}
	b.figures.Began = time.Now()
	b.figures.Machine = fmt.Sprintf("%s, %d cores, %s, %s", model, runtime.NumCPU(), runtime.Version(), runtime.GOOS)
	fmt.Printf("%s, %s\n", b.figures.Machine, b.figures.Began.Format(time.DateOnly))
}

// write writes the figures as JSON.
func (b *bench) write() error {
	if b.json == "" {
		return nil
	}
	content, err := json.MarshalIndent(b.figures, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(b.json, append(content, '\n'), 0o644) //nolint:gosec // readable by all
}

// fdatasync measures the lower bound of every durable answer: an append of 200 bytes and a sync.
func (b *bench) fdatasync() error {
	f, err := os.CreateTemp(b.dir, "sync-")
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // temporary
	const writes = 1000
	times := make([]time.Duration, 0, writes)
	for range writes {
		began := time.Now()
		if _, err := f.Write(make([]byte, 200)); err != nil {
			return err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return err
		}
		times = append(times, time.Since(began))
	}
	slices.Sort(times)
	b.figures.single("append and fdatasync p50", "µs", float64(times[writes/2].Nanoseconds())/1e3)
	b.figures.single("append and fdatasync p99", "µs", float64(times[writes*99/100].Nanoseconds())/1e3)
	return nil
}

package observe

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func gather(t *testing.T, sources ...Source) (map[string]string, error) {
	t.Helper()
	c, err := Collector(sources...)
	if err != nil {
		t.Fatalf("Collector: %v", err)
	}
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(c); err != nil {
		t.Fatalf("register: %v", err)
	}
	families, err := registry.Gather()
	got := map[string]string{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			got[family.GetName()] += strings.Join(strings.Fields(metric.String()), " ")
		}
	}
	return got, err
}

func TestCollectorShowsWhatSourcesEmit(t *testing.T) {
	var h Histogram
	h.Observe(time.Microsecond)
	h.Observe(time.Hour)
	got, err := gather(t, Source{
		Metrics: []Metric{
			{Name: "millrace_store_commits_total", Help: "Batches.", Kind: Counter},
			{Name: "millrace_partition_lag_records", Help: "Records behind.", Kind: Gauge, Labels: []string{"partition"}},
			{Name: "millrace_log_append_seconds", Help: "Time to append.", Kind: Latency},
		},
		Collect: func(e Emitter) {
			e.Value("millrace_store_commits_total", 3)
			e.Value("millrace_partition_lag_records", 5, "7")
			e.Latency("millrace_log_append_seconds", h.Snapshot())
		},
	})
	if err != nil {
		t.Fatalf("gather: %v", err)
	}
	for name, want := range map[string][]string{
		"millrace_store_commits_total":   {"counter:{value:3}"},
		"millrace_partition_lag_records": {`name:"partition"`, `value:"7"`, "gauge:{value:5}"},
		"millrace_log_append_seconds":    {"sample_count:2", "cumulative_count:1 upper_bound:1.024e-06", fmt.Sprintf("upper_bound:%v", (1 << 36 * time.Nanosecond).Seconds())},
	} {
		for _, part := range want {
			if !strings.Contains(strings.ReplaceAll(got[name], ": ", ":"), part) {
				t.Errorf("%s is %q, which lacks %q", name, got[name], part)
			}
		}
	}
}

func TestCollectorRefusesBadDeclarations(t *testing.T) {
	_, err := Collector(Source{Metrics: []Metric{
		{Name: "lag", Help: "x", Kind: Gauge},
		{Name: "millrace_store_commits", Help: "x", Kind: Counter},
		{Name: "millrace_log_append_ms", Help: "x", Kind: Latency},
		{Name: "millrace_store_size_bytes", Kind: Gauge},
		{Name: "millrace_store_size_bytes", Help: "x", Kind: Gauge},
	}})
	for _, want := range []string{
		`metric "lag" is not named`,
		"millrace_store_commits must end in _total",
		"millrace_log_append_ms must end in _seconds",
		"millrace_store_size_bytes has no help",
		"millrace_store_size_bytes is declared twice",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
}

func TestBadEmissionSpoilsTheScrapeAndNamesTheMetric(t *testing.T) {
	metrics := []Metric{
		{Name: "millrace_store_size_bytes", Help: "x", Kind: Gauge, Labels: []string{"dir"}},
		{Name: "millrace_log_append_seconds", Help: "x", Kind: Latency},
	}
	for name, collect := range map[string]func(Emitter){
		"millrace_store_age_bytes":    func(e Emitter) { e.Value("millrace_store_age_bytes", 1) },
		"millrace_store_size_bytes":   func(e Emitter) { e.Value("millrace_store_size_bytes", 1) },
		"millrace_log_append_seconds": func(e Emitter) { e.Value("millrace_log_append_seconds", 1) },
		"millrace_log_read_seconds":   func(e Emitter) { e.Latency("millrace_log_read_seconds", Snapshot{}) },
	} {
		if _, err := gather(t, Source{Metrics: metrics, Collect: collect}); err == nil ||
			!strings.Contains(err.Error(), name) {
			t.Errorf("gather: %v, want an error that names %s", err, name)
		}
	}
}

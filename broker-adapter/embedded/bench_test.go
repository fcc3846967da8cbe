package embedded

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

const (
	benchTopic = "bench"
	benchValue = 200
	// benchPartitions is the default of millrace.
	benchPartitions = 16
)

func benchLog(b *testing.B) *Log {
	b.Helper()
	l := mustOpen(b, Options{Dir: b.TempDir()})
	if err := l.Create(b.Context(), broker.TopicSpec{Name: benchTopic, Partitions: benchPartitions}); err != nil {
		b.Fatal(err)
	}
	return l
}

func benchRecord() []broker.Record {
	return []broker.Record{{
		Key: []byte("cart/1234567"), Value: bytes.Repeat([]byte("v"), benchValue),
		Headers: []broker.Header{{Key: "mr", Value: bytes.Repeat([]byte("h"), 60)}},
	}}
}

// BenchmarkAppend has 1, 64 and 256 callers, each of which waits for its record on a real disk.
func BenchmarkAppend(b *testing.B) {
	for _, callers := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("inflight=%d", callers), func(b *testing.B) {
			l := benchLog(b)
			latencies := make([]time.Duration, b.N)
			var next sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for c := range callers {
				next.Go(func() {
					p := broker.Partition{Topic: benchTopic, ID: int32(c % benchPartitions)}
					records, result := benchRecord(), make(chan broker.AppendResult, 1)
					done := func(r broker.AppendResult) { result <- r }
					for i := c; i < b.N; i += callers {
						start := time.Now()
						l.Append(p, records, done)
						if r := <-result; r.Err != nil {
							b.Error(r.Err)
							return
						}
						latencies[i] = time.Since(start)
					}
				})
			}
			next.Wait()
			b.StopTimer()
			slices.Sort(latencies)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(float64(latencies[b.N/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(latencies[b.N*99/100].Microseconds()), "p99-µs")
		})
	}
}

// BenchmarkRead reads one partition from the start, repeatedly, in one goroutine.
func BenchmarkRead(b *testing.B) {
	const records = 200_000
	l := benchLog(b)
	p := broker.Partition{Topic: benchTopic, ID: 3}
	fill(b, l, p, records)
	var r broker.Reader
	b.ReportAllocs()
	b.ResetTimer()
	for read := 0; read < b.N; {
		if r == nil || read%records == 0 {
			if r != nil {
				_ = r.Close()
			}
			var err error
			if r, err = l.Read(p, 0); err != nil {
				b.Fatal(err)
			}
		}
		batch, err := r.Next(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		read += len(batch.Records)
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
	_ = r.Close()
}

// fill appends n records without waiting for each.
func fill(b *testing.B, l *Log, p broker.Partition, n int) {
	b.Helper()
	var open sync.WaitGroup
	for range n {
		open.Add(1)
		l.Append(p, benchRecord(), func(r broker.AppendResult) {
			if r.Err != nil {
				b.Error(r.Err)
			}
			open.Done()
		})
	}
	open.Wait()
}

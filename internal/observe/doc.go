// Package observe has the keys of log attributes, a latency histogram, and the interface by which a
// package exports metrics.
//
// A package counts with atomics and Histograms and exports them as a Source; it knows no metrics
// library. internal/app/node combines Sources into one Prometheus collector with Collector. Metric
// names, help and labels are in one file per package, metrics.go; names are
// millrace_<package>_<noun>_<unit>.
//
// It starts no goroutine. A Histogram may be used from many goroutines; a Source's Collect must
// allow it too, because scrapes overlap.
package observe

// Package observe holds the words and measures by which millrace is watched: the keys of log attributes, a latency
// histogram, and the form in which a package offers its metrics.
//
// An engine counts with atomics and Histograms and offers them as a Source; it knows no metrics library. internal/app/node
// turns Sources into one Prometheus collector with Collector. Metric names, their help and their labels stand in one file
// per package, metrics.go, and follow millrace_<package>_<noun>_<unit>.
//
// It starts no goroutine. A Histogram may be used from many goroutines; a Source's Collect must allow it too, because
// scrapes overlap.
package observe

// Package journal checks the topic that holds a journal: its settings, its number of partitions,
// and the layout of its data, which the first worker declares in it (ADR 18).
//
// partitions checks the topic again while it runs; internal/app/node calls the rest before a worker
// or a gateway starts. The package keeps no state. Declaration.Ensure waits for the log, and for
// the few goroutines with which it asks many partitions at once.
package journal

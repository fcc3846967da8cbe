// Package journal checks the topic that holds a journal: its settings, its number of partitions,
// and the layout that its data is of, which the first worker declares in it (ADR 18).
//
// partitions looks at the topic again while it runs; internal/app/node calls the rest before a
// worker or a gateway starts. The package keeps no state. Declaration.Ensure waits for the log, and
// for the few goroutines with which it asks many partitions at once.
package journal

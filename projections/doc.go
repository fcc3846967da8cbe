// Package projections folds the journal into rows that can be queried: on each worker, for each
// partition of which it has an image, from the feed of that image into the store views/, whose keys
// docs/views-keyspace.md describes.
//
// An Engine gets its views by Define and its partitions by Attach. It folds each dataset once for
// all views that share it, keeps indexes and aggregates, and commits what a piece of the feed
// changes in one batch with the position, so that a crash leaves the rows of some position. The
// rows depend on the log and the definition alone: they are equal on every worker, and may be
// deleted at any time.
//
// Run owns all goroutines. Nothing that happens here slows or fails a command.
package projections

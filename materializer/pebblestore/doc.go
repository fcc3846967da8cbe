// Package pebblestore is the materializer.Store of production: Pebble without its write-ahead log,
// because the journal is the log. A commit is durable once a later Flush (or Ingest, DropRange,
// Close, or Pebble itself when a memtable is full) has written it; until then a crash forgets it,
// always a suffix of the batches and never half of one. The fold's position is a row of the same
// batch, so the partition knows from where to read again. The owner of the store bounds that
// reading by calling Flush from time to time.
//
// # Concurrency
//
// All methods of Store and of a snapshot may be called from any goroutine; a Batch and an Iterator
// belong to one. Pebble owns the goroutines that flush and compact, and Close waits for them; this
// package starts none. A commit blocks while Pebble has MemTableStopWritesThreshold memtables to
// flush. Close waits for calls that are under way, so it must not be called from inside a Scan.
//
// Locks, in the order in which they are taken: the gate (not a lock, but Close waits on it),
// Store.order or an iterator's mutex, then Pebble's own or health.mu or Store.openMu, which are
// held over nothing else. Store.flushMu is taken after order.
//
// # Errors
//
//   - materializer.ErrCorrupt: a file is damaged, missing or from a newer version. The store stays
//     as it is; delete its directory and rebuild. It is found at Open, by a read, or in the
//     background, and then every write reports it.
//   - ErrLocked: another process, or this one, has the directory open.
//   - fs.ErrClosed: the store, snapshot or batch was closed.
//   - ErrLowDisk: the disk has less free space than Options.MinFreeBytes; commits and ingests are
//     refused until it has more.
//   - Anything else is the disk's: full, unwritable. Pebble goes on trying in the background, and
//     until it succeeds commits are refused, because what they add could not be kept; reads go on.
//     A commit that was waiting for a memtable at that moment waits until the disk recovers, and
//     Close waits for it. After an error in Pebble's manifest writes are refused until the store is
//     opened again.
package pebblestore

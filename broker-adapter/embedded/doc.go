// Package embedded is the log of millrace inside the process: records in Pebble, one process per
// directory, every acknowledgement synced to disk. It implements broker.Log.
//
// # Goroutines
//
// Each Log owns one goroutine, the committer (committer.go). It alone writes to the database: it
// takes what waits in the bounded queue, stages it as one Pebble batch, syncs, moves the ends of
// the partitions and delivers the results, in that order. An idle log commits at once. A busy one
// commits everything that queued meanwhile, and pauses between two syncs as long as the last one
// took, at most a quarter of a millisecond: fewer and larger groups leave more of the processor to
// others. Close stops the committer and waits for it; Pebble's own goroutines end with the
// database.
//
// Append, Read, End and the other methods may overlap freely. A Reader belongs to one goroutine.
// Lock order: Log.readersMu, reader.mu, then those of queue, topicTable, notifier and stats, under
// which no other lock is taken.
//
// # What readers see
//
// Pebble shows a batch before it is synced. So a reader never reads beyond the end that the
// committer has published (partition.end).
//
// # When the disk fails
//
// The first write, sync, create or rename that fails stops all writing (failstop.go): from then on
// nothing reaches the disk, while Pebble sees success and can be closed normally. The disk is then
// as after a power cut at the moment of the failure, which databases are built to survive. The
// committer never acknowledges after the stop: the appends in progress get an error with unknown
// outcome, later ones ErrFailed (not written), and the database is opened again, with growing
// pauses, until that works. The ends are then read from the disk again.
//
// # What is on the disk
//
// Pebble's files (key space: keys.go, records: codec.go), FORMAT with the version of all this, ENDS
// with a lower bound of the partitions' ends from the last clean close, by which a start detects
// that acknowledged records are missing (ends.go), LOCK. Compacted topics are compacted while they
// are written (compact.go).
//
// # What errors mean
//
// ErrFailed: the append was not written; the log retries opening by itself. ErrOutcomeUnknown: the
// record may or may not be there after the log has been opened again. ErrCorrupt: a record cannot
// be read as it was written; the error names directory, partition, offset and remedy. ErrLocked,
// ErrNotALog, ErrNewerFormat come from Open. All others are those of package broker.
package embedded

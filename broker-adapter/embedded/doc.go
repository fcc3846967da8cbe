// Package embedded is the log of millrace inside the process: records in Pebble, one process per directory, every
// acknowledgement synced to disk. It implements broker.Log.
//
// # Goroutines
//
// Each Log owns one goroutine, the committer (committer.go). It alone writes to the database: it takes whatever waits in
// the bounded queue, stages it as one Pebble batch, syncs, moves the ends of the partitions and delivers the results, in
// that order. An idle log commits at once. A busy one commits what gathered meanwhile, and rests between two syncs as long as
// the last one took, at most a quarter of a millisecond: fewer and larger groups leave the processor to everyone else.
// Close stops the committer and waits for it; Pebble's own goroutines end with the database.
//
// Append, Read, End and the other methods may overlap freely. A Reader belongs to one goroutine. Locks, in the order in
// which they may nest: Log.readersMu, reader.mu, then those of queue, topicTable, notifier and stats, which nest in nothing.
//
// # What readers see
//
// Pebble shows a batch before it is synced. So a reader never looks at the database beyond the end that the committer
// has acknowledged (partition.end).
//
// # When the disk fails
//
// The first write, sync, create or rename that fails stops all writing (failstop.go): from then on nothing reaches the
// disk any more, while Pebble believes that all is well and can be closed in peace. That is exactly a power cut at the
// moment of the failure, the one accident that a database is made for. The committer never acknowledges after the lights
// went out: the appends of that moment get an error with unknown outcome, later ones ErrFailed (not written), and the
// database is opened anew, with growing pauses, until that works. The ends are then read from the disk again.
//
// # What is on the disk
//
// Pebble's files (key space: keys.go, records: codec.go), FORMAT with the version of all this, ENDS with a lower bound of
// the partitions' ends from the last clean close, by which a start notices that acknowledged records are gone (ends.go), LOCK.
// Compacted topics are compacted while they are written (compact.go).
//
// # What errors mean
//
// ErrFailed: the append was not written, the log tries to come back by itself. ErrOutcomeUnknown: the record may or may not
// be there after the log came back. ErrCorrupt: a record cannot be read as it was written; the error names directory,
// partition, offset and remedy. ErrLocked, ErrNotALog, ErrNewerFormat come from Open. The rest are those of package broker.
package embedded

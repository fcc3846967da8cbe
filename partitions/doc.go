// Package partitions is the engine: the single writer of each partition of the journal, and the router that finds it.
//
// A partition is decided by package core: inputs in, effects out, no clock, no goroutine, no I/O. One
// loop (loop.go) feeds it and performs its effects. The rules are those of the log protocol: ownership by claim records,
// contiguity of acknowledged offsets, and answers that leave only after everything decided before them in the partition is
// acknowledged, contiguous and applied. docs/tour.md follows one command through the files.
//
// # Goroutines
//
// Manager owns a few loop goroutines, which share the partitions among them, and the one that listens for assignments; Run
// waits for all of them.
// One goroutine at a time drives a loop: its own, or that of a caller who submits a command, or comes back with a decision,
// and finds the loop idle (mailbox.go). Callbacks of the log, and whoever else posts, never drive: a turn may wait for the log.
// A loop owns the short-lived goroutines that read the log for it (reading.go) or open and close sessions of functions, and
// waits for them before it ends. User functions run on the goroutine of the caller who submitted the command, never on the
// loop. Callbacks of the log only put a message into the loop's mailbox.
//
// # What may overlap
//
// Commands of one entity never overlap: the next one runs when the one before is decided. Commands of different entities
// do. Nothing else touches a partition's core, fold and batch than whoever drives its loop, except that during catch-up the recovering
// goroutine has the fold, and the loop leaves it alone.
//
// # Errors
//
// Every error that leaves is an *entities.Error, whose outcome class never lies: NotApplied only when no record of the
// command can be valid in the log.
package partitions

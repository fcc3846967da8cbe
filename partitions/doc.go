// Package partitions is the worker's side of a journal: the single writer of each partition.
// Manager makes the router (package routing) over its partitions, updates its table with the tables
// of the group, and hands it to them: they use it to deliver their effects and to run the commands
// of their timers. internal/app/node and internal/app/admin import both; apart from them only tests
// do.
//
// Package core decides for a partition: inputs in, effects out, no clock, no goroutine, no I/O. One
// loop (loop.go) passes it the inputs and performs its effects. The rules are those of the log
// protocol: ownership by claim records, contiguity of acknowledged offsets, and answers that leave
// only after everything decided before them in the partition is acknowledged, contiguous and
// applied. docs/tour.md follows one command through the files.
//
// # Goroutines
//
// Manager owns a few loop goroutines, which share the partitions among them, and the one that
// receives assignments; Run waits for all of them. One goroutine at a time drives a loop: its own,
// or that of a caller that submits a command, or comes back with a decision, and finds the loop
// idle (mailbox.go). Callbacks of the log, and all others that post, never drive: a turn may wait
// for the log. A loop owns the short-lived goroutines that read the log for it (reading.go) or open
// and close sessions of functions, and waits for them before it ends. User functions run on the
// goroutine of the caller that submitted the command or, if it has a deadline and so may leave, on
// one of the loop's (leave.go). Only an answer that the function has sent ahead of the command's
// turn is taken on the loop. Callbacks of the log only put a message into
// the loop's mailbox.
//
// # What may overlap
//
// Commands of one entity never overlap: the next one runs when the previous one is decided.
// Commands of different entities do. Only the goroutine that drives the loop touches a partition's
// core, fold and batch. During catch-up the fold belongs to the goroutine that reads the log
// (package replica).
//
// # Packages
//
// Package replica follows a partition, and catches up before a claim; package repair reads and
// writes for a repair; package journal defines what a topic must be. They block and post nothing;
// reading.go runs them and reports to the loop. Package peer carries commands to other workers.
//
// # Errors
//
// Every error that leaves is an *entities.Error with a correct outcome class: NotApplied only if no
// record of the command can be valid in the log.
package partitions

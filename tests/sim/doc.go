// Package sim runs several workers in one process on one simulated log, with fault injection, and
// checks what their clients saw.
//
// The workers are real: manager, loops, cores, folds, routers, outboxes. Log, disk, time and
// functions are simulated, and one seed decides what happens: a scheduler picks one event at a time
// (a client sends, a function answers, the log writes or answers or fails, a partition moves, a
// worker dies), then waits until every goroutine is blocked again. So a failing seed happens again:
//
//	MILLRACE_SIM_SEED=17 go test ./tests/sim -run TestSimulation -v
//
// Checked are: linearizability of every entity, reads, refusals and the targets of forwards
// included, with unknown outcomes open-ended and definite failures left out (V1, V3, V10); command
// ids at most once, and the same bytes for a command that is sent again, a forward or its target's
// refusal included (V2); sequences and store against a fold from nothing (V4); effects exactly
// once; timers exactly once, unless cancelled or set anew; that effects for healthy targets arrive
// while others fail, are slow or are parked, even more of them than fit into memory, that none of
// those is lost either, and that targets forget effects that are done; that no append is more than
// the log takes, that a command which fits is not too large, and one that does not fit fails alone;
// that reads at standbys satisfy their consistency, and that a standby's image is the fold of the
// log; that rows, index entries and groups of a projection, whose versions come into force and go
// while its workers lose their views, are at each answer what the log says up to the answer's
// position, and of one dataset, and so is what clients have that watch; and that everything works
// again once the faults have ended (V9). In the end some logs lose what they acknowledged: the
// partition halts and answers nothing, before and after a restart (V8).
// docs/reliability.md says more.
//
// Stores are in memory and fall back to any earlier moment in a crash; a store on a disk loses no
// more than that, but Pebble's own goroutines would not be deterministic. Crashes of the Pebble
// store are tested in its package.
package sim

// Package core decides for the owner of one partition: who may write, what counts, when an answer
// may leave. It is a pure state machine. Inputs are the methods of Core, called in the order in
// which they arrive. Its output is a list of effects, which package partitions performs in order.
// The core has no clock, goroutine, random source, logger, lock or I/O: time comes with SetNow,
// nonces come with the inputs, and a Caller reports whether it has left.
//
// Package partitions imports it; the code that assembles a worker uses its Limits and States. It
// starts no goroutine and is not safe for concurrent use: only the goroutine that drives the
// partition's loop uses it. A Call belongs to that goroutine until it is answered.
//
// Read the files in this order:
//
//	core.go      the states, the clock
//	claim.go     assignment, catch-up, claim, activation
//	command.go   a command arrives, is known already, or waits for its turn at its entity
//	decide.go    the function has decided
//	write.go     the records of a decision
//	commit.go    to the log and back: batches, acknowledgements, gaps
//	answer.go    which answers may leave, and when
//	fence.go     how an ownership ends when another one may exist; halts
//	release.go   how it ends in order
//	outbox.go    effects on other entities: lanes.go, settle.go, progress.go, refused.go, conclude.go
//	timers.go    timers
//	repair.go    the repair of a halted partition
//
// The rules of the log protocol, and the invariants of commit and answer, are numbered sentences at
// the top of the file that keeps them. After each stands the mutation (internal/mutation) that
// removes its check: with it, a test must fail.
package core

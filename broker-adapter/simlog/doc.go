// Package simlog is a log in memory, for tests: several clients share one World, and a test injects
// faults.
//
//	world := simlog.New(simlog.Options{})
//	log := world.Client("worker-1") // a broker.Log
//
// By default every append is written and acknowledged at once, in order, from one goroutine per
// client.
//
// With Options.Manual nothing happens by itself and there is no goroutine: an append becomes an Op
// that waits in the network until the test moves it, one step at a time. Callbacks then run inside
// the step, on the test's goroutine, so a seeded test is deterministic.
//
//	Apply(id)        the log writes it (again, if it has done so: a duplicate)
//	Answer(id)       the client gets the result of what was written
//	Deliver(id)      both
//	Fail(id, err)    the client gets an error; the request stays in the network, and may still be applied: a late arrival
//	Discard(id)      the request is gone; with Fail before it: an append that never was written
//
// So a lost acknowledgement is Apply, then Fail; a reordering is two Applies the other way round; a
// delay is doing something else first. Truncate, Trim, Remove, Restore, Compact, Change, Inject,
// Recreate, Stale and Violate change the log itself, in both modes. Crash ends a client like the
// death of its process.
//
// The World is also the coordinator of groups, by the same plan as the real one (broker.Plan). A
// client that has crashed stays a member until it is evicted, or its worker joins again: sessions
// never end by themselves. With Options.ManualAssignments the test sends every event, tables
// included.
//
// All methods may be called from many goroutines. One lock, World.mu, guards everything; no
// callback runs under it. Client.Close stops the goroutine of a client and waits for it. Errors are
// those of package broker. Steps that make no sense (an unknown id, an answer before the log wrote
// anything) panic: the test is wrong.
//
// Read records are overwritten at the next call of the same Reader, so that code which keeps them
// fails.
package simlog

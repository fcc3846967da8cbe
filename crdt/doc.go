// Package crdt has the replicated data types: what a change says, how a log of changes becomes a
// value, and how the log is kept small. It is pure: no clock, no goroutine, no input or output.
//
// All deltas of an entity lie in one partition of one topic, and every holder folds them in the
// order of the log. So replicas are equal by construction, and nothing is merged. Concurrency shows
// in one number: Command.Seen, up to where the writer had folded the partition when it decided the
// command. The types are those of Shapiro, Preguiça, Baquero and Zawirski, "A comprehensive study
// of Convergent and Commutative Replicated Data Types" (INRIA RR-7506, 2011); removal of what was
// observed, without tombstones, follows Bieniusa and others, "An optimized conflict-free replicated
// set" (INRIA RR-8083, 2012), with the place in the log instead of a version vector. Nested maps
// remove what was observed at or below a key, as in Almeida, Shoker and Baquero, "Delta State
// Replicated Data Types" (JPDC 111, 2018).
//
// A State keeps contributions: what one command put into a leaf, with its offset, its writer and
// its number. A removal takes a contribution if it had been observed: its offset is below Seen of
// the removal, or the same writer wrote it earlier. Everything else survives: add wins, update
// wins. A command that is further than Options.Window behind its own record is void, so
// contributions older than the window are observed by every command to come, and become one
// (Squash).
//
//	State     the value of one entity; Apply folds a delta into it
//	Mirror    the records of one entity as a holder keeps them: newest snapshot, deltas behind it
//	Part      a piece of a snapshot; Split makes them
//	Position  how far a holder has read a partition, and whether it may serve
//	Flight    the open commands of a writer, and when each may be answered
//	Covering  which snapshots were read back, so that what they cover may be deleted
//	Limits    what a writer may write in one command; the fold takes what is in the log
//
// Values of this package belong to one goroutine at a time. Deltas and parts are never changed once
// they were handed over.
package crdt

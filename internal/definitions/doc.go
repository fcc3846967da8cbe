// Package definitions knows which definitions an app has: versions, the numbers of their data, and
// which version is in force.
//
// The truth is the event-sourced entity `_definitions/app`, which the runtime hosts beside the
// user's function, as it does the blobs of files and descriptors (Services). entity.go has its
// decisions, state.go what its events do; both are pure.
//
// Each process has a Definitions. It takes the entity's state from a Source, compiles it into a
// Revision, and tells who waits for one. Apply checks files against what the function serves, and
// sends them to the entity. The process that owns the entity's partition promotes versions that are
// ready, and drops those that were kept long enough (rollout.go).
//
// Goroutines: Run has two, which follow the source and roll out; both end with its context. Apply
// and the other commands run on the caller's goroutine.
package definitions

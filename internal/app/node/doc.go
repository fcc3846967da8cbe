// Package node is one process of millrace put together: configuration, construction from the lowest
// layer up, named tasks, and the order in which they end. It is the only package that knows all
// layers.
//
// Read config.go (every setting), process.go (what a worker and a gateway have in common), node.go
// (what a worker is built of, in order), tasks.go (what runs, and how it ends), gateway.go (the
// same of a gateway), function.go (how a user function is attached and replaced), then what the
// admin port shows: admin.go and metrics.go. Package admin answers there.
//
// Start builds everything and starts its tasks in a lifecycle group, which owns every goroutine of
// the process; Wait returns when all have ended. The gateway stops accepting first, then the
// partitions release what they own, then a function that was started here ends, then store and log
// are closed: from the highest layer down. Calls on the admin port may overlap with everything, and
// end before the store is closed.
//
// Locks: readiness.mu, troubles.mu, rebuilds.mu and command.mu are held over nothing else, but that
// command.mu is held while a process is started or killed.
//
// Errors of Start and Wait say what could not be opened or what ended the process, and what to do
// about it. The status has the error of a task that goes on in spite of it, with its time. Engines
// report through hooks; the lines of the log are written here.
package node

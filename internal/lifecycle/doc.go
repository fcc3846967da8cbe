// Package lifecycle runs a group of named tasks that end together. A process is a list of calls of
// Start; when it ends, the cause names the task that ended it.
//
// Each task runs on one goroutine that the group starts and Wait waits for. The first task that
// fails, or panics, stops the others by cancelling their context with a cause; a task that returns
// nil is done. All methods may be called from any goroutine, except Wait from inside a task, which
// would wait for itself.
//
// An error from Wait is the cause of the stop, joined with errors of tasks that were stopping.
package lifecycle

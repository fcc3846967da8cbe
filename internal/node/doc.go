// Package node is one process of millrace put together: configuration, construction in floor order, named tasks, and the
// order in which they end. It is the only place that knows all floors.
//
// Start builds everything and starts its tasks in a lifecycle group, which owns every goroutine of the process; Wait
// returns when all have ended. The gateway stops accepting first, then the partitions release what they own, then store
// and log are closed: down the floors.
//
// Errors of Start and Wait say what could not be opened or what ended the process, and what to do about it. Engines report
// through hooks; the lines of the log are written here.
package node

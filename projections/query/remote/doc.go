// Package remote carries the rows of projections from the worker that has them to the one that
// answers a query: a server over an executor, and rows that are streamed from such a server.
//
// It starts no goroutine of its own. Rows belong to their caller, who closes them.
package remote

// Package inprocess runs services of package sdk in the worker's process: it adapts the types of
// sdk to those of entities/host, neither of which imports the other.
//
// It owns no goroutine: everything runs on that of the caller, and calls on different entities may
// overlap. New returns all mistakes in how the services are built, joined. Errors of an entity or a
// call are crashes of the user's code, which the host converts to what the caller gets.
package inprocess

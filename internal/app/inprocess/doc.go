// Package inprocess is the one adapter by which services of package sdk run in the worker's own process. The two sides, sdk
// and entities/host, speak the same words in different types, because neither may import the other.
//
// It owns no goroutine: everything runs on that of the caller, and calls on different entities may overlap. The errors of
// New are mistakes in how the services are built, all at once; those of an entity or a call are crashes of the user's code,
// and the host makes of them what the caller sees.
package inprocess

// Package testkit runs a whole worker in the process of a test: gateway, partitions and function as
// in production, with log and store in memory and a clock that the test controls. Package sdktest
// exports it to users; millrace's own tests use it directly.
//
// Start returns when the worker is ready; the worker owns its goroutines and ends with the test,
// which fails if the shutdown fails. Workers of several tests may run at the same time. A worker
// that cannot start fails the test.
package testkit

// Package testkit runs a whole worker in the process of a test: gateway, partitions and function as in production, with log
// and store in memory and a clock that the test turns. Package sdktest shows it to users; our own tests use it as it is.
//
// Start returns when the worker is ready; the worker owns its goroutines and ends with the test, which fails if that does
// not go in order. Workers of several tests may run at the same time. What cannot be started ends the test.
package testkit

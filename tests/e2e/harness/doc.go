// Package harness runs millrace as a process of its own, for tests: it builds the binary once for each test program, starts
// it on free ports with a data directory, waits until it is ready, kills it, and starts it again on the same ports and data.
//
// It is no part of the runtime, and it asserts nothing about what the process does: tests do, through the public and the
// admin port and the process's own words.
//
// A Process owns the goroutine that waits for its child; Kill and Stop, and the end of the test at the latest, wait for it.
// The methods of one Process must not overlap, except for Exited. What cannot be done ends the test with the process's
// last words.
package harness

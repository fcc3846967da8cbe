// Package harness runs millrace, and user functions, as processes of their own, for tests: it
// builds the programs once for each test program, starts them on free ports with a data directory,
// waits until they are ready, kills them, and starts them again on the same ports and data. With
// MILLRACE_E2E_RACE=1 the programs have the race detector.
//
// It is no part of the runtime, and it asserts nothing about what the processes do: tests do,
// through the public and the admin port and the processes' output.
//
// Where no process is needed, StartNode runs millrace in the test's own process, and a Function is
// a user function there, which can be stopped and started again.
//
// A Process and a Remote own the goroutine that waits for their child; Kill and Stop, and the end
// of the test at the latest, wait for it. The methods of one of them must not overlap, except for
// Exited and Ended. What cannot be done ends the test with the last output of the process.
package harness

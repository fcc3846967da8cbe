// Package e2e tests millrace as its users have it: as processes that are killed, started again, and fed with nonsense,
// beside functions and brokers to which the same happens.
//
// The crash tests let many callers work while something is killed with -9. Every caller remembers what it was promised: what
// was acknowledged must be there, what was refused as not applied must not, and of what got no answer nobody knows. Each
// test prints its seed, and closes with a line of figures. MILLRACE_CRASH_ROUNDS sets how often something is killed,
// MILLRACE_E2E_RACE=1 builds the programs with the race detector:
//
//	MILLRACE_CRASH_ROUNDS=50 go test ./tests/e2e -run Crash -v -timeout 1h
//
// The tables of mistakes show what a caller, a function, a disk or a configuration can get wrong: each row has status and
// message, and shows that the next command works and that nothing was lost.
//
// The goroutines of callers belong to a load, and end with it.
package e2e

// Package e2e tests millrace as its users run it: as processes, with functions and brokers, and
// with wrong input.
//
// The tables of mistakes show what a caller, a function, a disk or a configuration can get wrong:
// each row has status and message, and shows that the next command works and that nothing was lost.
//
// The tests of pauses let one caller for each partition of a cluster call through a gateway, while
// an owner is killed, stopped, drained, frozen or cut off, or a broker hangs. No call may fail,
// each is counted once, and how long callers waited is printed. MILLRACE_PAUSE_ROUNDS sets how
// often that happens:
//
//	MILLRACE_PAUSE_ROUNDS=40 go test ./tests/e2e -run 'FailOver|HandOver' -v -timeout 1h
//
// Package fire kills processes under load and checks every history. The goroutines of callers
// belong to a probe, and end with it.
package e2e

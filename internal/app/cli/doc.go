// Package cli is the command tree of all millrace binaries: of millrace itself, and of programs
// that host their functions in process.
//
// Commands about a running process call its admin port by gRPC; `call` calls its public port.
// Output is a table on a terminal and one JSON document per line in a pipe. Exit codes are stable:
// see the constants.
//
// `dev`, `run` and `gateway` own the process that they start, and the goroutine that waits for its
// end; Main owns the one that waits for signals. No other command starts a goroutine.
package cli

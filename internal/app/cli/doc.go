// Package cli is the command tree of every millrace binary: of millrace itself, and of a program that hosts its functions in
// process.
//
// Commands that ask a running process speak gRPC to its admin port, or to its public port for `call`. Output is a table on a
// terminal and one JSON document per line in a pipe. Exit codes are stable: see the constants.
//
// `dev` and `run` own the node that they start, and the goroutine that waits for its end; Main owns the one that waits for
// signals. No other command starts a goroutine.
package cli

// Command bench measures millrace against a bare gRPC echo, in one run on one machine: closed loop,
// warm-up, several rounds in turns, medians. It starts the servers as processes of their own, so
// that the operating system measures the cost of each. `make bench` runs it; docs/performance.md
// has its figures.
//
// Part queries measures one worker of examples/orders with 64 callers: queries as ratios to the
// echo, commands with its projections as a ratio to the same commands without, and the wait for the
// row of a command that was answered. The rows of lists are decoded, as clients do it. Its rows are
// the owner's: what followers and several workers add is not in it.
//
// Each closed-loop client has one goroutine, owned and waited for by the round that starts it. An
// error ends the run: figures with failures are not valid.
package main

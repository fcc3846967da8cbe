// Command bench measures millrace against a bare gRPC echo, in one run on one machine: closed loop,
// warm-up, several rounds in turns, medians. It starts the servers as processes of their own, so
// that the operating system measures the cost of each. `make bench` runs it; docs/performance.md
// has its figures.
//
// Each closed-loop client has one goroutine, owned and waited for by the round that starts it. An
// error ends the run: figures with failures are not valid.
package main

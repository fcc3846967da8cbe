// Command bench measures millrace against a bare gRPC echo, in one run on one machine: closed loop, warm-up, several rounds
// in turns, medians. It starts the servers as processes of their own, so that what a server costs is what the operating
// system says of it. `make bench` runs it; docs/performance.md has its figures.
//
// One goroutine for each closed-loop client, owned and waited for by the round that starts it. An error ends the run: a
// figure with failures in it is none.
package main

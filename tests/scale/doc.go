// Command scale simulates groups of many workers: the real plan, balancer, encodings, routes and
// router, with simulated members, in virtual time, without a socket. It prints what joins,
// deaths and restarts cost, the size of a group's table, and what an old table costs a router.
// `make scale` runs it; docs/scale.md has its figures and what they mean.
//
// Counts depend only on the arguments and the seed; times and memory depend on the machine. It
// starts no goroutine.
package main

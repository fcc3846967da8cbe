// Command scale rehearses a group of many workers on paper: the real plan, balancer, encodings, routes and forwarder, with members
// that are only played, in virtual time, without a socket. It says what joins, deaths and restarts cost, what a group's table takes,
// and what a router pays for an old one. `make scale` runs it; docs/scale.md has its figures and what they mean.
//
// What is counted depends on the arguments and the seed alone; what is measured (times, memory) on the machine. It owns no
// goroutine: everything happens one after the other.
package main

// Package balance is how workers in a Kafka group say who they are, decide who owns and who follows
// what, and tell it to each other: the balancer that the group's client calls, and the bytes of join
// data and tables. Package kafka keeps memberships with it.
//
// It starts no goroutine. Errors are about data that no worker of this release has written.
package balance

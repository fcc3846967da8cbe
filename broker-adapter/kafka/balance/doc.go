// Package balance assigns partitions within a Kafka group of workers: the balancer that the group's
// client calls, and the encoding of join data and routing tables. Package kafka uses it for
// memberships.
//
// It starts no goroutine. Errors mean data that was not written by a compatible worker.
package balance

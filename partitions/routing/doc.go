// Package routing brings commands to the owners of their partitions, on this worker or on another
// one, and carries out what their outcomes ask for: side effects and forwards, after commit. A
// worker has a Router, over its own partitions (Partitions) and the connections to other workers
// (Peers); a gateway without a function has a RemoteRouter. Both use a Table: who owns which
// partition, by the newest rebalance that the process knows.
//
// Package partitions imports it: the manager updates the table, makes the router, implements
// Partitions, and hands the router to its partitions, which use it to deliver their effects and to
// run the commands of their timers. A gateway makes its RemoteRouter in internal/app/node.
//
// Commands run on the goroutine of their caller. Router owns the goroutines of side effects of
// actions that no caller waits for; Router.Wait waits for them. Everything here is safe for
// concurrent use.
package routing

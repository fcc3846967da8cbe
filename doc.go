// Package millrace runs functions over entities inside a worker: one program that keeps their state
// on an event log and serves them over gRPC, gRPC-Web, Connect and HTTP/JSON.
//
//	func main() { millrace.Main(cart.Service, counter.Service) }
//
// is a whole worker, with every command that millrace has: dev, run, call, get, history, log tail,
// status. A service is written with package sdk, which knows nothing of this package, so that the
// same value can be served as a process of its own beside any worker (sdk.Serve).
//
// # The tour in one page
//
// A call arrives at package gateway, which finds the method in the catalog of package
// entities/discovery and makes an entities.Command of it. Package partitions finds the partition of
// the entity, lets the function decide (package entities/host), appends what it decided to the log
// (broker-adapter: Kafka, or one embedded in this process), folds it into the store (package
// materializer) when the log has it, and only then lets the answer out. Everything in memory and in
// the store can be rebuilt from the log. Package internal/app/node puts these together;
// internal/app/cli is the command line.
//
// # Errors and goroutines
//
// Main does not return. It owns no goroutine: the node does, and ends them all before the process
// ends.
package millrace

// Package admin answers what the command line and the console ask of a running process, on its
// admin port: one service, millrace.admin.v1, for a worker and for a gateway, and the pages
// /status, /metrics, /readyz and /livez. The service is served by the protocols of the public port,
// through gateway.Front.
//
// Read process.go first: a process is what fills the interface Process, and what a gateway does not
// have is nil in it. Then there is one file for each group of methods: status.go, entity.go,
// history.go, tail.go, parked.go, repair.go, verify.go and cluster.go. A new method is a message
// and an rpc in admin.proto, a handler in a file here, a part of Process if the handler needs one
// that is not there yet, and a command in internal/app/cli.
//
// Package node imports it, and nothing else does.
//
// Goroutines: Server.Serve owns that of the HTTP server. A handler runs on the goroutine of its
// call and ends the ones that it starts, but that a repair goes on when its caller leaves. All
// methods may be called from many goroutines. Serve returns when no call of the service runs any
// more, because handlers read a log and a store that are closed after it.
//
// Errors of handlers are gRPC statuses: NOT_FOUND and INVALID_ARGUMENT speak of the request,
// FAILED_PRECONDITION says what has to change first, UNAVAILABLE that the same request may succeed
// later or elsewhere, UNIMPLEMENTED that a gateway was asked for what only a worker has.
package admin

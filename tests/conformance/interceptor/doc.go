// Package interceptor stands between a proxy and a user function: a gRPC server that relays every call to the function, as it
// is, and records what both sides said and how each side ended. Tests take the recorded calls in order and compare whole
// messages.
//
// Messages are relayed as bytes, whatever is in them, and recorded as messages of the types that the method declares, with
// fields that those do not know. A half-close of the proxy (the end of its messages) is told from a reset.
//
// Each relayed call has two goroutines: the gRPC server's handler, which carries what the function says, and one that
// carries what the proxy says. Both end with the call; Close waits for them. Any number of calls may be under way; tests
// take them from one goroutine.
package interceptor

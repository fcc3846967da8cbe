// Package interceptor is a gRPC server between a proxy and a user function. It relays every call
// unchanged, and records the messages of both sides and how each side ended. Tests take the
// recorded calls in order and compare whole messages.
//
// Messages are relayed as bytes and recorded as messages of the types that the method declares,
// with unknown fields. A half-close of the proxy (the end of its messages) is distinguished from a
// reset.
//
// Each relayed call has two goroutines: the gRPC server's handler, which relays the function's
// messages, and one that relays the proxy's. Both end with the call; Close waits for them. Any
// number of calls may run at once; tests take them from one goroutine.
package interceptor

// Package discovery makes the handshake of the Cloudstate protocol and turns the function's answer
// into a Catalog of services, methods, kinds and key fields.
//
// Begin at Handshake, or at NewCatalog when there is an answer already. A Catalog is immutable: any
// number of goroutines may use it at the same time, and everything that it hands out is shared and
// must not be changed. Its descriptors live in a registry of their own; nothing is ever registered
// in protobuf's global one, because file names of functions are arbitrary.
//
// The package does not carry commands to functions; entities/host does. It starts no goroutine.
//
// Errors: a *RejectedError says that the function's answer cannot be served. Asking again gets the
// same answer, so it is not retried. An *entities.Error from a Method says that a caller's bytes
// are no command of it.
package discovery

// Package gateway is the public door of millrace: one port on which a user function's services are called by native gRPC,
// gRPC-Web, Connect and plain HTTP/JSON. Every call takes one path, whatever it came in by: readCommand turns it into an
// entities.Command, a Dispatcher runs that, and the answer is written back, or the error by the one table in errors.go.
// The package knows nothing of partitions or logs.
//
// # Where a connection goes
//
// A connection is given to one of two servers when it opens, because native gRPC must not pay for transcoding (sniff.go):
//
//   - HTTP/1.1 goes to net/http.
//   - HTTP/2 whose first request is native gRPC goes to grpc-go's own transport.
//   - HTTP/2 whose first request is something else (Connect, gRPC-Web, HTTP/JSON) goes to net/http.
//
// Clients wait for the server's SETTINGS before they send a request, so the sniff sends SETTINGS of its own, and takes the
// client's acknowledgement of them out of what the chosen server reads. An HTTP/2 connection that has opened in order and
// then says nothing until Options.SniffTimeout is taken for a gRPC channel that waits for its first call.
//
// Native gRPC on a connection of net/http works too, more slowly. The reverse does not: a connection that began with native
// gRPC carries nothing else, and its other requests are answered with 415. Proxies that mix protocols on one connection to
// an upstream must not mix native gRPC with others.
//
// # Generations
//
// Everything that follows from a catalog is one generation, replaced as a whole by SetCatalog. The connections of the
// generation before are asked to go (GOAWAY), so that the next call of their clients sees the new catalog, and cut after
// Options.RetireAfter. Until the first catalog, calls wait, bounded in count and time.
//
// # Plain HTTP
//
// A request that is not gRPC, gRPC-Web or Connect is plain. It reaches a method by its google.api.http rules, or by
// POST /<package.Service>/<Method> with the message as JSON. JSON in is strict: unknown fields are refused. JSON out is
// compact, with defaults, lowerCamelCase names, and 64-bit numbers as strings. A failure without a code of its own answers
// 500 with the bare description as body, as Cloudstate does; every other error answers with {"code","message","details"}.
//
// A request to a method that streams its input is a stream of one message. A method that streams its output answers with
// one JSON document per line, or as server-sent events if the request says Accept: text/event-stream. An error before the
// first message is an ordinary error response; after it, the connection is cut, or an event named error is sent.
//
// In the path, an entity id may contain any character in its percent-encoded form. A raw colon in the last segment begins
// a custom verb if some rule has that verb, and belongs to the id otherwise. Query parameters never overwrite what the path
// or a whole-message body says.
//
// What is not done, and how it is refused:
//
//   - application/grpc-web-text is answered with 415; use application/grpc-web+proto.
//   - response_body of a streaming method has no effect; the messages are printed whole.
//   - Two rules with the same method and path are refused when the catalog is set, with both names.
//   - Where one rule's literal segment stands at the place of another's variable, and the literal path is known only with
//     other HTTP methods, the answer is 405.
//   - Over net/http, only requests that are one message have a time by which their body must have arrived (Options.BodyTimeout).
//   - Responses are not compressed, except to native gRPC clients that compress their requests.
//   - There are no CORS headers: browsers need a proxy, or the same origin.
//
// # Goroutines and overlap
//
// Serve runs on its caller's goroutine. The Server owns one goroutine per connection that is being sniffed, one for each
// inner server, one per retired generation, and, for a native call that streams its input, one that reads ahead by one
// message. Shutdown stops them all and waits for them. A Dispatcher is called from many goroutines at once. All methods of
// Server may be called from any goroutine.
//
// # Errors
//
// What a caller is told is decided in errors.go alone. The trailer or header millrace-outcome says what is known of a
// command that did not succeed: refused, not_applied, applied or unknown. Errors that Serve returns are those of its listener.
package gateway

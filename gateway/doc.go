// Package gateway serves a user function's services on one port by native gRPC, gRPC-Web, Connect
// and plain HTTP/JSON. Calls of all protocols take one path: readCommand makes an entities.Command,
// a Dispatcher runs it, and the gateway writes the answer, or the error according to the table in
// errors.go. The package knows nothing of partitions or logs.
//
// # Where a connection goes
//
// When a connection opens, it is passed to one of two servers, so that native gRPC has no overhead
// for transcoding (sniff.go):
//
//   - HTTP/1.1 goes to net/http.
//   - HTTP/2 whose first request is native gRPC goes to grpc-go's own transport.
//   - HTTP/2 whose first request is something else (Connect, gRPC-Web, HTTP/JSON) goes to net/http.
//
// Clients wait for the server's SETTINGS before they send a request, so the sniffer sends SETTINGS
// of its own, and removes the client's acknowledgement of them from what the chosen server reads.
// An HTTP/2 connection that has exchanged SETTINGS and then sends nothing until
// Options.SniffTimeout is taken for a gRPC channel without a call.
//
// Native gRPC also works on a connection of net/http, more slowly. The reverse does not: on a
// connection that began with native gRPC, other requests get 415. Proxies that mix protocols on one
// connection must not mix native gRPC with others.
//
// # Generations
//
// Everything that depends on a catalog is one generation, replaced as a whole by SetCatalog. The
// connections of the previous generation get GOAWAY, so that the next call of their clients sees
// the new catalog, and are closed after Options.RetireAfter. Before the first catalog, calls wait,
// bounded in number and time.
//
// # gRPC-Web and Connect
//
// These calls become calls of a gRPC server inside the process, with protobuf messages that are not
// compressed; what it says is written in the caller's form (rpc.go, envelope.go, grpcweb.go,
// connect.go; docs/adr/0024). Errors are always in the form of the protocol, with the outcome as a
// trailer, also for calls that never ran. A JSON request without Connect-Protocol-Version is plain
// HTTP. A method without side effects may be called by Connect's GET.
//
// # Plain HTTP
//
// A request that is not gRPC, gRPC-Web or Connect is plain. It calls a method by its
// google.api.http rules, or by POST /<package.Service>/<Method> with the message as JSON. JSON
// requests are strict: unknown fields are refused. JSON replies are compact, with defaults,
// lowerCamelCase names, and 64-bit numbers as strings. A failure of the function without a code is
// answered by 500 with the description as body, as in Cloudstate; every other error by
// {"code","message","details"}.
//
// A request to a method that streams its input is a stream of one message. A method that streams
// its output answers with one JSON document per line, or with server-sent events if the request has
// Accept: text/event-stream. An error before the first message is an ordinary error response; after
// it, the connection is cut, or an event named error is sent.
//
// The package httprule says which rule serves a request and how its path, query and body become a
// message. What cannot be bound exactly is refused with 400, the place and the field: nothing is
// dropped, guessed, or overwritten. In the path, an entity id may contain any character in its
// percent-encoded form. HEAD is answered as GET is; for a method that streams its output, without
// calling it. Content types and encodings are compared without regard to case; a request without a
// body may have any content type. Two rules with the same method and path are refused by
// SetCatalog, with both names.
//
// Limitations:
//
//   - Over net/http, only the body of a request with one message has a deadline
//     (Options.BodyTimeout).
//   - Responses are not compressed, except to native gRPC clients that compress their requests.
//
// # Browsers
//
// Pages of the origins in Settings.CORSOrigins may call by every protocol but native gRPC, with any
// header, and read every header of a response (cors.go). A preflight request is answered before
// anything else; for another origin with 403 and the reason. Other requests are served whatever
// their origin: it is the browser that keeps the answer from the page. A function cannot set
// headers of CORS.
//
// # Goroutines and overlap
//
// Serve runs on its caller's goroutine. The Server owns one goroutine per connection that is being
// sniffed, one per inner server, one per retired generation, and one per native call that streams
// its input, which reads ahead by one message. Shutdown stops them all and waits for them. A
// Dispatcher is called from many goroutines at once. All methods of Server may be called from any
// goroutine.
//
// # Errors
//
// Only errors.go decides what a caller gets. The trailer or header millrace-outcome says what is
// known of a command that did not succeed: refused, not_applied, applied or unknown. Serve returns
// errors of its listener.
package gateway

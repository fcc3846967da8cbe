// Package byhand is the user function of Cloudstate's acceptance tests, written straight against the protocol's services, so
// that no library of ours stands between a proxy and what the tests see. It behaves as functions built with the Java and Go
// SDKs do: an event is applied as soon as it is emitted, so a command that is refused after it asks for a restart; or, by an
// option, as those built with the Node SDK, which apply events when the command has succeeded.
//
// What breaks the protocol (a command before Init, a gap in the events, a command for another entity) ends the stream with
// a Failure, as in the SDKs. The handlers run on the gRPC server's goroutines and share nothing.
package byhand

// Package byhand is the user function of Cloudstate's acceptance tests, written directly against
// the protocol's services, without package sdk. It behaves like functions built with the Java and
// Go SDKs: an event is applied as soon as it is emitted, so a command that is then refused asks for
// a restart; or, by an option, like those built with the Node SDK, which apply events when the
// command has succeeded.
//
// A violation of the protocol (a command before Init, a gap in the events, a command for another
// entity) ends the stream with a Failure, as in the SDKs. The handlers run on the gRPC server's
// goroutines and share nothing.
package byhand

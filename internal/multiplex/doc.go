// Package multiplex carries many conversations on one gRPC stream: between workers, and between
// workers and functions. A Link is one side of such a stream: the greeting, frames of many
// conversations in one message, one writer at a time, the end. Codec writes and reads messages
// without a copy, and Runners are goroutines that handle frames.
//
// # The end
//
// The side that opened a link ends it: it half-closes the stream when the link is over, or cancels
// it. The side that accepted it ends when its gRPC handler returns, after an answer to everything
// that runs. A message that cannot be sent ends the link's context, and no other message is sent;
// the reader then sees the end of the stream and breaks the link.
//
// The one kind of goroutine that the package starts is that of Runners, whose Close waits for them.
// Run and Read of a Link are called on goroutines of its owner, and return when the link ends.
package multiplex

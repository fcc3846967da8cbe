// Package multiplex is what links share that carry many conversations on one gRPC stream: frames of many of them in one message
// (Lane), messages that are written and read without a copy (Codec), and goroutines that do what the frames ask for (Runners).
//
// The one kind of goroutine is that of Runners, whose Close waits for them. A Lane is guarded by its owner's lock.
package multiplex

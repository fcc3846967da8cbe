// Package peer carries commands from one worker to another: a Client for what this process sends, a
// Server for what it is sent.
//
// Between two processes there is one connection for each direction, and on it one link: a gRPC
// stream on which frames of many commands and answers share messages. Whoever has a frame and finds
// nobody writing writes; what comes meanwhile goes out together. Everything that is asked rarely
// (positions, the function's spec, status pages, streamed calls) is a gRPC call of its own on the
// same connection. The link opens with a hello, in which each side says who it is and whom it
// expects, and ends with a good-bye, unless the process dies.
//
// # Errors
//
// What the other worker says comes back as it said it. Of its own, a Client says Moved or
// Overloaded, NotApplied, for a command that did not leave this process, and LostOutcome, Unknown,
// for one that left and will not be answered. It never tries again: the router does, which also
// knows where the partition went.
//
// # Dead or slow
//
// A process is dead when its link ended without a good-bye and its address then refuses a
// connection: its socket is gone. One that is stopped or slow still has its socket, so it is never
// called dead, and its link lasts for 15 s without a sign of life. A line that was cut is noticed
// in about 5 s, by the kernels, whatever the process does. When the group has given such a worker
// up, and Watch does not name it any more, commands of entities that are on their way to it are
// given up after a moment.
//
// # Goroutines
//
// A Client has two for each connection: its keeper, which opens links and reads answers, and the
// link's writer, for which the keeper waits. Close waits for the keepers. A caller of Dispatch
// writes its command itself while little is on its way, and waits for the answer; of
// DispatchStream, it reads, and waits for the goroutine that sends. A Server has one reader for
// each link, grpc-go's, and runs each command on a runner: of those some stay idle instead of
// ending. Shutdown waits for all. Hooks are called by keepers.
package peer

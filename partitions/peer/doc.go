// Package peer carries commands from one worker to another: a Client for what this process sends, a
// Server for what it receives.
//
// Between two processes there is one connection for each direction, and on it one link: a gRPC
// stream on which frames of many commands and answers share messages. A goroutine with a frame
// writes it if no other one is writing; frames that come in between go out together. Rare calls
// (positions, the function's spec, status pages, streamed calls) are gRPC calls of their own on the
// same connection. The link opens with a hello, in which each side names itself and the process
// that it expects. It ends with a last message, leave, unless the process dies.
//
// # Errors
//
// An error of the other worker is passed on unchanged. A Client itself returns Moved or Overloaded,
// NotApplied, for a command that did not leave this process, and LostOutcome, Unknown, for one that
// left and will not be answered. It never tries again: the router does, which also knows the
// partition's new owner.
//
// # Rules of a link
//
//	L1  A command is NotApplied only if its frame did not leave this process: it was refused before
//	    it got one, or was withdrawn while the frame waited. One that may be on the line is Unknown.
//	    (sent)
//	L2  Commands on a link have numbers that only go up. The caller's side counts what has no
//	    answer, and stays below the limits of both sides; the other side ends a link that does not.
//	L3  Every command that was received is answered, also one whose caller has left: the answer is
//	    what frees its place on both sides.
//	L4  A link that is retired takes nothing new, and ends when its last command and its last single
//	    call have ended.
//
// # Dead or slow
//
// A process is dead when its link ended without a leave message and its address then refuses a
// connection: its socket is gone. One that is stopped or slow still has its socket, so it is never
// reported dead, and its link lasts for 15 s without a sign of life. The kernels notice a line that
// was cut in about 5 s, whatever the process does. When the group has removed such a worker, and
// Watch no longer names it, commands of entities that are on their way to it are given up after a
// moment.
//
// # Goroutines
//
// A Client has two for each connection: its keeper, which opens links and reads answers, and the
// link's writer, for which the keeper waits. Close waits for the keepers. A caller of Dispatch
// writes its command itself while few are on their way, and waits for the answer; a caller of
// DispatchStream reads, and waits for the goroutine that sends. A Server has one reader for each
// link, grpc-go's, and runs each command on a runner; some runners stay idle instead of ending.
// Shutdown waits for all. Hooks are called by keepers.
package peer

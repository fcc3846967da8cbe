// Package host carries commands to user functions and brings back what they decide. A function is
// remote, behind the Cloudstate protocol (Remote), or code in this process (InProcess); the engine
// sees no difference, because a Host hides it. The package stores nothing: it gets an entity's
// state from the engine's loader and returns outcomes of which nothing is durable yet.
//
// Read it in this order: function.go (what a function is), host.go, remote.go, session.go (the life
// of one conversation), exchange.go (one command in it), kind.go (what differs by kind:
// eventsourced.go, value.go), link.go and place.go (sessions that share one stream, where the
// function knows of that), action.go, local.go.
//
// Goroutines: each remote session on a stream of its own has one that receives; a link has one that
// receives for all its sessions and one that sends when they must not; a Remote has one more that
// sends reports. Remote.Close stops all of them and waits. A streamed action has one that sends for
// as long as the call lasts. In-process functions run on the caller's goroutine; an action
// whose caller has a deadline has one of its own, which ends with the action (caller.go).
//
// What may overlap: everything on a Host and on a Function. The calls on one session never overlap;
// the engine guarantees it. There are three locks, that of a session, that of a link and that of a
// Remote. None is held while the other is taken, and none during a call to a function or to a hook.
//
// Errors are *entities.Error. FunctionFailed from a session means that it has ended and that its
// memory is worthless; the texts are those of Cloudstate's reference proxy. Unavailable means that
// the function could not be reached in time.
package host

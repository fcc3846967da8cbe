// Package sdk is for writing functions: the business logic of stateful entities and of stateless
// actions, in plain Go, against the messages and services of a proto file. Nothing is generated
// beyond what protoc-gen-go and protoc-gen-go-grpc make of it.
//
//	var Counter = sdk.Value("counter",
//		sdk.HandleValue(counterv1.CounterService_Increment_FullMethodName, increment),
//		sdk.HandleValue(counterv1.CounterService_Get_FullMethodName, get),
//	)
//
// There are three kinds of services, and one constructor for each:
//
//   - [EventSourced]: the state is the sum of events. Handlers decide ([Handle]), events change the
//     state ([On]).
//   - [Value]: the state is one message that a command replaces or deletes ([HandleValue]).
//   - [Action]: no state; calls in all four shapes of gRPC ([Unary], [ServerStream],
//     [ClientStream], [Bidi]).
//
// The same [Service] runs inside a worker (millrace.Main) and as a process of its own beside any
// Cloudstate proxy ([Serve]). This package knows nothing of the worker: what a runtime needs of a
// service is in runtime.go.
//
// # What is checked, and when
//
// A constructor never panics and never fails, because services are package-level variables. It
// checks everything that can be checked (each method has a handler, and one of the right types;
// commands have an entity key) and keeps what it found; [Check] reports all of it at once, in words
// that name the method and the fix. [Serve], millrace.Main and sdktest call it before they do
// anything else. What only shows when a handler runs (an event without [On], an effect whose
// message is not what its target takes) is a crash of that command; the first unit test with
// sdktest finds it.
//
// # What a handler's end means
//
//   - A message and no error: the command is accepted. The caller gets the message when everything
//     is durable. With a nil message the caller gets no message.
//   - [Refuse]: a decision. Nothing is written, no effect is sent, the caller gets code and
//     message.
//   - [Forward]: the answer of another method is the caller's answer. What was emitted is kept,
//     also where that method refuses.
//   - The error of cmd.Context() after that has ended: the command is given up. Nothing is written,
//     the caller learns that its deadline has passed, and commands behind this one are not
//     concerned. A handler need not look at the context: its caller is let go all the same, and
//     what it decides counts.
//   - Any other error, and a panic: a crash. Nothing is written, the caller learns that and no
//     more, the log gets error and stack, and the image of the entity is built anew from what is
//     stored.
//
// # What a command may cause
//
//   - cmd.Effect(method, message): a command for another entity or an action, sent when this one is
//     durable.
//   - [Forward]: the same, and its answer is the caller's.
//   - cmd.After(d, name, method, message): a command for this entity, later. cmd.Every does so by a
//     schedule, cmd.Cancel takes a timer away. Entities have timers, actions have none.
//
// The target of an effect may refuse it. The effect decides what happens then:
//
//   - by default the refusal is kept, with message, code and text, in the history of the entity
//     that asked, and an operator sees it in `millrace parked --refused`. A partition keeps the
//     newest 1 000.
//   - [OnRefused]: this entity gets a command with the refusal, exactly once, and undoes what it
//     did.
//   - [IgnoreRefusal]: it does not matter, and nothing is kept.
//
// A target that crashes or cannot be reached has refused nothing: the effect is sent again. The
// caller of a command with a [Synchronous] effect is answered as usual when the effect is refused.
// A refused forward is refused to the caller, with the target's code and message. What the command
// itself stored (events, a value, effects, timers) is kept all the same: then the caller reads the
// outcome applied, and not refused. To store nothing in that case, store nothing beside the
// forward.
//
// A function that fails ten times on an effect, or on the command of a timer, is not asked again:
// the effect, or the timer's command, is parked, and an operator sends it again or drops it
// (`millrace parked`). Of a recurring timer only this occurrence is parked; the schedule goes on. A
// parked command runs when it is sent again, even if the entity has set or cancelled the timer
// since; its caller is then an effect, not the timer.
//
// What an action causes is sent at once and not kept: when something of it took effect and
// something else then fails, the caller learns that the action took effect in part (unknown). A
// command id on an action is refused: an id makes a command of an entity happen once, and an action
// keeps nothing by which it could be known again.
//
// What an entity's command causes is stored with what it decides, or not at all. A timer's command
// is like any other; it has no caller, so that ID and Principal are empty. Outside of a
// millrace worker (a Cloudstate proxy of another make) effects and forwards work as that proxy does
// them, and a command that sets a timer crashes: the timer would be lost.
//
// # Goroutines
//
// A handler runs alone for its entity: the next command of that entity starts when it has returned.
// Handlers of different entities, and of actions, overlap. A command and what it hands out belong
// to the handler and end with it. A handler starts no goroutine that outlives it and must not block
// for long. The package itself starts goroutines only in [Server]: one for each entity that a
// remote worker keeps active, ended and waited for by Server.Close.
package sdk

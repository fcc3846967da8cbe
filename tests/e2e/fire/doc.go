// Package fire tests millrace by fault injection: whole processes, while everything around them
// fails.
//
// A world is a worker with everything around it: clients that make one call after the other, a
// nemesis that injects faults, and checkers. There are worlds on the embedded log, on disks that
// are full from time to time, with a function in a process of its own or in one that the worker has
// started, on Apache Kafka, to which the worker connects through a proxy, with such a function, and
// of several workers and gateways on several brokers.
//
// Every command of an entity gives it something that no other command gives, takes that away, shuts
// it, or looks; so every answer shows which commands took effect, and how often. Calls and answers
// are put in order by one monotonic clock; what got no answer may take effect at any time. An
// entity that has had its share of commands is read a last time, its whole history is checked
// (check_test.go: broken promises that have a name, then linearizability), and what it must and may
// hold is kept. At the end of a world every entity is compared with that once more, and the log
// itself is read with the reader rule: each acknowledged command is in it once, written by the
// owner.
//
// What callers do to each other is a fault as well: two calls with one id that both leave, values
// near every limit, effects that cannot be delivered. So is what an operator does: settings of the
// journal's topic, members and the group removed, clocks set, a worker started with other settings.
// What cannot be undone ends a world on Kafka: the journal deleted and created again, its records
// deleted, partitions added, compaction that takes records. There a partition that is not served is
// right if it names what was lost, and what is served must be whole.
//
// Where there are several workers, clients also ask for states that need not be the newest. Such a
// look is put into the order as one that was asked for earlier: a bounded one as much earlier as it
// allows, one with a token when what the token is of was asked for, an eventual one at the
// beginning. How old the answers were at least, by when something that they lack was acknowledged,
// is printed with what was promised.
//
// Until the first fault no call may fail, and while only the function fails no outcome may be
// unknown (trouble_test.go). At the end of a world every command with an id and an unknown outcome
// is sent again until it is answered, and a single worker is killed once more: what it shows then
// was durable. A plain reader of the log, which knows only keys and values, finds the event of
// every item that a cart holds. The store is deleted, and what the worker shows of its entities and
// its journal must be the same after.
//
// A fault counts when an effect of it was seen, not when it was tried. Decisions follow a seed,
// which each run prints; the timing of processes does not:
//
//	MILLRACE_FIRE_FAULTS=270 MILLRACE_FIRE_OPERATIONS=500000 go test -run TestFire -v -timeout 0 ./tests/e2e/fire
//	MILLRACE_FIRE_KINDS='store|log' go test -run TestFire/embedded -v ./tests/e2e/fire
//	MILLRACE_MUTATION=barrier go test -run TestFire -v ./tests/e2e/fire  # a safety line taken out: the run must fail
//
// README.md in tests lists all settings.
//
// Clients and checkers are goroutines of their world, which waits for them at its end; those of the
// proxy end with it.
package fire

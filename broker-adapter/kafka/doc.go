// Package kafka is the log on Apache Kafka (or Redpanda). It is the only package that knows the Kafka client.
//
// Enter at Open; everything else is broker.Log and broker.Group, and Members.
//
// # Appending
//
// One idempotent producer client with acks=all serves all partitions; the caller chooses the partition. Each partition has
// a queue of appends in the order of the calls, and results leave from its head. An append that has no known good outcome
// fails everything behind it until its result was delivered: what was decided later may build on it, so it must not reach
// the log alone. An append made while the callback of a failure still runs is refused too (ErrNotWritten), so an owner that
// takes one lock around its calls of Append and in its callbacks never sends what builds on a lost record. Only
// ErrTooLarge, found before anything is sent, fails one append by itself.
//
// When the broker contradicts the producer's sequence numbers (it lost data, or forgot the producer), the client stops for
// good and its open appends fail with unknown outcome; later appends get a new producer, partition by partition, once the
// old results are delivered.
//
// One gap is the client library's: when a batch ends for any other reason (no permission, an invalid record), an append
// that is made in the microseconds before the library reports it is sent nevertheless. The per-entity sequence in the
// records shows such a hole.
//
// # Reading
//
// A Reader begins with a small client of its own: a cold client has its first records after 4 to 6 ms, a shared warm one has to
// learn of the partition first. Whoever has come to the end, and has been reading for a second, waits in the tail (tail.go)
// instead: one client for all, with one connection to each broker and one fetch at a time on it, however many partitions a worker
// follows. It rests a little after each fetch that brought something, unless somebody is in a hurry (Log.Hurry): an owner that takes
// over, a read that waits. What waits there for one reader is bounded; whoever is slower reads on with a client of its own, so it holds up
// nobody. So does whoever met an error: all trouble is looked into in one way. The tail takes only readers that stand where its
// client has nothing older to hand out, so no record is missed or met twice; and each new client checks the leader epoch of the
// last record that was read. A reader never moves by itself: when the broker says that the position is out of range, the leader is looked up at all
// brokers (the highest leader epoch wins) and asked, because a former leader that was paused says so with nothing lost.
//
// # Membership
//
// A static member of a classic consumer group on the journal, in the cooperative protocol, with a balancer of our own (package balance): each
// member's join data carry its address, its incarnation and how far its images are (joindata.go); the leader lets broker.Plan
// decide (balancer.go); each assignment carries the table (table.go says how large a group may be). A partition that moves is
// given to its next owner in the balancing that takes it from the last one (ADR 14). Who has released something joins again, so a move
// of many partitions goes on by itself, broker.MaxMoves at a time. What it waits for are images that become warm: then a worker for
// which Table.Due is true asks for a balancing (Rebalance), at most once a second. The group client never fetches.
//
// A membership that ends in order asks for one more balancing first, as one that is leaving: it releases its partitions when it hears
// to whom they go, and leaves the group then.
//
// A worker that is killed and comes back within its session has its partitions back without a balancing. The table that it gets
// names its former process; it puts itself into its place, and asks for a balancing so that all others hear of it.
//
// Evict has the members of this process join at once: with their heartbeats they would hear of it later. It names the member by the id that the last table told for that incarnation, so it needs no look at the group, which could
// not tell who is who while it balances; and a process that has come back is not touched.
//
// # Goroutines
//
// The Log owns those of its clients, one that hands out what the tail's client reads, one per request to a broker, one per topic that is being looked up, one that delivers
// results of appends that were refused without being sent, and one that closes a stopped producer. Close ends and waits
// for all of them, and for running Assignments calls. Results and assignment events are called on goroutines of the clients: results of one
// partition one at a time, those of several partitions possibly at once. A Reader starts none that outlive its Close.
//
// # Locks
//
// partition.mu comes before Log.mu, Log.mu before topics.mu; reader.mu before tail.mu, tail.mu before Log.mu. The tail's
// client is told of partitions under tail.mu, and calls nobody back. No lock is held while a callback runs or a request is under way.
//
// # Errors
//
// Requests that got no answer are broker.ErrUnreachable. A fetch error that the client can mend by itself is counted
// (Stats.FetchRetries) and retried until the caller's context ends.
package kafka

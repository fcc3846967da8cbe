// Package kafka is the log on Apache Kafka (or Redpanda). It is the only package that knows the
// Kafka client.
//
// Open returns a Log, which implements broker.Log and broker.Group.
//
// # Appending
//
// One idempotent producer client with acks=all serves all partitions; the caller chooses the
// partition. Each partition has a queue of appends in the order of the calls; results are delivered
// from its head. An append without a known good outcome fails all appends after it until its result
// was delivered: they may depend on it, so they must not reach the log without it. An append made
// while the callback of a failure still runs is refused too (ErrNotWritten), so an owner that takes
// one lock around its calls of Append and in its callbacks never sends a record that depends on a
// lost one. Only ErrTooLarge, detected before anything is sent, fails a single append.
//
// When the broker contradicts the producer's sequence numbers (it lost data, or forgot the
// producer), the client stops and its open appends fail with unknown outcome; later appends get a
// new producer, partition by partition, once the old results are delivered.
//
// The client library leaves one gap: when a batch fails for another reason (no permission, an
// invalid record), an append made in the microseconds before the library reports it is still sent.
// The ordinals in the records show such a gap to the reader rule.
//
// # Reading
//
// A Reader begins with a small client of its own: a new client has its first records after 4 to 6
// ms, a shared one has to learn of the partition first. A reader that is at the end, and has been
// reading for a second, moves to the tail (tail.go): one client for all such readers, with one
// connection to each broker and one fetch at a time on it, however many partitions a worker
// follows. The tail pauses briefly after each fetch that returned records, except while a call of
// Log.Expedite is active: an owner that takes over, a read that waits. The buffer of each reader in
// the tail is bounded; a reader that falls behind goes on with a client of its own, so it does not
// delay the others. So does a reader that gets an error: errors are handled in one place. The tail
// takes only readers at a position from which its client has nothing older, so no record is missed
// or returned twice; and each new client checks the leader epoch of the last record that was read.
// A reader never resets its position: when a broker says that the position is out of range, the
// reader finds the leader by asking all brokers (the highest leader epoch wins) and asks that one,
// because a former leader that was paused may say so although nothing was lost.
//
// # Membership
//
// A static member of a classic consumer group on the journal, in the cooperative protocol, with a
// balancer of our own (package balance): join data have the member's address, its incarnation and
// how far its images are (joindata.go); the leader calls broker.Plan (balancer.go); assignments
// have the table (table.go says how large a group may be). A partition that moves is given to its
// next owner in the rebalance that takes it from the last one (ADR 14). A worker that has released
// partitions joins again, so a move of many partitions continues by itself, broker.MaxMoves at a
// time. Moves wait for images to become warm: then a worker for which Table.Due is true requests a
// rebalance (Rebalance), at most once a second. The group client never fetches.
//
// A membership that ends with its context first requests one more rebalance, as a leaving member:
// it releases its partitions when the table names their next owners, and then leaves the group.
//
// A worker that is killed and restarts within its session gets its partitions back without a
// rebalance. The table that it gets names its former process; it replaces that with itself and
// requests a rebalance, so that all others learn of it.
//
// Evict makes the members of this process join at once instead of with their next heartbeat. It
// names the member by the id that the last table has for that incarnation: a group that is
// rebalancing does not show ids with processes, and a process that has restarted is not evicted.
//
// # Goroutines
//
// The Log owns those of its clients, one that hands out what the tail's client reads, one per
// request to a broker, one per topic that is being looked up, one that delivers results of appends
// that were refused without being sent, and one that closes a stopped producer. Close ends and
// waits for all of them, and for running Assignments calls. Results and assignment events are
// called on goroutines of the clients: results of one partition one at a time, those of several
// partitions possibly at once. A Reader starts none that outlive its Close.
//
// # Locks
//
// partition.mu comes before Log.mu, Log.mu before topics.mu; reader.mu before tail.mu, tail.mu
// before Log.mu. Partitions are added to the tail's client under tail.mu; it has no callbacks. No
// lock is held during a callback or a request.
//
// # Errors
//
// A request without an answer fails with broker.ErrUnreachable. A transient fetch error is counted
// (Stats.FetchRetries) and retried until the caller's context ends. A transient error of a request
// for the first or the last offset is retried for RequestTimeout.
package kafka

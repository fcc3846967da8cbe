// Package broker is the port to the ordered durable log. It has three implementations, held to one
// conformance suite (brokertest): kafka (Apache Kafka or Redpanda), embedded (Pebble in this
// process) and simlog (in memory, with scripted faults, for tests).
//
// The port knows topics, partitions, records and offsets. Records are opaque to it: it knows
// nothing of epochs, entities or the reader rule.
//
// Logs that several workers share also implement Group. Plan, a pure function, decides who owns and
// follows what, so that all implementations and simulations decide alike.
//
// Every implementation guarantees:
//
//   - Records of one Append stand in the log together and in order. A successful result means that
//     they are durable as the engine defines it (Describe says how), and that readers see them.
//   - Results of one partition arrive in the order of the Append calls. A result with an error
//     leaves the outcome unknown unless errors.Is(err, ErrNotWritten), ErrTooLarge or
//     ErrUnknownTopic: then nothing was written.
//   - Size is the size of an append in every log. A topic takes what Describe says of it
//     (MaxAppendBytes, MaxAppendRecords).
//   - A reader sees nothing that was not acknowledged to some producer, in offset order, each
//     offset once.
//   - Callbacks run on goroutines of the implementation. They must not block, and must not call
//     back into Close.
//
// Close waits for all goroutines of the implementation; open appends get ErrClosed before it
// returns.
package broker

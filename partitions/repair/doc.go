// Package repair reads and writes for the repair of a halted partition, as an operator chose: it
// surveys log and store, folds the log beside the store, finds what is to be written again, and
// drops or keeps the store at the end. It gathers the evidence for the operator's choice, and
// inspects a log that may have lost what its store has (Inspector).
//
// The core (partitions/core) takes all decisions of a repair; this package posts nothing. Only
// partitions imports it, but for Evidence and Inspection, which status and admin service show. It
// starts no goroutine: its functions block until they are done or their context ends.
package repair

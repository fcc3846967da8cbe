// Package materializer turns the journal's records into rows: the fold, the key space, the contract
// of the stores that hold the rows, and the bulk rebuild; and it hands on what takes effect: the
// journal reader, and the feed of a partition.
//
// The rows are a pure function of the log. A store is a cache: it may be deleted at any time and is
// rebuilt. The fold in fold.go is the only place where a record becomes rows; live traffic,
// catch-up and bulk rebuild all go through it.
//
// Nothing here starts a goroutine. A Store may be used from many goroutines, a Batch belongs to
// one; a Feed too may be used from many, a Tap or a Consumer belongs to one.
package materializer

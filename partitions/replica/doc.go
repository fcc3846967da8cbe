// Package replica is a worker's image of one partition of the journal: it catches up with the log,
// is kept current while another worker owns the partition, and reports how current it is.
//
// Only package partitions imports it. It starts no goroutine of its own: CatchUp, ReadBack and
// Follow block, and report to their caller only, which runs one of them at a time. Questions to the
// owner and to the log run on goroutines of Options.Background.
//
// # How others see a partition
//
// A projection, and whatever else reads what takes effect in a partition, needs five things of each
// partition that has an image on its worker. They are the same in both roles:
//
//   - Role: whether this worker follows the partition, owns it, or neither.
//   - Folded: the position after what is folded and in the store. Feed().Moved tells when it changes.
//   - Feed: the records that take effect (package materializer). Follow opens it and publishes after
//     each commit of the store, as the owner's loop does in package partitions (feed.go). CatchUp and
//     ReadBack publish nothing: a consumer reads that part from the log.
//   - Confirmed: the owner's last answer, and since when everything committed lies before it. Confirm
//     asks the owner now, which may be this worker; Fresh has it asked in the background.
//   - HeardEnd: the newest end of the log that this worker knows of.
//
// Reaches and Fresh are the waits of entity reads. A query waits in the same two ways, on the
// position of its rows instead of the image's. Package projections does not import this package: it
// defines an interface of its own, which internal/app/node fills with Partition.Replica.
package replica

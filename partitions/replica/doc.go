// Package replica is a worker's image of one partition of the journal: it catches up with the log,
// is kept current while another worker owns the partition, and reports how current it is.
//
// Only package partitions imports it. It starts no goroutine of its own: CatchUp, ReadBack and
// Follow block, and report to their caller only, which runs one of them at a time. Questions to the
// owner and to the log run on goroutines of Options.Background.
//
// # How later work sees a partition
//
// A projection needs five things of each partition that has an image on its worker: role, folded
// position, feed, confirmed position and heard end. Where they are, or will be:
//
//   - The role is that of the image: Position is nil unless the partition is followed; the owner's
//     role is the state of partitions.Partition. A common Role belongs here, set by Follow and by
//     the owner's loop.
//   - The folded position is Position().Next while the partition is followed. The owner's fold
//     belongs to the loop; when it is published after each commit of the store, it is to be
//     published here, by the same method that Follow uses (move), so that Reaches waits for both.
//   - The feed hangs on the fold, which is one type for both roles. CatchUp, ReadBack and Follow
//     are the only places where a fold is made and the only ones that write to the store besides
//     the owner's commit: what is folded is to be published there, after the store took it, with
//     the position that it leads to.
//   - The confirmed position is Confirmed(): the owner's answer, and since when everything
//     committed lies before it. Fresh asks for it.
//   - The heard end is the newer of Position().End, which comes with the records, and LogEnd(),
//     which was asked for.
//
// Reaches and Fresh are the waits of entity reads. A query waits in the same two ways, on the
// position of its rows instead of the image's.
package replica

package replica

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/internal/clock"
	"github.com/millrace-io/millrace/materializer"
)

// Options are the parameters of a Replica.
type Options struct {
	Image *materializer.Image
	// Feed gets what is folded into the image.
	Feed *materializer.Feed
	// ReleaseTimeout is how long a hand-over waits for the owner to release the partition.
	ReleaseTimeout time.Duration
	// Warmed is called by Follow when the image has come close to the end of the log.
	Warmed func()
	// Owner returns a function that asks the owner, which may be this worker, how far the partition
	// is; nil if no owner is known. Everything that was committed before the question lies before
	// the answer.
	Owner func() func(context.Context) (next int64, err error)
	// Background runs a question on a goroutine. The code that made the replica waits for it.
	Background func(func())

	Clock clock.Clock
	// Random spreads pauses.
	Random func() uint64
}

// Replica is a worker's image of one partition: it is brought up to the end of the log, kept there
// while another worker owns the partition, and read. CatchUp, ReadBack, Follow and Close read the
// log and change the store; the caller runs one of them at a time. All other methods are safe for
// concurrent use.
type Replica struct {
	o Options

	// reading belongs to the method that reads the log. While none does, it stays where the last one
	// has left it.
	reading *reading

	// position is how far a followed partition is folded; nil if it is not followed. The feed wakes
	// those who wait for a change.
	position atomic.Pointer[Position]

	// confirmed asks the owner how far it is, logEnd asks the log for its end.
	confirmed, logEnd question

	// wanted: the group assigns the partition to this worker as a follower. inStore: there was an
	// image when the worker started.
	wanted  atomic.Bool
	inStore bool
}

// Position is how far a worker has folded a partition that another one owns.
type Position struct {
	// Next is the offset after what is folded, End that of the log at the last read.
	Next, End int64
	// At is when Next was last equal to End, by the reads until then.
	At time.Time
}

// Lag returns how many records the image is behind the log.
func (p Position) Lag() int64 { return max(p.End-p.Next, 0) }

// New returns the replica of a partition.
func New(o Options) *Replica {
	return &Replica{o: o, inStore: isStored(o.Image.View())}
}

// isStored reports whether a store has an image of a partition. A store that cannot be read counts
// as having none; its next reader gets the error.
func isStored(view materializer.Partition) bool {
	meta, ok, err := view.Meta()
	_, halted, failed := view.Halted()
	return err == nil && failed == nil && ok && !halted && meta.Next > 0
}

// Position returns how far the image is. It is nil unless the partition is followed.
func (r *Replica) Position() *Position { return r.position.Load() }

// Feed returns what is folded into the image, for its consumers.
func (r *Replica) Feed() *materializer.Feed { return r.o.Feed }

// Role returns what this worker does with the image.
func (r *Replica) Role() materializer.Role { return r.o.Feed.Role() }

// Folded returns the offset after what is folded and in the store, in either role. ok is false if
// this worker neither owns nor follows the partition.
func (r *Replica) Folded() (next int64, ok bool) {
	if at := r.Position(); at != nil {
		return at.Next, true
	}
	return r.o.Feed.Position()
}

// HeardEnd returns the newest end of the log that this worker knows of: as read with the records,
// as asked for, or as it has written it as the owner.
func (r *Replica) HeardEnd() int64 {
	end, _ := r.Folded()
	if at := r.Position(); at != nil {
		end = max(end, at.End)
	}
	if asked := r.LogEnd(); asked != nil {
		end = max(end, asked.Next)
	}
	return end
}

// Want sets whether the group wants this worker to follow the partition, and returns whether that
// has changed.
func (r *Replica) Want(followed bool) (changed bool) { return r.wanted.Swap(followed) != followed }

// storedLag stands for the lag of an image that lies in the store and is not followed: the log's
// end is not known yet. It is far from warm, and better than no image.
const storedLag = 1 << 32

// Lag returns the number of records that the image is behind the log, for the group: also of a
// partition that this worker owns, of one that it is to follow and has not read yet, and of one
// that was in the store when the worker started. ok is false if there is no image.
func (r *Replica) Lag(owned bool) (records int64, ok bool) {
	at := r.Position()
	switch {
	case at != nil:
		return at.Lag(), true
	case owned:
		return 0, true
	case r.inStore:
		return storedLag, true
	default:
		return math.MaxInt64, r.wanted.Load()
	}
}

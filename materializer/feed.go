package materializer

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/internal/plural"
)

// A feed hands what is folded into the image of a partition to other parts of the worker, which
// need not read the log for it.
//
//	F1  What was folded is visible only after the store took it. (early)
//	F2  A consumer takes a piece only where its own position is the beginning of the piece, by
//	    offset, owner and ordinal (adjoin), and only if the piece has all records of the types
//	    that the consumer names (covered). Until then it reads the log.
//	F3  A consumer goes no further than the image, in the log either.
//	F4  Who publishes waits for no consumer, and takes no lock without one.
//
// In parentheses stand the mutations that remove the check.

// Role is what a worker does with its image of a partition.
type Role uint8

// The roles.
const (
	// NoRole: the image is not kept current. It may be behind, halted, or not there.
	NoRole Role = iota
	// Following: another worker owns the partition, and this one reads the log into its image.
	Following
	// Owning: this worker owns the partition.
	Owning
)

// String returns the role as shown to people.
func (r Role) String() string { return [...]string{"none", "follower", "owner"}[r] }

// FeedReason is why a feed has ended.
type FeedReason uint8

// The reasons.
const (
	// FeedMoved: the worker's role has changed, or its ownership is another one. A consumer goes on
	// from its position.
	FeedMoved FeedReason = iota
	// FeedHalted: store and log disagree, and the partition waits for an operator.
	FeedHalted
	// FeedFailed: the log could not be read, or the store did not take what was read. A consumer goes
	// on from its position.
	FeedFailed
	// FeedDiverged: the image was not folded from what the consumer has read: the partition was
	// repaired, or its journal replaced. What the consumer has made of it must be dropped; it begins
	// anew, at Meta{}.
	FeedDiverged
)

// String returns the reason as shown to people.
func (r FeedReason) String() string {
	return [...]string{"the role has changed", "halted", "failed", "the log is another one"}[r]
}

// FeedError is the error of a consumer whose feed has ended.
type FeedError struct {
	Address Address
	Reason  FeedReason
	// Err is the cause.
	Err error
}

// Error returns partition, reason and cause.
func (e *FeedError) Error() string {
	return fmt.Sprintf("the feed of %s has ended: %v: %v", e.Address, e.Reason, e.Err)
}

// Unwrap returns the cause.
func (e *FeedError) Unwrap() error { return e.Err }

// DefaultFeedBytes is how much memory the feeds of a worker take by default.
const DefaultFeedBytes = 64 << 20

// What pieces and entries count in the memory of the feeds, beside the bytes of their records.
const (
	pieceOverhead = 512
	entryOverhead = 384
)

// memory is what an entry takes in memory, about.
func (e *Entry) memory() int {
	env := &e.Envelope
	return entryOverhead + len(e.Key) + len(e.Value) + len(env.Answer) + len(env.Target) + len(env.Timer) +
		len(env.CommandID) + len(env.Principal) + len(env.CorrelationID) + len(env.TraceParent)
}

// Feeds bounds the memory of the feeds of a worker. Safe for concurrent use.
type Feeds struct {
	limit int
	// turned is called when the role of a feed has changed.
	turned func()

	// mu guards what follows, and what the feeds say that it guards. It is held for a few steps only.
	mu sync.Mutex
	// size is what all pieces take; oldest to newest are the pieces of all feeds, as they were
	// published.
	size           int
	oldest, newest *piece
}

// NewFeeds returns the bound of feeds that may take so many bytes.
func NewFeeds(limit int) *Feeds { return &Feeds{limit: limit, turned: func() {}} }

// OnTurn has turned called whenever a feed was opened or has ended, which changes its Role. turned
// must not block. OnTurn must be called before the first feed is opened.
func (f *Feeds) OnTurn(turned func()) { f.turned = turned }

// Feed returns the feed of a partition.
func (f *Feeds) Feed(image *Image) *Feed { return &Feed{feeds: f, image: image} }

// Size returns the memory that the pieces of all feeds take, in bytes.
func (f *Feeds) Size() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size
}

// Feed is what is folded into the image of one partition, for consumers on the same worker. It is
// open while the image is kept current. Safe for concurrent use.
type Feed struct {
	feeds *Feeds
	image *Image

	// tap is where the pieces come from; nil while the feed is not open.
	tap atomic.Pointer[Tap]
	// types are those that the consumers name; nil: there is no consumer. watched: moved is set. Both
	// are changed with feeds.mu held.
	types   atomic.Pointer[Types]
	watched atomic.Bool

	// feeds.mu guards the fields below. moved is closed at the next change, if a caller waits for it.
	moved     chan struct{}
	consumers []*Consumer
	pieces    []*piece
}

// piece is a Piece in the memory of a worker.
type piece struct {
	Piece

	feed         *Feed
	size         int
	older, newer *piece
}

// Role returns the worker's role; Position(), where it has one, is that of its image.
func (f *Feed) Role() Role {
	if tap := f.tap.Load(); tap != nil {
		return tap.role
	}
	return NoRole
}

// Position returns the offset after what is folded and in the store. It is not known (ok is false)
// while the worker has no role.
func (f *Feed) Position() (next int64, ok bool) {
	if tap := f.tap.Load(); tap != nil {
		return tap.next.Load(), true
	}
	return 0, false
}

// Moved returns a channel that is closed when position or role have changed after the call.
func (f *Feed) Moved() <-chan struct{} {
	f.feeds.mu.Lock()
	defer f.feeds.mu.Unlock()
	return f.watch()
}

// watch is Moved. The lock is held. What is read after the call is either new, or the channel is
// closed: publish stores the position before it loads watched.
func (f *Feed) watch() <-chan struct{} {
	if f.moved == nil {
		f.moved = make(chan struct{})
		f.watched.Store(true)
	}
	return f.moved
}

// wake wakes who waits for a change. The lock is held.
func (f *Feed) wake() {
	if f.moved != nil {
		close(f.moved)
		f.moved = nil
		f.watched.Store(false)
	}
}

// Open opens the feed: from now on it has what the fold folds, from the fold's position on, which
// must be the store's. The tap belongs to the goroutine that folds. A feed that was open ends for
// its consumers: FeedMoved.
func (f *Feed) Open(fold *Fold, role Role) *Tap {
	t := &Tap{feed: f, fold: fold, role: role}
	t.open, t.over = context.WithCancel(context.Background())
	t.next.Store(fold.meta.Next)
	fold.Observe(t.observe)
	f.feeds.mu.Lock()
	defer f.feeds.mu.Unlock()
	f.end(&FeedError{f.image.Address, FeedMoved, fmt.Errorf("the worker has become %v", role)})
	t.begin()
	f.tap.Store(t)
	f.wake()
	f.feeds.turned()
	return t
}

// End ends the feed for its consumers, if it is open. In any case it wakes all who wait for a
// change.
func (f *Feed) End(reason FeedReason, why error) {
	f.feeds.mu.Lock()
	defer f.feeds.mu.Unlock()
	f.end(&FeedError{f.image.Address, reason, why})
}

// end is End. The lock is held.
func (f *Feed) end(end *FeedError) {
	if tap := f.tap.Load(); tap != nil {
		tap.ended = end
		tap.over()
		f.tap.Store(nil)
		f.dropAll()
		f.feeds.turned()
	}
	f.wake()
}

// named computes the types that the consumers name. The lock is held.
func (f *Feed) named() {
	if len(f.consumers) == 0 {
		f.types.Store(nil)
		f.dropAll()
		return
	}
	all := f.consumers[0].types
	for _, c := range f.consumers[1:] {
		all = all.with(c.types)
	}
	f.types.Store(&all)
}

// publish adds a piece. The lock is held.
func (f *Feed) publish(p Piece, size int) {
	now := &piece{Piece: p, feed: f, size: size + pieceOverhead, older: f.feeds.newest}
	if now.older == nil {
		f.feeds.oldest = now
	} else {
		now.older.newer = now
	}
	f.feeds.newest = now
	f.pieces = append(f.pieces, now)
	for f.feeds.size += now.size; f.feeds.size > f.feeds.limit; {
		f.feeds.oldest.feed.dropFirst()
	}
}

// passed drops the pieces that every consumer has passed. The lock is held.
func (f *Feed) passed() {
	least := int64(math.MaxInt64)
	for _, c := range f.consumers {
		least = min(least, c.passed)
	}
	for len(f.pieces) > 0 && f.pieces[0].To.Next <= least {
		f.dropFirst()
	}
}

// dropFirst drops the oldest piece of the feed. The lock is held.
func (f *Feed) dropFirst() {
	first := f.pieces[0]
	f.pieces[0] = nil
	f.pieces = f.pieces[1:]
	f.feeds.drop(first)
}

// dropAll drops the pieces of the feed. The lock is held.
func (f *Feed) dropAll() {
	for _, p := range f.pieces {
		f.feeds.drop(p)
	}
	f.pieces = nil
}

// drop takes a piece out of memory. The lock is held.
func (f *Feeds) drop(p *piece) {
	f.size -= p.size
	if p.older == nil {
		f.oldest = p.newer
	} else {
		p.older.newer = p.newer
	}
	if p.newer == nil {
		f.newest = p.older
	} else {
		p.newer.older = p.older
	}
	p.older, p.newer = nil, nil // a consumer may hold it: it must not hold the others
}

// Tap is the side of a feed where its pieces come from. It belongs to the goroutine that folds.
type Tap struct {
	feed *Feed
	fold *Fold
	role Role
	// next is the position that was published.
	next atomic.Int64
	// ended is why it is not the feed's tap any more; feeds.mu guards it. Then open has ended, for
	// those who read the log, and over ends it.
	ended *FeedError
	open  context.Context //nolint:containedctx // as long as the tap is the feed's
	over  context.CancelFunc

	// types are those that the present piece keeps; nil: it is not kept. from is where it begins,
	// entries are its records, which take size bytes.
	types   *Types
	from    Meta
	entries []Entry
	size    int
	// last is how many records the piece before had: room for as many is made at once.
	last int
}

// begin begins a piece. The lock of the feeds is held.
func (t *Tap) begin() {
	t.last = len(t.entries)
	t.types, t.entries, t.size = t.feed.types.Load(), nil, 0
	if t.ended != nil {
		t.types = nil
	}
	if t.types != nil {
		t.from = t.fold.meta
	}
}

// observe keeps a record that takes effect. An owner's records are not changed any more; those of a
// follower lie in memory that is used again.
func (t *Tap) observe(e *Entry) {
	if t.types == nil || !t.types.has(e.Key) {
		return
	}
	if t.entries == nil {
		t.entries = make([]Entry, 0, t.last)
	}
	if t.role == Owning {
		t.entries = append(t.entries, *e)
	} else {
		t.entries = append(t.entries, e.Clone())
	}
	t.size += e.memory()
	if mutation.On(mutation.Early) {
		t.Publish()
	}
}

// Publish makes visible what was folded: the store has it.
func (t *Tap) Publish() {
	f := t.feed
	t.next.Store(t.fold.meta.Next)
	if t.types == nil && f.types.Load() == nil && !f.watched.Load() {
		return
	}
	f.feeds.mu.Lock()
	defer f.feeds.mu.Unlock()
	if t.ended == nil {
		if t.types != nil && f.types.Load() != nil && t.from.Next != t.fold.meta.Next {
			f.publish(Piece{From: t.from, To: t.fold.meta, has: *t.types, entries: t.entries}, t.size)
		}
		f.wake()
	}
	t.begin()
}

// End ends the feed for its consumers, if it is this tap's. What was folded and not published is
// not shown. The fold may be used without the tap from then on.
func (t *Tap) End(reason FeedReason, why error) {
	t.fold.Observe(nil)
	t.types, t.entries = nil, nil
	t.feed.feeds.mu.Lock()
	defer t.feed.feeds.mu.Unlock()
	if t.ended == nil {
		t.feed.end(&FeedError{t.feed.image.Address, reason, why})
	}
}

// Piece is what has taken effect in a partition from one position to another, of the entity types
// that a consumer names.
type Piece struct {
	// From is the position before, To the one after. Neither lies inside a group.
	From, To Meta

	// has are the types whose records it has, wanted those that the consumer names.
	has, wanted Types
	entries     []Entry
	// live: it comes from the image, not from the log.
	live bool
}

// Effective yields the records, in order. They must not be changed. Others may read them at the
// same time.
func (p *Piece) Effective(yield func(*Entry) bool) {
	for i := range p.entries {
		if p.wanted.has(p.entries[i].Key) && !yield(&p.entries[i]) {
			return
		}
	}
}

// begins reports whether a consumer that names these types and stands at a position may take the
// piece next. The error says that the piece is of another history.
func (p *Piece) begins(at *Meta, types Types) (bool, error) {
	switch {
	case p.From.Next != at.Next && !mutation.On(mutation.Adjoin):
		return false, nil
	case !p.has.cover(types) && !mutation.On(mutation.Covered):
		return false, nil
	case mutation.On(mutation.Adjoin):
		return true, nil
	default:
		return true, diverged(at, &p.From)
	}
}

// diverged returns an error unless two positions at the same offset have the same history.
func diverged(consumer, image *Meta) error {
	if consumer.Owner == image.Owner && consumer.Ordinal == image.Ordinal {
		return nil
	}
	return fmt.Errorf("before offset %d the consumer has read %s of the owner of epoch %d, nonce %016x, and the image has %d of epoch %d, nonce %016x",
		consumer.Next, plural.Of(consumer.Ordinal, "record"), consumer.Owner.Epoch, consumer.Owner.Nonce,
		image.Ordinal, image.Owner.Epoch, image.Owner.Nonce)
}

// nextPiece returns the piece that a consumer may take next or, without one, how far it is to read
// the log. The lock is held.
func (f *Feed) nextPiece(at *Meta, types Types) (_ *piece, until int64, err error) {
	const ahead = 64 // pieces at which the change from the log is looked for: the lock is held
	until, _ = f.Position()
	i, _ := slices.BinarySearchFunc(f.pieces, at.Next, func(p *piece, next int64) int {
		return cmp.Compare(p.From.Next, next)
	})
	for n, p := range f.pieces[i:min(i+ahead, len(f.pieces))] {
		if n == 0 {
			if begins, err := p.begins(at, types); begins {
				return p, until, err
			}
		}
		if p.has.cover(types) && p.From.Next > at.Next {
			return nil, p.From.Next, nil
		}
		if n == ahead-1 {
			until = p.To.Next
		}
	}
	return nil, until, nil
}

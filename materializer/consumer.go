package materializer

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/internal/mutation"
)

// The most that a piece has which was read from the log: records, and bytes of those that it keeps.
const (
	logPieceRecords = 2_000
	logPieceBytes   = 4 << 20
)

// Consumer gets everything that takes effect in one partition, in order, from a position on: from
// the log while it is behind, from the memory of the feed when it is not. It belongs to one
// goroutine at a time.
type Consumer struct {
	feed  *Feed
	types Types
	// at is the position after the last piece, tap the one that the consumer gets pieces of; nil
	// before the first.
	at  Meta
	tap *Tap
	// ahead is where the image stood when the consumer joined it with a later position; nil: the
	// position is known to be one of the image's history.
	ahead *Meta
	// passed is the offset of at, as the feed knows it; feeds.mu guards it.
	passed int64

	// journal and reader are there while the consumer reads the log. What the log has lost below
	// accepted is passed over.
	journal  *Journal
	reader   broker.Reader
	accepted int64
}

// Consume returns a consumer of some types at a position: one that another consumer of the
// partition had, or Meta{} for the beginning. It must be closed.
func (f *Feed) Consume(from Meta, types Types) *Consumer {
	c := &Consumer{feed: f, types: types, at: from, passed: from.Next}
	f.feeds.mu.Lock()
	defer f.feeds.mu.Unlock()
	f.consumers = append(f.consumers, c)
	f.named()
	return c
}

// Position returns the position after the last piece.
func (c *Consumer) Position() Meta { return c.at }

// Behind reports whether the consumer reads the log next: no piece in memory begins where it
// stands, and the image is further.
func (c *Consumer) Behind() bool {
	c.feed.feeds.mu.Lock()
	defer c.feed.feeds.mu.Unlock()
	found, until, err := c.feed.nextPiece(&c.at, c.types)
	return found == nil && err == nil && until > c.reached()
}

// Join compares the position with the image's history, as far as that can be done now. Next does so
// too, and waits for a piece then.
func (c *Consumer) Join(ctx context.Context) error {
	if err := c.join(); err != nil || c.ahead == nil {
		return err
	}
	if next, open := c.feed.Position(); !open || next < c.at.Next {
		return nil
	}
	return c.verify(ctx)
}

// Joined reports whether the position is known to be one of the image's history: the image has
// reached it.
func (c *Consumer) Joined() bool { return c.tap != nil && c.ahead == nil }

// Close ends the consumer. The feed keeps no more records for it.
func (c *Consumer) Close() {
	c.leaveLog()
	f := c.feed
	f.feeds.mu.Lock()
	defer f.feeds.mu.Unlock()
	f.consumers = slices.DeleteFunc(f.consumers, func(other *Consumer) bool { return other == c })
	f.named()
}

// Next waits for the next piece, also while the feed is not open. A *FeedError says that the feed
// has ended, and whether another consumer may go on from Position. After any other error the log
// could not be read, or ctx has ended; Next may be called again.
func (c *Consumer) Next(ctx context.Context) (Piece, error) {
	for {
		found, until, moved, err := c.look()
		switch {
		case err != nil:
			return Piece{}, err
		case found != nil:
			c.leaveLog()
			c.ahead = nil // it begins where the consumer stands
			p := found.Piece
			p.wanted, p.live = c.types, true
			p.To.Floor = max(p.To.Floor, c.at.Floor)
			c.at = p.To
			return p, nil
		case c.ahead != nil && until >= c.at.Next:
			if err := c.verify(ctx); err != nil {
				return Piece{}, err
			}
		case until > c.reached():
			p, err := c.read(ctx, until)
			if err != nil || p.From.Next != p.To.Next {
				return p, err
			}
		default:
			select {
			case <-moved:
			case <-ctx.Done():
				return Piece{}, context.Cause(ctx)
			}
		}
	}
}

// look returns the next piece if it is there; else how far the log may be read, and a channel that
// is closed when that changes.
func (c *Consumer) look() (_ *piece, until int64, moved <-chan struct{}, err error) {
	f := c.feed
	if err := c.join(); err != nil {
		return nil, 0, nil, err
	}
	f.feeds.mu.Lock()
	defer f.feeds.mu.Unlock()
	c.passed = c.at.Next
	switch {
	case c.tap == nil:
		return nil, 0, f.watch(), nil // not open
	case c.tap.ended != nil:
		return nil, 0, nil, c.tap.ended
	}
	found, until, err := f.nextPiece(&c.at, c.types)
	switch {
	case err != nil:
		return nil, 0, nil, &FeedError{f.image.Address, FeedDiverged, err}
	case found != nil:
		c.passed = found.To.Next
		f.passed()
		return found, 0, nil, nil
	default: // who publishes takes the lock because there is a consumer, so that no change is missed
		return nil, until, f.watch(), nil
	}
}

// join makes the feed's tap the consumer's, if there is one and the consumer has none.
func (c *Consumer) join() error {
	tap := c.feed.tap.Load()
	if c.tap != nil || tap == nil {
		return nil
	}
	err := c.compare()
	if err == nil {
		c.tap = tap
	}
	return err
}

// compare checks that the image was folded from what the consumer has read, as far as the positions
// say. The store has the position that was published, or a later one.
func (c *Consumer) compare() error {
	image := c.feed.image
	meta, known, err := image.View().Meta()
	if err != nil {
		return fmt.Errorf("read the store of %s: %w", image.Address, err)
	}
	if !known {
		meta = MetaFrom(image.TopicID, 0)
	}
	if c.at == (Meta{}) {
		// The floor says after which repair the consumer began, also before it has read its claim.
		c.at = MetaFrom(image.TopicID, meta.Start)
		c.at.Floor = meta.Floor
		return nil
	}
	switch {
	case c.at.TopicID != image.TopicID:
		err = TopicReplaced(c.at.TopicID, image.TopicID)
	case c.at.Start != meta.Start:
		err = fmt.Errorf("the consumer began at offset %d, the image at offset %d", c.at.Start, meta.Start)
	case c.at.Floor != meta.Floor:
		err = fmt.Errorf("a repair has given the partition the floor %d, the consumer has %d", meta.Floor, c.at.Floor)
	case c.at.Next == meta.Next:
		err = diverged(&c.at, &meta)
	}
	if err != nil {
		return &FeedError{image.Address, FeedDiverged, err}
	}
	if c.ahead = nil; c.at.Next > meta.Next && !mutation.On(mutation.Ahead) {
		c.ahead = &meta
	}
	return nil
}

// verify reads the log from where the image was behind the consumer, and compares what it says of
// the consumer's position.
func (c *Consumer) verify(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.tap.open, cancel)()
	image := c.feed.image
	reader, err := image.Read(c.ahead.Next)
	if err != nil {
		return err
	}
	defer reader.Close() //nolint:errcheck // only read
	journal := NewJournal(reader, image.Address, image.TopicID, *c.ahead)
	if err := journal.Expect(image.Layout); err != nil {
		return err
	}
	for _, err := range journal.Until(ctx, c.at.Next) {
		switch {
		case c.tap.open.Err() != nil:
			return nil // the feed has ended
		case errors.Is(err, ErrLost):
			return &FeedError{image.Address, FeedDiverged, err}
		case err != nil:
			return err
		}
	}
	meta := journal.Meta()
	if err = diverged(&c.at, &meta); err == nil && meta.Next != c.at.Next {
		err = fmt.Errorf("the consumer stands at offset %d, where a group of the log is not complete", c.at.Next)
	}
	if err != nil {
		return &FeedError{image.Address, FeedDiverged, err}
	}
	c.ahead = nil
	return nil
}

// reached is the offset after what was read, which is ahead of the position while a group is open.
func (c *Consumer) reached() int64 {
	if c.journal != nil {
		return c.journal.Position()
	}
	return c.at.Next
}

// leaveLog ends the reading of the log.
func (c *Consumer) leaveLog() {
	if c.reader != nil {
		_ = c.reader.Close() // only read
		c.journal, c.reader = nil, nil
	}
}

// read reads a piece from the log, up to an offset at most. It is empty, and the position stays, if
// only a part of a group was read, or if the log is to be read again.
func (c *Consumer) read(ctx context.Context, until int64) (Piece, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.tap.open, cancel)()
	p := Piece{From: c.at, To: c.at, wanted: c.types}
	err := c.readInto(ctx, &p, until)
	if err != nil {
		c.leaveLog() // it is read again from the position
		switch {
		case c.tap.open.Err() != nil: // the feed has ended
		case p.To.Next == p.From.Next:
			return p, c.pass(ctx, until, err)
		}
	}
	c.at = p.To
	return p, nil
}

// readInto reads what read returns. With an error, the piece has what was read before.
func (c *Consumer) readInto(ctx context.Context, p *Piece, until int64) error {
	if c.journal == nil {
		if err := c.openLog(); err != nil {
			return err
		}
	}
	size := 0
	for n := 0; n < logPieceRecords && size < logPieceBytes && c.journal.Position() < until; n++ {
		r, err := c.journal.Next(ctx)
		if err != nil {
			return err
		}
		if r == nil {
			continue // the log has no records there, and that was accepted
		}
		for e := range r.Effective {
			if c.types.has(e.Key) {
				p.entries = append(p.entries, e.Clone())
				size += e.memory()
			}
		}
		p.To = c.journal.Meta()
	}
	return nil
}

// openLog begins to read the log at the position.
func (c *Consumer) openLog() error {
	reader, err := c.feed.image.Read(c.at.Next)
	if err != nil {
		return err
	}
	journal, err := c.journalOf(reader)
	if err != nil {
		return errors.Join(err, reader.Close())
	}
	journal.Accept(c.accepted)
	c.journal, c.reader = journal, reader
	return nil
}

func (c *Consumer) journalOf(reader broker.Reader) (*Journal, error) {
	image := c.feed.image
	journal := NewJournal(reader, image.Address, image.TopicID, c.at)
	return journal, journal.Expect(image.Layout)
}

// pass returns the error of reading, or nil if it is a loss that a repair has accepted: then it is
// passed over from now on.
func (c *Consumer) pass(ctx context.Context, until int64, failed error) error {
	if !errors.Is(failed, ErrLost) {
		return failed
	}
	reader, err := c.feed.image.Read(c.at.Next)
	if err != nil {
		return errors.Join(failed, err)
	}
	defer reader.Close() //nolint:errcheck // only read
	journal, err := c.journalOf(reader)
	if err != nil {
		return errors.Join(failed, err)
	}
	found, err := journal.Inspect(ctx, until, nil)
	if err != nil || found.Accepted <= c.accepted {
		return errors.Join(failed, err)
	}
	c.accepted = found.Accepted
	return nil
}

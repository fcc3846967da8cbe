package e2e_test

import (
	"fmt"
	"sync"

	shopv1 "github.com/millrace-io/millrace/examples/shoppingcart/shop/v1"
)

// effect is what a caller knows of a command after the call.
type effect int

const (
	// answered: the command took effect, and the reply says what came of it.
	answered effect = iota
	// notApplied: the error promised that nothing was stored.
	notApplied
	// unknown: nobody said.
	unknown
)

// tally is a counter with a single caller, who therefore knows its value but for the commands without an answer.
type tally struct{ least, most int64 }

// incremented takes note of one increment by one; value counts only where it was answered.
func (c *tally) incremented(e effect, value int64) error {
	if e == unknown {
		c.most++
	}
	if e != answered {
		return nil
	}
	if value < c.least+1 || value > c.most+1 {
		return fmt.Errorf("increment answered %d, and %d to %d were in it", value, c.least, c.most)
	}
	c.least, c.most = value, value
	return nil
}

// read takes note of a value that was read.
func (c *tally) read(value int64) error {
	if value < c.least || value > c.most {
		return fmt.Errorf("read %d, and %d to %d are in it", value, c.least, c.most)
	}
	c.least, c.most = value, value
	return nil
}

// sharedTally is a counter that many callers increment at a time.
type sharedTally struct {
	mu sync.Mutex
	// seen are the values that were answered: no two increments may get the same.
	seen map[int64]bool
	// highest is the largest of them, unknown how many increments got no answer.
	highest, unknown int64
}

// now returns a value that every increment sent from now on must exceed.
func (s *sharedTally) now() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.highest
}

// incremented takes note of one increment by one, sent when now was before.
func (s *sharedTally) incremented(e effect, value, before int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e {
	case unknown:
		s.unknown++
	case answered:
		if value <= before {
			return fmt.Errorf("increment answered %d, and %d was answered before it was sent", value, before)
		}
		if s.seen[value] {
			return fmt.Errorf("two increments were answered %d", value)
		}
		s.seen[value] = true
		s.highest = max(s.highest, value)
	case notApplied:
	}
	return nil
}

// read takes note of a value that was read while nobody incremented.
func (s *sharedTally) read(value int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	least := max(int64(len(s.seen)), s.highest)
	if most := int64(len(s.seen)) + s.unknown; value < least || value > most {
		return fmt.Errorf("read %d, want %d to %d: %d increments were answered, the highest with %d, %d were not", value, least, most, len(s.seen), s.highest, s.unknown)
	}
	return nil
}

// basket is a cart with a single caller, who puts every item in once.
type basket struct {
	id string
	// items says of each item that was sent whether it is certainly in the cart.
	items map[string]bool
}

// added takes note of an item.
func (b *basket) added(item string, e effect, reply *shopv1.Cart) error {
	switch e {
	case unknown:
		b.items[item] = false
	case answered:
		b.items[item] = true
		return b.read(reply)
	case notApplied:
	}
	return nil
}

// read takes note of a cart as it was shown. Single callers know more after it: an item without an answer is in, or never
// will be.
func (b *basket) read(reply *shopv1.Cart) error {
	shown := make(map[string]bool, len(reply.GetItems()))
	for _, item := range reply.GetItems() {
		if _, sent := b.items[item.GetItemId()]; !sent {
			return fmt.Errorf("item %s is in it, and was never put there, or not with success", item.GetItemId())
		}
		if item.GetQuantity() != 1 {
			return fmt.Errorf("item %s is in it %d times, and was put there once", item.GetItemId(), item.GetQuantity())
		}
		shown[item.GetItemId()] = true
	}
	for item, certain := range b.items {
		switch {
		case shown[item]:
			b.items[item] = true
		case certain:
			return fmt.Errorf("item %s is missing from it", item)
		default:
			delete(b.items, item)
		}
	}
	return nil
}

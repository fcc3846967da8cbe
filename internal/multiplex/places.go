package multiplex

// Places are the open conversations of a link, by number. Numbers rise and are not reused, so that
// a late frame of an ended conversation is not taken for the first one of a new conversation. The
// link's lock guards them.
type Places[C any] struct {
	Open map[uint64]C
	// Last is the number of the newest conversation.
	Last uint64
}

// Begin gives a conversation of this side the next number.
func (p *Places[C]) Begin(c C) uint64 {
	p.Join(p.Last+1, c)
	return p.Last
}

// Join adds a conversation that the other side has begun; it returns false if the number was used
// before.
func (p *Places[C]) Join(number uint64, c C) bool {
	if number <= p.Last {
		return false
	}
	if p.Open == nil {
		p.Open = map[uint64]C{}
	}
	p.Last = number
	p.Open[number] = c
	return true
}

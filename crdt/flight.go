package crdt

import (
	"math"

	"github.com/millrace-io/millrace/internal/mutation"
)

// Answer says what became of a command of this writer.
type Answer struct {
	N uint64
	// Void is why it has no effect. Unknown: it may have effect or not, Void says nothing.
	Void    Void
	Unknown bool
}

// Flight has the commands of a writer that were sent and not answered yet. An answer may leave when
// the log has acknowledged the command and this holder has folded it.
type Flight struct {
	open  []flying
	ended bool
}

type flying struct {
	n      uint64
	offset int64
	acked  bool
	folded bool
	void   Void
}

// Sent notes a command that is appended.
func (f *Flight) Sent(n uint64) { f.open = append(f.open, flying{n: n, offset: math.MaxInt64}) }

// Acked notes that the log has acknowledged a command at an offset.
func (f *Flight) Acked(n uint64, offset int64) []Answer {
	return f.note(n, func(c *flying) { c.acked, c.offset = true, offset })
}

// Folded notes that this holder has folded a command of its own. The first time counts: the log may
// have it twice.
func (f *Flight) Folded(n uint64, void Void) []Answer {
	return f.note(n, func(c *flying) {
		if !c.folded {
			c.folded, c.void = true, void
		}
	})
}

// note changes a command and returns its answer once it may leave.
func (f *Flight) note(n uint64, change func(*flying)) []Answer {
	for i := range f.open {
		c := &f.open[i]
		if c.n != n {
			continue
		}
		change(c)
		if !c.acked || !c.folded && !mutation.On(mutation.DeltaAnswer) {
			return nil
		}
		answer := Answer{N: c.n, Void: c.void}
		f.open = append(f.open[:i], f.open[i+1:]...)
		return []Answer{answer}
	}
	return nil
}

// Passed notes that the holder has read up to next, exclusive. If a command that was acknowledged
// below it has not been folded, the writer ends: see End.
func (f *Flight) Passed(next int64) []Answer {
	for i := range f.open {
		if f.open[i].acked && f.open[i].offset < next {
			return f.End()
		}
	}
	return nil
}

// End gives the writer's incarnation up, as after a failed append or when the holder is not
// complete any more: all that is open is unknown. Nothing may be sent under its numbers again.
func (f *Flight) End() []Answer {
	var answers []Answer
	for _, c := range f.open {
		answers = append(answers, Answer{N: c.n, Unknown: true})
	}
	f.open, f.ended = nil, true
	return answers
}

// Ended reports whether the incarnation was given up.
func (f *Flight) Ended() bool { return f.ended }

// Open is how many commands have no answer yet.
func (f *Flight) Open() int { return len(f.open) }

package crdt

import (
	"errors"
	"fmt"
)

// ErrLimit: a command is above a limit. Nothing of it was written.
var ErrLimit = errors.New("above the limit")

// Limits is what a writer may write in one command. The fold does not know them: what is in the log
// counts. Zero fields allow nothing; DefaultLimits has the values of the documentation.
type Limits struct {
	// Nesting is how many maps may lie in one another.
	Nesting int
	// ElementBytes bounds an element or a key, with its type URL, RegisterBytes a register's value.
	ElementBytes, RegisterBytes int
	// CommandChanges bounds the changes of one command, CommandBytes their size.
	CommandChanges, CommandBytes int
}

// DefaultLimits are the limits unless settings say otherwise.
func DefaultLimits() Limits {
	return Limits{
		Nesting: 8, ElementBytes: 64 << 10, RegisterBytes: 512 << 10, CommandChanges: 10_000, CommandBytes: 900 << 10,
	}
}

// Check returns an error that wraps ErrLimit, with the limit, its value and what was found, if a
// writer may not write the command.
func (l Limits) Check(c *Command) error {
	if len(c.Changes) > l.CommandChanges {
		return above("changes of one command", len(c.Changes), l.CommandChanges)
	}
	bytes := 0
	for i := range c.Changes {
		change := &c.Changes[i]
		if err := l.change(change); err != nil {
			return fmt.Errorf("change %d: %w", i+1, err)
		}
		bytes += change.size()
	}
	if bytes > l.CommandBytes {
		return above("bytes of one command", bytes, l.CommandBytes)
	}
	return nil
}

func (l Limits) change(c *Change) error {
	if len(c.Path) > l.Nesting {
		return above("nested maps", len(c.Path), l.Nesting)
	}
	for _, step := range c.Path {
		if n := step.Key.size(); n > l.ElementBytes {
			return above("bytes of a key", n, l.ElementBytes)
		}
	}
	n := c.Element.size()
	switch {
	case c.Op == OpSet && n > l.RegisterBytes:
		return above("bytes of a register", n, l.RegisterBytes)
	case c.Op != OpSet && n > l.ElementBytes:
		return above("bytes of an element", n, l.ElementBytes)
	default:
		return nil
	}
}

func above(what string, found, limit int) error {
	return fmt.Errorf("%s: %d, and the limit is %d; nothing was written: %w", what, found, limit, ErrLimit)
}

func (e Element) size() int { return len(e.TypeURL) + len(e.Value) }

// size is about what the change takes in a record.
func (c *Change) size() int {
	n := 8 + c.Element.size()
	for _, step := range c.Path {
		n += 2 + step.Key.size()
	}
	return n
}

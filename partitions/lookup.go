package partitions

import (
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions/core"
)

// This file is what the loop asks the store about a call before the core gets it.

// lookup asks the store whether a command took effect before. It returns false when the call was
// answered with an error.
func (p *Partition) lookup(call *core.Call) bool {
	if !call.Named() {
		return true
	}
	view := p.image.View()
	var (
		stored materializer.Stored
		known  bool
		err    error
	)
	if s := call.Command.Source; s != nil {
		stored, known, call.Settled, err = view.Delivered(*s)
	} else {
		stored, known, err = view.Stored(call.Command.Key, call.Command.Principal, call.Command.ID)
	}
	switch {
	case err != nil:
		call.Fail(entities.Errorf(entities.Unavailable, entities.NotApplied, "look up whether %s did this before: %w: nothing was applied", call.Command.Key, err))
		p.complete(call, core.Never)
	case known:
		call.Stored = &stored
	}
	return err == nil
}

// lookupForward asks the store whether a forward that ends, and is not in memory, is parked. It
// returns false when the call was answered with an error.
func (p *Partition) lookupForward(call *core.Call) bool {
	if call.Outcome == nil || p.core.Holds(call.Forward) {
		return true
	}
	var err error
	_, call.Parked, err = p.image.View().ParkedEffect(call.Forward)
	if err != nil {
		call.Fail(entities.Errorf(entities.Unavailable, entities.NotApplied, "look up the forward of %s: %w", call.Command.Key, err))
		p.complete(call, core.Never)
	}
	return err == nil
}

// lookupWaiting asks about the calls that came before the partition was active once more: only now
// the store has everything that the log has, and a command that is sent again after a crash may be
// in what was read since.
func (p *Partition) lookupWaiting() {
	p.core.Recheck(p.lookup)
}

package partitions

import (
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions/core"
)

// This file looks up a call in the store before the core gets it.

// lookup looks up in the store whether a command took effect before. It returns false if the call
// was answered with an error.
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
		call.Fail(entities.Errorf(entities.Unavailable, entities.NotApplied, "look up the command id on %s: %w: nothing was applied", call.Command.Key, err))
		p.complete(call, core.Never)
	case known:
		call.Stored = &stored
	}
	return err == nil
}

// lookupForward looks up in the store whether a forward that ends, and is not in memory, is parked.
// It returns false if the call was answered with an error.
func (p *Partition) lookupForward(call *core.Call) bool {
	if call.Outcome == nil || p.core.Holds(call.Forward) {
		return true
	}
	var err error
	_, call.Parked, err = p.image.View().ParkedEffect(call.Forward)
	if err != nil {
		call.Fail(entities.Errorf(
			entities.Unavailable, entities.NotApplied, "look up the forward of %s: %w", call.Command.Key, err,
		))
		p.complete(call, core.Never)
	}
	return err == nil
}

// lookupWaiting looks up again the calls that came before the partition was active. Only now the
// store has everything that the log has: a command that is sent again after a crash may be in the
// part that was read since.
func (p *Partition) lookupWaiting() {
	p.core.Recheck(p.lookup)
}

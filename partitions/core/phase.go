package core

// Caller is the goroutine that waits for the answer of a call, as the core sees it: its phase,
// which that goroutine changes as well.
type Caller interface {
	// Alone: an owner has looked for other attempts at the command, and has found none.
	Alone()
	// Accompanied: there is another attempt at the command.
	Accompanied()
	// Decided: all that is left to do is to answer. It returns false when the caller has left.
	Decided() bool
}

// Phase is the stage of a call on which its caller and the owner must agree. Its methods return the
// next phase; an implementation of Caller makes each step atomic.
type Phase int32

const (
	// PhaseQueued: the function has not seen it, and the caller may leave. No other attempt at the
	// command is known.
	PhaseQueued Phase = iota
	// PhaseUnchecked is PhaseQueued of a command with a name, while another attempt may have taken
	// effect or still can: no owner has looked for one yet, or there is one.
	PhaseUnchecked
	// PhaseRunning: it is the caller's turn to run the function, or the function got the command ahead
	// of its turn.
	PhaseRunning
	// PhaseForsaken is PhaseRunning after the caller has left: another goroutine takes its place.
	PhaseForsaken
	// PhaseDecided: the function has decided; the answer waits for the log.
	PhaseDecided
	// PhaseAnswered: the answer is there.
	PhaseAnswered
	// PhaseLeft: the caller has left.
	PhaseLeft
)

// MayRun reports whether the function may get the command: its caller has not left.
func (p Phase) MayRun() bool { return p == PhaseQueued || p == PhaseUnchecked || p.HasFunction() }

// HasFunction reports whether the function has the command, or is about to get it.
func (p Phase) HasFunction() bool { return p == PhaseRunning || p == PhaseForsaken }

// MayLeave reports whether the call needs nothing of its caller any more. While the function has
// the command, another goroutine has to take the place of a caller that leaves.
func (p Phase) MayLeave() bool { return p == PhaseQueued || p == PhaseUnchecked || p == PhaseDecided }

// Alone returns the phase after an owner has looked for other attempts at the command, and found
// none.
func (p Phase) Alone() Phase {
	if p == PhaseUnchecked {
		return PhaseQueued
	}
	return p
}

// Accompanied returns the phase after another attempt has come.
func (p Phase) Accompanied() Phase {
	if p == PhaseQueued {
		return PhaseUnchecked
	}
	return p
}

// Run returns the phase after the call's turn has come, unless its caller has left.
func (p Phase) Run() Phase {
	if p.MayRun() && p != PhaseForsaken {
		return PhaseRunning
	}
	return p
}

// Requeued returns the phase after the function has lost a command that it had. One whose caller
// has left is withdrawn at its next turn.
func (p Phase) Requeued() Phase {
	if p == PhaseForsaken {
		return PhaseLeft
	}
	return PhaseUnchecked
}

// Decided returns the phase after the decision, unless the caller has left.
func (p Phase) Decided() Phase {
	if p == PhaseLeft {
		return p
	}
	return PhaseDecided
}

// Leave returns the phase after the caller has tried to leave.
func (p Phase) Leave() Phase {
	switch {
	case p.MayLeave():
		return PhaseLeft
	case p == PhaseRunning:
		return PhaseForsaken
	default:
		return p
	}
}

// Answered returns the phase after the answer, unless the caller has left.
func (p Phase) Answered() Phase {
	if p == PhaseLeft {
		return p
	}
	return PhaseAnswered
}

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
	// PhaseDecided: the function has decided; the answer waits for the log.
	PhaseDecided
	// PhaseAnswered: the answer is there.
	PhaseAnswered
	// PhaseLeft: the caller has left.
	PhaseLeft
)

// MayRun reports whether the function may get the command: its caller has not left.
func (p Phase) MayRun() bool { return p == PhaseQueued || p == PhaseUnchecked || p == PhaseRunning }

// MayLeave reports whether the caller may leave. It may not while the function has the command.
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
	if p.MayRun() {
		return PhaseRunning
	}
	return p
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
	if p.MayLeave() {
		return PhaseLeft
	}
	return p
}

// Answered returns the phase after the answer, unless the caller has left.
func (p Phase) Answered() Phase {
	if p == PhaseLeft {
		return p
	}
	return PhaseAnswered
}

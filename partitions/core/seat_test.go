package core

import "github.com/millrace-io/millrace/entities"

// seat is the caller of a call in a test, which runs on one goroutine.
type seat struct{ at Phase }

func (s *seat) step(next func(Phase) Phase) (before Phase) {
	before, s.at = s.at, next(s.at)
	return before
}

func (s *seat) Alone()        { s.step(Phase.Alone) }
func (s *seat) Accompanied()  { s.step(Phase.Accompanied) }
func (s *seat) Decided() bool { return s.step(Phase.Decided) != PhaseLeft }

// seated is a call as its partition makes it.
func seated(cmd *entities.Command) *Call {
	call, s := &Call{}, &seat{}
	call.Begin(cmd, s)
	if call.Named() {
		s.at = PhaseUnchecked
	}
	return call
}

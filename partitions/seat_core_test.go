package partitions

import "github.com/millrace-io/millrace/entities"

// seat is the caller of a call in a test, which runs on one goroutine.
type seat struct{ at phase }

func (s *seat) step(next func(phase) phase) (before phase) {
	before, s.at = s.at, next(s.at)
	return before
}

func (s *seat) Alone()        { s.step(phase.alone) }
func (s *seat) Accompanied()  { s.step(phase.accompanied) }
func (s *seat) Decided() bool { return s.step(phase.decided) != phaseLeft }

// seated is a call as its partition makes it.
func seated(cmd *entities.Command) *Call {
	call, s := &Call{}, &seat{}
	call.begin(cmd, s)
	if call.named() {
		s.at = phaseUnchecked
	}
	return call
}

package host

import (
	"time"

	"github.com/millrace-io/millrace/entities"
)

const (
	// maxAhead is how many commands of one entity a function may have at a time, and aheadBytes how
	// much in their payloads, so that a link does not have to wait with writing
	// (multiplex.InlineBytes).
	maxAhead   = 32
	aheadBytes = 16 << 10
	// aheadFor is how long a function may need, of late, for what it has at a time: a caller
	// whose command was announced cannot leave before its turn, and a slow one gains nothing.
	aheadFor = 5 * time.Millisecond
	// paceShare is the share of a single command in the pace, as a divisor.
	paceShare = 8
)

var _ entities.Ahead = (*session)(nil)

// Room is how many commands the function may have at a time: those of a stream of its own get one
// after the other, as the protocol says.
func (s *session) Room() int {
	pace := s.pace.Load()
	if s.place == nil || pace == 0 || len(s.sent) > 0 {
		return 0
	}
	return int(min(maxAhead, int64(aheadFor)/pace))
}

// Announce sends commands ahead of their turn, in one message.
func (s *session) Announce(invs []entities.Invocation) {
	s.place.hold = true
	bytes := 0
	for i := range invs {
		bytes += len(invs[i].Payload.Value)
		if bytes > aheadBytes || s.service.Method(invs[i].Method) == nil || s.send(invs[i]) != nil {
			break
		}
	}
	s.place.hold = false
	s.place.link.push()
}

// Ready reports whether the answer to the next command is there.
func (s *session) Ready() bool { return len(s.sent) > 0 && len(s.answers) > 0 }

// keepPace counts the time since the running command had its turn, and gives the next one its own.
// The lock is held.
func (s *session) keepPace() {
	now := time.Now()
	took := max(int64(now.Sub(s.began)), 1)
	s.began = now
	pace := s.pace.Load()
	if pace == 0 {
		pace = took
	}
	s.pace.Store(max(pace+(took-pace)/paceShare, 1))
}

package partitions

import (
	"sync"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
)

type inputKind uint8

const (
	inAssigned inputKind = iota
	inRevoked
	inLost
	inCaughtUp
	inFailed
	inWaited
	inClaimAcked
	inReadBack
	inSubmitted
	inWithdrawn
	inSessionEnded
	inDecided
	inOpened
	inPassivated
	inAcked
	inGapRead
	inDelivered
	inFired
	inResolved
	inQuiet
	inRepair
	inSurveyed
	inRestored
)

// input is one message for a loop; which fields count depends on kind.
type input struct {
	kind        inputKind
	partition   *Partition
	incarnation uint64
	call        *Call
	entity      *entity
	opening     *Opening
	outcome     *entities.Outcome
	err         *entities.Error
	fail        error
	batch       *batch
	result      broker.AppendResult
	owner       record.Owner
	next        int64
	gap         []GapRecord
	fold        *materializer.Fold
	released    func()
	offset      int64
	alarm       *alarm
	superseded  bool
	resolution  *resolution
	quiet       func(atOnce bool)
	repair      *repair
	survey      survey
	page        []materializer.Entry
	restored    materializer.Restored
}

// mailbox hands inputs from any goroutine to the one loop, in order. What waits is bounded by those who post: each caller
// has one command, each batch one acknowledgement.
type mailbox struct {
	mu     sync.Mutex
	inputs []input
	closed bool
	// ready has room for one signal: there is something to take.
	ready chan struct{}
}

func newMailbox() *mailbox { return &mailbox{ready: make(chan struct{}, 1)} }

// post adds an input. It returns false when the loop has ended.
func (m *mailbox) post(in input) bool {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return false
	}
	m.inputs = append(m.inputs, in)
	first := len(m.inputs) == 1
	m.mu.Unlock()
	if first {
		select {
		case m.ready <- struct{}{}:
		default:
		}
	}
	return true
}

// take returns everything that waits and keeps buf for what comes next.
func (m *mailbox) take(buf []input) []input {
	m.mu.Lock()
	defer m.mu.Unlock()
	taken := m.inputs
	m.inputs = buf[:0]
	return taken
}

// close refuses further inputs and returns those that still wait.
func (m *mailbox) close() []input {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return m.inputs
}

package multiplex

import (
	"context"
	"runtime"
	"sync"
)

// InlineBytes is up to where whoever has a frame writes for itself. grpc-go lets a stream buffer 64 KiB before SendMsg waits for
// the other side, and what was answered is no longer buffered: with less than half of that unanswered nobody hangs in a write, where
// no deadline of its own could reach it. Above, it is Run that writes.
const InlineBytes = 32 << 10

// Writer writes what is in a lane, for the side of a link that begins the conversations.
type Writer struct {
	Lane

	mu   sync.Locker
	send func(message *[]byte) error
	over func() bool
	// wake gives Run its turn. Whoever signals has set Writing.
	wake chan struct{}
}

// NewWriter returns a writer whose lane is guarded by mu. send gives the transport a message; once it fails, nothing is written any
// more, and send has seen to it that the link ends. over, if not nil, is asked under the lock whether the link has nothing to say any
// more: then Run returns.
func NewWriter(mu sync.Locker, send func(message *[]byte) error, over func() bool) Writer {
	return Writer{mu: mu, send: send, over: over, wake: make(chan struct{}, 1)}
}

// Turn says whether the caller, who has appended a frame, is to call Write now. If nobody is writing and the caller must not, because
// more than InlineBytes are unanswered, Run is woken. The lock is held.
func (w *Writer) Turn(unanswered int) bool {
	if w.Writing {
		return false
	}
	w.Writing = true
	if unanswered <= InlineBytes {
		return true
	}
	w.wake <- struct{}{}
	return false
}

// Settle lets Run end when the link is over. The lock is held.
func (w *Writer) Settle() {
	if !w.Writing && w.isOver() {
		w.Writing = true
		w.wake <- struct{}{}
	}
}

func (w *Writer) isOver() bool { return w.over != nil && w.over() }

// Write sends one message. The caller has the turn; if more is waiting, Run gets it next, so that nobody writes for others while its
// own answer is there.
func (w *Writer) Write() {
	// Whoever is about to send something gets the chance: a message costs more than what is in it.
	runtime.Gosched()
	if !w.flush() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.Empty() {
		w.wake <- struct{}{}
		return
	}
	w.Writing = false
	w.Settle()
}

func (w *Writer) flush() bool {
	w.mu.Lock()
	message := w.Take()
	w.mu.Unlock()
	return message == nil || w.send(message) == nil
}

// Run writes when others must not, or do not get to it. It returns when ctx ends, or send fails, with false, and with true when the
// link is over.
func (w *Writer) Run(ctx context.Context) (over bool) {
	for {
		select {
		case <-w.wake:
		case <-ctx.Done():
			return false
		}
		for writing := true; writing; {
			runtime.Gosched()
			if !w.flush() {
				return false
			}
			w.mu.Lock()
			writing = !w.Empty()
			over = !writing && w.isOver()
			w.Writing = writing || over
			w.mu.Unlock()
			if over {
				return true
			}
		}
	}
}

package embedded

import "sync"

// notifier wakes all goroutines that wait for a change. Get the channel first, then look at the
// state, then wait: no change is missed. It costs nothing while none waits.
type notifier struct {
	mu      sync.Mutex
	waiting chan struct{}
}

// changed returns a channel that is closed at the next broadcast.
func (n *notifier) changed() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.waiting == nil {
		n.waiting = make(chan struct{})
	}
	return n.waiting
}

func (n *notifier) broadcast() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.waiting != nil {
		close(n.waiting)
		n.waiting = nil
	}
}

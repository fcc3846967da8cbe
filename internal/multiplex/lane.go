package multiplex

// Lane is the way out of a link: frames are appended to the last message, and messages leave from the front. Its owner's lock
// guards it.
type Lane struct {
	// Writing: somebody is at it. Only one may be. Lane itself does not look at it.
	Writing bool

	messages []*[]byte
	// first is the number of messages[0]; those before were given to the transport.
	first uint64
}

// Tail returns the message that takes the next frame, and its number.
func (l *Lane) Tail() (message *[]byte, number uint64) {
	n := len(l.messages)
	if n == 0 || len(*l.messages[n-1]) >= MessageBytes {
		l.messages = append(l.messages, buffers.Get(0))
		n++
	}
	return l.messages[n-1], l.first + uint64(n) - 1
}

// Waiting returns a message by its number; nil when it was given to the transport.
func (l *Lane) Waiting(number uint64) *[]byte {
	if number < l.first {
		return nil
	}
	return l.messages[number-l.first]
}

// Take removes the first message; nil when there is none.
func (l *Lane) Take() *[]byte {
	if len(l.messages) == 0 {
		return nil
	}
	message := l.messages[0]
	l.first++
	n := copy(l.messages, l.messages[1:])
	l.messages[n] = nil
	l.messages = l.messages[:n]
	return message
}

// Empty says whether no message waits.
func (l *Lane) Empty() bool { return len(l.messages) == 0 }

// Drop forgets what waits.
func (l *Lane) Drop() { l.messages = nil }

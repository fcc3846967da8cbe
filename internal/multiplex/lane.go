package multiplex

// Lane is a queue of messages to send: frames are appended to the last one, and the first one is
// sent. The link's lock guards it.
type Lane struct {
	messages []*[]byte
	// first is the number of messages[0]; those before it were passed to the transport.
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

// Waiting returns a message by its number; nil if it was passed to the transport.
func (l *Lane) Waiting(number uint64) *[]byte {
	if number < l.first {
		return nil
	}
	return l.messages[number-l.first]
}

// Empty reports whether no message waits.
func (l *Lane) Empty() bool { return len(l.messages) == 0 }

// take removes the first message.
func (l *Lane) take() *[]byte {
	message := l.messages[0]
	l.first++
	n := copy(l.messages, l.messages[1:])
	l.messages[n] = nil
	l.messages = l.messages[:n]
	return message
}

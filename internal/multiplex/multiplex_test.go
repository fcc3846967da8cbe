package multiplex

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/mem"

	"github.com/millrace-io/millrace/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// side is one side of a link, with a transport that keeps what it is given.
type side struct {
	mu     sync.Mutex
	writer Writer
	last   uint64
	// unanswered is what Turn is told.
	unanswered int
	over       bool

	sending atomic.Int32
	// Written by whoever has the turn.
	sent     bytes.Buffer
	messages int
	// fail is what send returns.
	fail error
}

func newSide() *side {
	s := &side{}
	s.writer = NewWriter(&s.mu, s.send, func() bool { return s.over })
	return s
}

func (s *side) send(message *[]byte) error {
	if s.sending.Add(1) != 1 {
		panic("two write at a time")
	}
	defer s.sending.Add(-1)
	s.sent.Write(*message)
	s.messages++
	return s.fail
}

// say appends a frame of a length, 8 at least.
func (s *side) say(length int) {
	s.mu.Lock()
	s.last++
	message, _ := s.writer.Tail()
	*message = binary.BigEndian.AppendUint64(*message, s.last)
	*message = append(*message, make([]byte, length-8)...)
	write := s.writer.Turn(s.unanswered)
	s.mu.Unlock()
	if write {
		s.writer.Write()
	}
}

// run starts Run and returns what waits for its end.
func (s *side) run(ctx context.Context) (ended func() bool) {
	over := make(chan bool, 1)
	go func() { over <- s.writer.Run(ctx) }() // waited for by ended
	return func() bool { return <-over }
}

// TestWriter lets many goroutines speak: everything leaves once, in order, one message at a time.
func TestWriter(t *testing.T) {
	const speakers, each, length = 16, 500, 64
	for name, unanswered := range map[string]int{"callers write": 0, "Run writes": InlineBytes + 1} {
		t.Run(name, func(t *testing.T) {
			s := newSide()
			s.unanswered = unanswered
			ended := s.run(t.Context())
			var all sync.WaitGroup
			for range speakers {
				all.Go(func() {
					for range each {
						s.say(length)
					}
				})
			}
			all.Wait()
			s.mu.Lock()
			s.over = true
			s.writer.Settle()
			s.mu.Unlock()
			if !ended() {
				t.Error("Run ended for another reason than that the link is over")
			}
			sent := s.sent.Bytes()
			if len(sent) != speakers*each*length {
				t.Fatalf("%d bytes were sent, %d were said", len(sent), speakers*each*length)
			}
			for i := range speakers * each {
				if n := binary.BigEndian.Uint64(sent[i*length:]); n != uint64(i)+1 {
					t.Fatalf("frame %d left as number %d", n, i+1)
				}
			}
			t.Logf("%d frames left in %d messages", speakers*each, s.messages)
		})
	}
}

// TestWriterOfABrokenLink: after a message that could not be sent nothing is sent.
func TestWriterOfABrokenLink(t *testing.T) {
	s := newSide()
	s.fail = errors.New("broken")
	ctx, cancel := context.WithCancel(t.Context())
	ended := s.run(ctx)
	s.say(8)
	s.say(8)
	cancel() // what send does
	if ended() {
		t.Error("Run says that the link ended in order")
	}
	if s.messages != 1 {
		t.Errorf("%d messages were sent", s.messages)
	}
}

// TestLane fills messages, and takes them.
func TestLane(t *testing.T) {
	var l Lane
	frame := make([]byte, MessageBytes)
	numbers := make([]uint64, 3)
	for i := range numbers {
		message, number := l.Tail()
		numbers[i] = number
		*message = append(*message, frame...)
		(*message)[0] = byte(i)
	}
	for i, number := range numbers {
		if message := l.Waiting(number); message == nil || (*message)[0] != byte(i) {
			t.Fatalf("message %d does not wait", i)
		}
		if message := l.Take(); (*message)[0] != byte(i) {
			t.Fatalf("message %d was taken as number %d", (*message)[0], i)
		}
		if l.Waiting(number) != nil {
			t.Fatalf("message %d was taken and waits", i)
		}
	}
	if !l.Empty() || l.Take() != nil {
		t.Error("the lane is not empty")
	}
}

// TestCodec passes what was encoded by hand, in one buffer and in several.
func TestCodec(t *testing.T) {
	said := []byte("what was said")
	message := NewMessage()
	*message = append(*message, said...)
	whole, err := Codec{}.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]mem.BufferSlice{"whole": whole, "in parts": {mem.SliceBuffer(said[:4]), mem.SliceBuffer(said[4:])}} {
		var heard []byte
		in := &Incoming{Consume: func(b []byte) error {
			heard = bytes.Clone(b)
			return nil
		}}
		if err := (Codec{}).Unmarshal(data, in); err != nil || !bytes.Equal(heard, said) {
			t.Errorf("%s: heard %q, %v", name, heard, err)
		}
	}
	if _, err := (Codec{}).Marshal("text"); err == nil {
		t.Error("a text was encoded")
	}
	if err := (Codec{}).Unmarshal(whole, "text"); err == nil {
		t.Error("a text was decoded")
	}
}

// errand says that it runs, and waits.
type errand struct{ begun, end chan struct{} }

func (e *errand) Run() {
	e.begun <- struct{}{}
	<-e.end
}

// TestRunners: nobody waits for a goroutine that is busy, and Close waits for all.
func TestRunners(t *testing.T) {
	r := &Runners{Most: 1}
	const tasks = 3
	e := &errand{begun: make(chan struct{}), end: make(chan struct{})}
	for range tasks {
		r.Run(e)
		<-e.begun
	}
	closed := make(chan struct{})
	go func() { // ends with the tasks, waited for below
		r.Close()
		close(closed)
	}()
	for range tasks {
		select {
		case <-closed:
			t.Fatal("Close did not wait")
		case e.end <- struct{}{}:
		}
	}
	<-closed
}

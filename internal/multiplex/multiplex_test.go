package multiplex

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	"github.com/millrace-io/millrace/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// wire is a stream that records messages.
type wire struct {
	grpc.ClientStream

	ctx     context.Context
	sending atomic.Int32
	// The goroutine that has the turn writes these.
	sent     bytes.Buffer
	messages int
	// fail is what SendMsg returns for a message with frames; in is what RecvMsg returns after the
	// greeting.
	fail error
	in   chan error
	// halfClosed counts calls of CloseSend.
	halfClosed atomic.Int32
	greetings  []any
}

func (w *wire) Context() context.Context { return w.ctx }

func (w *wire) CloseSend() error {
	w.halfClosed.Add(1)
	return nil
}

func (w *wire) SendMsg(v any) error {
	message, is := v.(*[]byte)
	if !is {
		w.greetings = append(w.greetings, v)
		return nil
	}
	if w.sending.Add(1) != 1 {
		panic("two write at a time")
	}
	defer w.sending.Add(-1)
	w.sent.Write(*message)
	w.messages++
	return w.fail
}

func (w *wire) RecvMsg(v any) error {
	if v != nil { // a greeting
		w.greetings = append(w.greetings, v)
		return nil
	}
	select {
	case err := <-w.in:
		return err
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}

// side is one side of a link.
type side struct {
	Link
	wire   *wire
	last   uint64
	isOver bool
	bytes  atomic.Uint64
}

// opened is the side that begins conversations, with a goroutine in Run until ended is called.
func opened(t *testing.T) (s *side, ended func()) {
	t.Helper()
	s = &side{wire: &wire{in: make(chan error, 1)}}
	s.Sent, s.Over = &s.bytes, func() bool { return s.isOver }
	connect := func(ctx context.Context) (grpc.ClientStream, error) {
		s.wire.ctx = ctx
		return s.wire, nil
	}
	if err := s.Open(t.Context(), t.Context(), connect, "hello", "welcome"); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.wire.greetings, []any{"hello", "welcome"}) {
		t.Errorf("the greeting was %v", s.wire.greetings)
	}
	over := make(chan struct{})
	go func() { // waited for by ended
		s.Run()
		close(over)
	}()
	return s, func() { <-over }
}

// accepted is the other side, before Welcome.
func accepted(t *testing.T) *side {
	t.Helper()
	s := &side{wire: &wire{ctx: t.Context(), in: make(chan error, 1)}}
	s.Sent = &s.bytes
	if err := s.Accept(s.wire, "hello"); err != nil {
		t.Fatal(err)
	}
	return s
}

// say appends a frame of a length, 8 at least.
func (s *side) say(length int) {
	s.Lock()
	s.last++
	message, _ := s.Tail()
	*message = binary.BigEndian.AppendUint64(*message, s.last)
	*message = append(*message, make([]byte, length-8)...)
	s.UnlockAndWrite()
}

const speakers, each, length = 16, 500, 64

// talk sends frames from many goroutines.
func (s *side) talk() {
	var all sync.WaitGroup
	for range speakers {
		all.Go(func() {
			for range each {
				s.say(length)
			}
		})
	}
	all.Wait()
}

// received checks that every frame was sent once, in order.
func (s *side) received(t *testing.T) {
	t.Helper()
	sent := s.wire.sent.Bytes()
	if said := s.last * length; uint64(len(sent)) != said || s.bytes.Load() != said {
		t.Fatalf("%d bytes were sent, %d were counted, %d were said", len(sent), s.bytes.Load(), said)
	}
	for i := range s.last {
		if n := binary.BigEndian.Uint64(sent[i*length:]); n != i+1 {
			t.Fatalf("frame %d left as number %d", n, i+1)
		}
	}
	t.Logf("%d frames left in %d messages", s.last, s.wire.messages)
}

// TestWriter sends from many goroutines on either side: every frame is sent once, in order, one
// message at a time.
func TestWriter(t *testing.T) {
	for name, unanswered := range map[string]int{"callers write": 0, "Run writes": InlineBytes + 1} {
		t.Run(name, func(t *testing.T) {
			s, ended := opened(t)
			s.Unanswered = unanswered
			s.talk()
			s.Lock()
			s.isOver = true
			s.EndIfOver()
			s.Unlock()
			ended()
			s.received(t)
			if n := s.wire.halfClosed.Load(); n != 1 {
				t.Errorf("a link that was over was half-closed %d times", n)
			}
		})
	}
	t.Run("of the side that accepts", func(t *testing.T) {
		s := accepted(t)
		s.Unanswered = InlineBytes + 1 // no Run, so that it is never left to it
		s.say(length)
		if s.wire.messages > 0 {
			t.Fatal("a frame left before the welcome")
		}
		if err := s.Welcome("welcome"); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(s.wire.greetings, []any{"hello", "welcome"}) {
			t.Errorf("the greeting was %v", s.wire.greetings)
		}
		s.talk()
		s.received(t)
	})
}

// TestBrokenLink: after a message that could not be sent nothing is sent, Read has the reason, and
// after Break no goroutine is needed.
func TestBrokenLink(t *testing.T) {
	broken := errors.New("broken")
	for name, open := range map[string]func(*testing.T) (*side, func()){
		"opened": opened,
		"accepted": func(t *testing.T) (*side, func()) {
			t.Helper()
			s := accepted(t)
			if err := s.Welcome("welcome"); err != nil {
				t.Fatal(err)
			}
			s.wire.in <- io.ErrUnexpectedEOF // what grpc-go's reader sees then
			return s, func() {}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, ended := open(t)
			s.wire.fail = broken
			s.say(8)
			s.say(8)
			if err := s.Read(func() error { return s.wire.RecvMsg(nil) }); !errors.Is(err, broken) {
				t.Errorf("the link ended with %v", err)
			}
			s.Break(broken)
			s.say(8)
			ended()
			if s.wire.messages != 1 {
				t.Errorf("%d messages were sent", s.wire.messages)
			}
			if s.Context().Err() == nil {
				t.Error("the context of a broken link goes on")
			}
			s.Lock()
			defer s.Unlock()
			if s.Waiting(1) == nil || s.Broken() == nil {
				t.Error("what was not sent does not wait any more")
			}
		})
	}
}

// TestLateOpening: a link whose greeting came after the end of the time for it is not opened.
func TestLateOpening(t *testing.T) {
	late := errors.New("late")
	var s Link
	opening, end := context.WithCancelCause(t.Context())
	connect := func(ctx context.Context) (grpc.ClientStream, error) {
		end(late)
		return &wire{ctx: ctx}, nil
	}
	if err := s.Open(t.Context(), opening, connect, "hello", "welcome"); !errors.Is(err, late) {
		t.Errorf("the link was opened: %v", err)
	}
	if s.Context().Err() == nil {
		t.Error("its stream goes on")
	}
}

// TestPlaces numbers conversations.
func TestPlaces(t *testing.T) {
	var here, there Places[string]
	for want, c := range []string{"a", "b"} {
		if n := here.Begin(c); n != uint64(want)+1 || !there.Join(n, c) {
			t.Errorf("conversation %s has number %d", c, n)
		}
	}
	delete(there.Open, 1)
	if there.Join(1, "a") || there.Join(2, "b") || there.Join(0, "c") {
		t.Error("a number was used twice")
	}
	if len(here.Open) != 2 || len(there.Open) != 1 {
		t.Errorf("open are %v and %v", here.Open, there.Open)
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
		if message := l.take(); (*message)[0] != byte(i) {
			t.Fatalf("message %d was taken as number %d", (*message)[0], i)
		}
		if l.Waiting(number) != nil {
			t.Fatalf("message %d was taken and waits", i)
		}
	}
	if !l.Empty() {
		t.Error("the lane is not empty")
	}
}

// TestCodec passes encoded messages, in one buffer and in several.
func TestCodec(t *testing.T) {
	said := []byte("what was said")
	message := NewMessage()
	*message = append(*message, said...)
	whole, err := Codec{}.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]mem.BufferSlice{
		"whole": whole, "in parts": {mem.SliceBuffer(said[:4]), mem.SliceBuffer(said[4:])},
	} {
		var got []byte
		in := &Incoming{Consume: func(b []byte) error {
			got = bytes.Clone(b)
			return nil
		}}
		if err := (Codec{}).Unmarshal(data, in); err != nil || !bytes.Equal(got, said) {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	if _, err := (Codec{}).Marshal("text"); err == nil {
		t.Error("a text was encoded")
	}
	if err := (Codec{}).Unmarshal(whole, "text"); err == nil {
		t.Error("a text was decoded")
	}
}

// errand signals that it runs, and waits.
type errand struct{ begun, end chan struct{} }

func (e *errand) Run() {
	e.begun <- struct{}{}
	<-e.end
}

// TestRunners: no task waits for a goroutine that is busy, and Close waits for all.
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

package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/millrace-io/millrace/entities"
)

// scripted is the server's end of a connection whose client sends something and closes.
type scripted struct {
	net.Conn
	client io.Reader
	wrote  bytes.Buffer
}

func (s *scripted) Read(p []byte) (int, error)  { return s.client.Read(p) }
func (s *scripted) Write(p []byte) (int, error) { return s.wrote.Write(p) }
func (s *scripted) SetDeadline(time.Time) error { return nil }
func (s *scripted) Close() error                { return nil }

// frames builds what a client would send after its preface.
func frames(write func(*http2.Framer)) []byte {
	var b bytes.Buffer
	write(http2.NewFramer(&b, nil))
	return b.Bytes()
}

func headerBlock(contentType string) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", "/a/b"}, {"content-type", contentType},
	} {
		_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	return b.Bytes()
}

// withoutFirstAck returns what a server must read: the client's bytes without one acknowledgement.
// It has its own parser.
func withoutFirstAck(b []byte) []byte {
	if !bytes.HasPrefix(b, []byte(http2.ClientPreface)) {
		return b
	}
	for at := len(http2.ClientPreface); at+frameHeaderBytes <= len(b); {
		length := int(b[at])<<16 | int(b[at+1])<<8 | int(b[at+2])
		if length == 0 && b[at+3] == 4 && b[at+4]&1 != 0 {
			return append(append([]byte{}, b[:at]...), b[at+frameHeaderBytes:]...)
		}
		at += frameHeaderBytes + length
	}
	return b
}

// Whatever a client sends, the sniff ends within its bounds, and the server that gets the
// connection reads exactly what was sent, less the one acknowledgement.
func FuzzSniff(f *testing.F) {
	ack := "\x00\x00\x00\x04\x01\x00\x00\x00\x00"
	open := http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	request := func(contentType string) string {
		return string(frames(func(f *http2.Framer) {
			block := headerBlock(contentType)
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:5]})
			_ = f.WriteContinuation(1, true, block[5:])
			_ = f.WriteData(1, true, []byte("\x00\x00\x00\x00\x00"))
		}))
	}
	for _, seed := range []string{
		"", "P", "GET / HTTP/1.1\r\n\r\n", http2.ClientPreface, open, open + ack, open + request("application/grpc"),
		open + ack + request("application/grpc-web"), open + request("application/json") + ack +
			"\x00\x00\x00\x04\x01\x00\x00\x00\x00",
		open + request("application/grpc") + ack[:4], open +
			"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	} {
		f.Add([]byte(seed), uint64(1))
	}
	opts := Options{Dispatcher: noDispatcher{}, MaxSniffBytes: 2 << 10}
	opts.setDefaults()
	f.Fuzz(func(t *testing.T, sent []byte, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 0))
		client := &chopped{Reader: bytes.NewReader(sent), random: random}
		raw := &scripted{client: client}
		s := &sniffer{conn: raw, opts: &opts}
		to, err := s.sniff()
		if s.head.Len() > opts.MaxSniffBytes {
			t.Fatalf("read %d bytes", s.head.Len())
		}
		if err != nil {
			return
		}
		if to == serverGRPC && !bytes.HasPrefix(sent, []byte(http2.ClientPreface)) {
			t.Fatal("native gRPC without HTTP/2")
		}
		c := &conn{Conn: raw, head: s.head.Bytes(), filter: s.http2 && !s.acknowledged, onClose: func() {}}
		got, err := io.ReadAll(&chopped{Reader: c, random: random})
		if err != nil {
			t.Fatal(err)
		}
		if want := withoutFirstAck(sent); !bytes.Equal(got, want) {
			t.Fatalf("server reads %q, want %q", got, want)
		}
	})
}

// chopped reads in pieces of random size.
type chopped struct {
	io.Reader
	random *rand.Rand
}

func (c *chopped) Read(p []byte) (int, error) {
	if len(p) > 0 {
		p = p[:1+c.random.IntN(len(p))]
	}
	return c.Reader.Read(p)
}

type noDispatcher struct{ Dispatcher }

// A read that stops in the middle of a frame header, at a deadline, continues where it stopped.
func TestFilterSurvivesTimeouts(t *testing.T) {
	stream := frames(func(f *http2.Framer) {
		_ = f.WriteData(1, false, []byte("abc"))
		_ = f.WriteSettingsAck()
		_ = f.WriteData(1, true, []byte("def"))
	})
	errStop := errors.New("stop")
	for cut := range stream {
		client := io.MultiReader(bytes.NewReader(stream[:cut]), &once{err: errStop}, bytes.NewReader(stream[cut:]))
		c := &conn{Conn: &scripted{client: iotest.OneByteReader(client)}, filter: true}
		got, err := io.ReadAll(c)
		if !errors.Is(err, errStop) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		rest, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		want := append(append([]byte{}, stream[:12]...), stream[21:]...)
		if got = append(got, rest...); !bytes.Equal(got, want) {
			t.Errorf("cut at %d: %q", cut, got)
		}
	}
}

// once fails one read.
type once struct {
	err  error
	done bool
}

func (o *once) Read([]byte) (int, error) {
	if o.done {
		return 0, io.EOF
	}
	o.done = true
	return 0, o.err
}

// A body is read as far as its window has space, further when a message was taken, and no more
// after its end, even by a waiting reader.
func TestInflowHoldsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		flow := &inflow{
			body: io.NopCloser(io.LimitReader(endless{}, 1000)), request: &requestBody{},
			control: http.NewResponseController(httptest.NewRecorder()), room: 10, changed: make(chan struct{}, 1),
		}
		var read atomic.Int64
		ended := make(chan error, 1)
		go func() { // Close ends it
			for {
				n, err := flow.Read(make([]byte, 7))
				read.Add(int64(n))
				if err != nil {
					ended <- err
					return
				}
			}
		}()
		reach := func(want int64) {
			t.Helper()
			synctest.Wait() // it waits for room
			if n := read.Load(); n != want {
				t.Fatalf("read %d, want %d", n, want)
			}
		}
		reach(10)
		flow.give(5)
		reach(15)
		_ = flow.Close()
		if err := <-ended; !errors.Is(err, http.ErrBodyReadAfterClose) || read.Load() != 15 {
			t.Errorf("%v after %d", err, read.Load())
		}
	})
}

// TestAnEndedBodyGetsNoDeadline: the reader of a body that has not ended is ended by a deadline in
// the past. After the end of the body net/http reads the next request, which it would end.
func TestAnEndedBodyGetsNoDeadline(t *testing.T) {
	for _, size := range []int64{0, 5} {
		w := &deadlineRecorder{ResponseRecorder: httptest.NewRecorder()}
		request := &requestBody{ReadCloser: io.NopCloser(io.LimitReader(endless{}, size))}
		flow := &inflow{
			body: request, request: request, control: http.NewResponseController(w), room: 5, changed: make(chan struct{}, 1),
		}
		_, _ = flow.Read(make([]byte, 5)) // the end of the body only if it is empty
		if err := flow.Close(); err != nil {
			t.Error(err)
		}
		if ended := size == 0; (w.deadlines > 0) == ended {
			t.Errorf("a body of %d bytes: it has ended is %t, and %d deadlines were set", size, ended, w.deadlines)
		}
	}
}

// deadlineRecorder counts the deadlines of its connection.
type deadlineRecorder struct {
	*httptest.ResponseRecorder

	deadlines int
}

func (r *deadlineRecorder) SetReadDeadline(time.Time) error {
	r.deadlines++
	return nil
}

// A connection of HTTP/1.1 whose context has ended serves no request any more, and says so.
func TestAnEndedConnectionIsClosed(t *testing.T) {
	s := New(Options{Dispatcher: struct{ Dispatcher }{}})
	defer func() { _ = s.Shutdown(t.Context()) }()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	s.serveHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/a.B/C", http.NoBody))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Connection") != "close" {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
}

// endless never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// A closed handoff takes nothing, and is finished when the server has begun with what it took
// before.
func TestHandoff(t *testing.T) {
	h := newHandoff()
	given := &conn{Conn: &scripted{client: endless{}}, onClose: func() {}}
	taken := make(chan bool, 1)
	var wg sync.WaitGroup
	wg.Go(func() { taken <- h.give(given) })
	if _, err := h.Accept(); err != nil || !<-taken {
		t.Errorf("not taken: %v", err)
	}
	wg.Wait()
	_ = h.Close()
	_ = h.Close()
	if h.give(&conn{Conn: &scripted{}, onClose: func() {}}) {
		t.Error("a closed handoff took a connection")
	}
	if _, err := h.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	select {
	case <-h.finished:
		t.Error("finished before the server began")
	default:
	}
	for range 2 {
		if _, err := given.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
	}
	<-h.finished
}

func TestIsTraceParent(t *testing.T) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for s, want := range map[string]bool{
		good: true, "": false, good + "x": false, strings.ToUpper(good): false, strings.Replace(good, "-", "_", 1): false,
	} {
		if isTraceParent(s) != want {
			t.Errorf("%q", s)
		}
	}
}

// The order of fields is by number at every depth, and no field is lost, whatever the message.
func FuzzSortFields(f *testing.F) {
	f.Add([]byte("\x12\x01b\x0a\x01a"))
	f.Add([]byte("\x22\x06\x12\x01b\x0a\x01a\x0a\x01a"))
	md := (&descriptorpb.FileDescriptorProto{}).ProtoReflect().Descriptor()
	f.Fuzz(func(t *testing.T, b []byte) {
		if !isMessage(b) {
			return
		}
		sorted := bytes.Clone(b)
		sortFields(md, sorted)
		last := protowire.Number(0)
		for rest := sorted; len(rest) > 0; {
			number, _, n := protowire.ConsumeField(rest)
			if n < 0 || number < last {
				t.Fatalf("%x became %x", b, sorted)
			}
			last, rest = number, rest[n:]
		}
	})
}

func isMessage(b []byte) bool {
	for len(b) > 0 {
		_, _, n := protowire.ConsumeField(b)
		if n < 0 {
			return false
		}
		b = b[n:]
	}
	return true
}

// The table has every reason, and every code that a function may choose.
func TestTableIsComplete(t *testing.T) {
	for reason := entities.FunctionRefused; reason <= entities.Internal; reason++ {
		if _, ok := verdicts[reason]; !ok {
			t.Errorf("reason %d is missing", reason)
		}
	}
	for code, status := range httpOfCode {
		if status < http.StatusBadRequest {
			t.Errorf("%v is %d", code, status)
		}
	}
	if len(httpOfCode) != codeCount-1 {
		t.Errorf("%d codes", len(httpOfCode))
	}
}

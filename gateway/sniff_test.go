package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/gateway"
)

// wire opens a bare connection.
func (w *world) wire() net.Conn {
	w.t.Helper()
	c, err := new(net.Dialer).DialContext(w.t.Context(), "tcp", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

func write(t testing.TB, c net.Conn, parts ...[]byte) {
	t.Helper()
	for _, p := range parts {
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
	}
}

// h2 speaks frames on a bare connection.
type h2 struct {
	t testing.TB
	net.Conn
	*http2.Framer
}

func newH2(t testing.TB, c net.Conn) *h2 {
	t.Helper()
	f := http2.NewFramer(c, c)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return &h2{t, c, f}
}

func (h *h2) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// request sends the headers of a call and its body, split into the given frames.
func (h *h2) request(contentType string, body []byte, split bool) {
	h.t.Helper()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range [][2]string{
		{":method", "POST"},
		{":scheme", "http"},
		{":path", "/shop.v1.CartService/Plain"},
		{":authority", "x"},
		{"content-type", contentType},
		{"te", "trailers"},
	} {
		h.must(enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}))
	}
	first := block.Bytes()
	var rest []byte
	if split {
		first, rest = first[:7], first[7:]
	}
	h.must(h.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndHeaders: !split}))
	if split {
		h.must(h.WriteContinuation(1, true, rest))
	}
	h.must(h.WriteData(1, true, body))
}

// response reads until the end of stream 1, acknowledging settings, and returns the status fields
// of its headers.
func (h *h2) response() map[string]string {
	h.t.Helper()
	fields := map[string]string{}
	for {
		f, err := h.ReadFrame()
		h.must(err)
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				h.must(h.WriteSettingsAck())
			}
		case *http2.MetaHeadersFrame:
			for _, field := range f.Fields {
				fields[field.Name] = field.Value
			}
			if f.StreamEnded() {
				return fields
			}
		case *http2.DataFrame:
			if f.StreamEnded() {
				return fields
			}
		case *http2.GoAwayFrame:
			h.t.Fatalf("GOAWAY %v %q", f.ErrCode, f.DebugData())
		case *http2.RSTStreamFrame:
			h.t.Fatalf("RST_STREAM %v", f.ErrCode)
		}
	}
}

// settled reads until the server has sent settings, without acknowledging them.
func (h *h2) settled() {
	h.t.Helper()
	for {
		f, err := h.ReadFrame()
		h.must(err)
		if s, ok := f.(*http2.SettingsFrame); ok && !s.IsAck() {
			return
		}
	}
}

// However a client times its settings, acknowledgement and first request, and however its bytes are
// split, both servers serve it, and none sees an acknowledgement of settings that it did not send.
func TestHandOverTimings(t *testing.T) {
	w := newWorld(t, &dispatcher{}, nil)
	w.always(w.reply("Cart", `{"cartId":"1"}`))
	message := w.encoded("CartRequest", `{"cartId":"1"}`)
	bodies := map[string][]byte{
		"application/grpc":           []byte(envelope(string(message))),
		"application/grpc+proto":     []byte(envelope(string(message))),
		"application/grpc-web+proto": []byte(envelope(string(message))),
		"application/proto":          message,
		"application/json":           []byte(`{"cartId":"1"}`),
	}
	for contentType, body := range bodies {
		for _, early := range []bool{false, true} {
			for _, split := range []bool{false, true} {
				for _, trickle := range []bool{false, true} {
					name := contentType
					for label, on := range map[string]bool{"early": early, "split": split, "trickle": trickle} {
						if on {
							name += "+" + label
						}
					}
					t.Run(name, func(t *testing.T) {
						c := w.wire()
						if trickle {
							c = trickling{c}
						}
						h := newH2(t, c)
						write(t, c, []byte(http2.ClientPreface))
						h.must(h.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0}))
						h.must(h.WriteWindowUpdate(0, 1<<16))
						if !early {
							h.settled()
							h.must(h.WriteSettingsAck())
						}
						h.request(contentType, body, split)
						got := h.response()
						if got[":status"] != "200" ||
							(strings.HasPrefix(contentType, "application/grpc") && !strings.Contains(contentType, "web") &&
								got["grpc-status"] != "0") {
							t.Errorf("%v", got)
						}
						h.must(h.WritePing(false, [8]byte{1})) // the connection is still in order
						for {
							f, err := h.ReadFrame()
							h.must(err)
							if p, ok := f.(*http2.PingFrame); ok && p.IsAck() && p.Data[0] == 1 {
								return
							}
							if g, ok := f.(*http2.GoAwayFrame); ok {
								t.Fatalf("GOAWAY %v", g.ErrCode)
							}
							if s, ok := f.(*http2.SettingsFrame); ok && !s.IsAck() {
								h.must(h.WriteSettingsAck())
							}
						}
					})
				}
			}
		}
	}
	if stats := w.server.Stats(); stats.NativeConnections != 16 || stats.HTTPConnections != 24 ||
		stats.UnsniffedConnections != 0 {
		t.Errorf("connections: %d native, %d HTTP, %d neither", stats.NativeConnections, stats.HTTPConnections,
			stats.UnsniffedConnections)
	}
}

// trickling sends every byte on its own.
type trickling struct{ net.Conn }

func (c trickling) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := c.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

// A channel without a call that acknowledges the settings is taken for native gRPC after
// SniffTimeout.
func TestSilentChannelIsNative(t *testing.T) {
	w := newWorld(t, &dispatcher{}, func(o *gateway.Options) { o.SniffTimeout = 50 * time.Millisecond })
	w.always(w.reply("Cart", `{"cartId":"1"}`))
	cc := w.dial()
	cc.Connect()
	eventually(t, "the connection is handed over", func() bool { return w.server.Stats().NativeConnections == 1 })
	if err := cc.Invoke(t.Context(), "/shop.v1.CartService/Plain", w.message("CartRequest", `{"cartId":"1"}`),
		dynamicpb.NewMessage(w.messageType("Cart"))); err != nil {
		t.Error(err)
	}
	if n := w.server.Stats().NativeConnections; n != 1 {
		t.Errorf("%d connections", n)
	}
}

// closed waits until the server closes a connection, and returns what it sent before.
func closed(t testing.TB, c net.Conn) []byte {
	t.Helper()
	b, err := io.ReadAll(c)
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		t.Errorf("the connection stays open after %.300q", b)
	}
	return b
}

// Connections that break the protocol, or take too long to show one, are closed and counted.
func TestBadConnectionsAreClosed(t *testing.T) {
	settings := "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	for _, tc := range []struct{ name, send string }{
		{"half a preface", http2.ClientPreface[:10]},
		{"preface and nothing", http2.ClientPreface},
		{"half a frame", http2.ClientPreface + settings + "\x00\x00\x04"},
		{"headers without an end", http2.ClientPreface + settings + "\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82"},
		{"frame too large", http2.ClientPreface + settings + "\xff\xff\xff\x00\x00\x00\x00\x00\x01"},
		{"data before headers", http2.ClientPreface + settings + "\x00\x00\x01\x09\x00\x00\x00\x00\x01x"},
		{"too many frames", http2.ClientPreface + strings.Repeat(settings, 1000)},
		{"bad header compression", http2.ClientPreface + settings + "\x00\x00\x01\x01\x04\x00\x00\x00\x01\xff"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, &dispatcher{}, func(o *gateway.Options) {
				o.SniffTimeout, o.MaxSniffBytes = 100*time.Millisecond, 4<<10
			})
			c := w.wire()
			write(t, c, []byte(tc.send))
			closed(t, c)
			eventually(t, "it is counted", func() bool { return w.server.Stats().UnsniffedConnections == 1 })
			eventually(t, "it is gone", func() bool { return w.server.Stats().OpenConnections == 0 })
		})
	}
}

// Input that is not HTTP/2 is refused by net/http with a message; a slow header ends the
// connection.
func TestGarbageIsRefused(t *testing.T) {
	w := newWorld(t, &dispatcher{}, func(o *gateway.Options) { o.SniffTimeout = 200 * time.Millisecond })
	c := w.wire()
	write(t, c, []byte("\x16\x03\x01\x00\xa5\x01\x00\x00garbage\r\n\r\n"))
	if got := closed(t, c); !bytes.HasPrefix(got, []byte("HTTP/1.1 400")) {
		t.Errorf("%q", got)
	}
	c = w.wire()
	write(t, c, []byte("POST / HTTP/1.1\r\nHost: x\r\nX-Slow: "))
	closed(t, c)
	_ = w.wire().Close() // a port check is no event
	eventually(t, "all are gone", func() bool { return w.server.Stats().OpenConnections == 0 })
	if n := w.server.Stats().UnsniffedConnections; n != 0 {
		t.Errorf("%d unsniffed", n)
	}
}

// A body that does not arrive times out.
func TestSlowBody(t *testing.T) {
	fake := &dispatcher{}
	w := newWorld(t, fake, func(o *gateway.Options) { o.BodyTimeout = 50 * time.Millisecond })
	for path, want := range map[string]int{
		"/v1/carts/1/items HTTP/1.1\r\nContent-Type: application/json":                                           http.StatusRequestTimeout,
		"/shop.v1.CartService/AddItem HTTP/1.1\r\nContent-Type: application/json":                                http.StatusRequestTimeout,
		"/shop.v1.CartService/AddItem HTTP/1.1\r\nContent-Type: application/json\r\nConnect-Protocol-Version: 1": 0,
	} {
		c := w.wire()
		write(t, c, []byte("POST "+path+"\r\nHost: x\r\nContent-Length: 10\r\n\r\n{"))
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode < 400 || (want != 0 && resp.StatusCode != want) { // Connect only says that it failed
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
	if fake.count() != 0 {
		t.Errorf("%d commands ran", fake.count())
	}
}

// The time for the body is not counted against the call.
func TestSlowCallAfterQuickBody(t *testing.T) {
	w := newWorld(t, &dispatcher{}, func(o *gateway.Options) { o.BodyTimeout = 50 * time.Millisecond })
	reply := w.reply("Cart", `{}`)
	w.fake.unary = func(ctx context.Context, _ *entities.Command) (*entities.Reply, error) {
		select {
		case <-time.After(150 * time.Millisecond):
			return reply, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	for _, path := range []string{"/v1/carts/1/items", "/shop.v1.CartService/AddItem"} {
		if got := w.http("POST", path, `{"cartId":"1"}`, jsonType, jsonValue); got.status != 200 {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
}

// Above the limit, connections are closed at once, and others go on.
func TestTooManyConnections(t *testing.T) {
	w := newWorld(t, &dispatcher{}, func(o *gateway.Options) { o.MaxConnections = 1 })
	w.always(w.reply("Cart", `{"cartId":"1"}`))
	cc := w.dial()
	call := func() error {
		return cc.Invoke(t.Context(), "/shop.v1.CartService/Plain", w.message("CartRequest", `{"cartId":"1"}`),
			dynamicpb.NewMessage(w.messageType("Cart")))
	}
	if err := call(); err != nil {
		t.Fatal(err)
	}
	if got := closed(t, w.wire()); len(got) != 0 {
		t.Errorf("%q", got)
	}
	if err := call(); err != nil {
		t.Fatal(err)
	}
	if stats := w.server.Stats(); stats.RefusedConnections != 1 || stats.Calls[codes.OK] != 2 {
		t.Errorf("%+v", stats.RefusedConnections)
	}
}

// The rest of a refused body is never taken for a request.
func TestRestOfBodyIsNoRequest(t *testing.T) {
	fake := &dispatcher{}
	w := newWorld(t, fake, func(o *gateway.Options) { o.MaxRequest = 1 << 10 })
	w.always(w.reply("Cart", `{"cartId":"1"}`))
	var wg sync.WaitGroup
	smuggled := strings.Repeat(
		"POST "+plainPath+" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"cartId\":\"1\"}", 10000)
	for _, contentType := range []string{
		"application/grpc-web", "application/grpc-web+json", "application/proto", jsonValue, "application/connect+proto",
		"text/plain",
	} {
		for _, path := range []string{plainPath, "/v1/carts/1/items", "/nope"} {
			c := w.wire()
			wg.Go(func() {
				head := "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Type: " + contentType +
					"\r\nTransfer-Encoding: chunked\r\n\r\n"
				_, _ = fmt.Fprintf(c, "%s%x\r\n\x00\x00\x0f\xff\xff%s\r\n0\r\n\r\n", head, len(smuggled)+5, smuggled)
				_ = c.(*net.TCPConn).CloseWrite()
			})
			wg.Go(func() {
				if answers := bytes.Count(closed(t, c), []byte("HTTP/1.1 ")); answers > 1 {
					t.Errorf("%s to %s: %d answers", contentType, path, answers)
				}
			})
		}
	}
	wg.Wait()
	if fake.count() != 0 {
		t.Errorf("%d commands ran", fake.count())
	}
}

package gateway_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/millrace-io/millrace/gateway"
)

// sized is an AddItemRequest of so many bytes in protobuf, whose text repeats a character.
func (w *world) sized(character string, size int) *dynamicpb.Message {
	w.t.Helper()
	build := func(text string) *dynamicpb.Message {
		quoted, err := json.Marshal(text)
		if err != nil {
			w.t.Fatal(err)
		}
		return w.message("AddItemRequest", `{"cartId":"1","text":`+string(quoted)+`}`)
	}
	const room = 10 // for the key, and the tag and length of the text
	text := strings.Repeat(character, (size-room)/len(character))
	msg := build(text)
	return build(text + strings.Repeat("x", size-proto.Size(msg)))
}

// Whether a command is too large is decided by the size of its protobuf message, in every protocol,
// however long its JSON is.
func TestSizesDoNotDependOnTheProtocol(t *testing.T) {
	const limit, path = 1 << 10, "/shop.v1.CartService/AddItem"
	w := newWorld(t, &dispatcher{}, func(o *gateway.Options) { o.MaxRequest = limit })
	w.always(w.reply("Cart", `{}`))
	const accepted, refused = "accepted", "RESOURCE_EXHAUSTED, not_applied"
	verdict := func(code codes.Code, outcome, other string) string {
		fromTransport := strings.Contains(other, "larger than max") // grpc-go's own answer has no trailer of ours
		switch {
		case code == codes.OK:
			return accepted
		case code == codes.ResourceExhausted && (outcome == "not_applied" || fromTransport):
			return refused
		default:
			return fmt.Sprint(code, " ", outcome, " ", other)
		}
	}
	native := func(msg *dynamicpb.Message, opts ...grpc.CallOption) string {
		var trailer metadata.MD
		err := w.dial().Invoke(t.Context(), path, msg, dynamicpb.NewMessage(w.messageType("Cart")),
			append(opts, grpc.Trailer(&trailer))...)
		return verdict(status.Code(err), strings.Join(trailer.Get("millrace-outcome"), ","), fmt.Sprint(err))
	}
	plain := func(path string, msg *dynamicpb.Message, escape func(string) string, headers ...string) string {
		text := strings.ReplaceAll(asJSON(t, msg), "é", `\u00e9`)
		got := w.httpWith(path, escape(text), headers)
		var failure struct{ Code codes.Code }
		if err := json.Unmarshal([]byte(got.body), &failure); err != nil || (failure.Code == codes.ResourceExhausted) !=
			(got.status == http.StatusRequestEntityTooLarge) {
			t.Errorf("%d %s", got.status, got.body)
		}
		return verdict(failure.Code, got.header.Get("millrace-outcome"), got.body)
	}
	same := func(text string) string { return text }
	doors := map[string]func(*dynamicpb.Message) string{
		"gRPC":       func(msg *dynamicpb.Message) string { return native(msg) },
		"gRPC, gzip": func(msg *dynamicpb.Message) string { return native(msg, grpc.UseCompressor(gzip.Name)) },
		"HTTP/JSON":  func(msg *dynamicpb.Message) string { return plain(path, msg, same) },
		"HTTP/JSON, gzip": func(msg *dynamicpb.Message) string {
			return plain(path, msg, func(text string) string { return gzipped(t, text) }, "Content-Encoding", "gzip")
		},
		"HTTP/JSON by a rule": func(msg *dynamicpb.Message) string { return plain("/v1/carts/1/items", msg, same) },
	}
	for name, options := range flavours() {
		if name == "grpc json" { // grpc-go counts its text: docs/headers.md
			continue
		}
		doors[name] = func(msg *dynamicpb.Message) string {
			h2 := strings.HasPrefix(name, "grpc") && !strings.HasPrefix(name, "grpc-web")
			_, err := w.rpcClient(h2, path, options...).CallUnary(t.Context(), connect.NewRequest(msg))
			var failure *connect.Error
			if err == nil {
				return accepted
			}
			if !errors.As(err, &failure) {
				return err.Error()
			}
			return verdict(codes.Code(failure.Code()), failure.Meta().Get("millrace-outcome"), err.Error())
		}
	}
	for name, send := range doors {
		t.Run(name, func(t *testing.T) {
			for _, character := range []string{"x", "\x01", "é", `"`} {
				for size, want := range map[int]string{limit - 1: accepted, limit: accepted, limit + 1: refused} {
					msg := w.sized(character, size)
					if proto.Size(msg) != size {
						t.Fatalf("the message has %d bytes, not %d", proto.Size(msg), size)
					}
					if got := send(msg); got != want {
						t.Errorf("%d bytes of %q: %s, want %s", size, character, got, want)
					}
				}
			}
		})
	}
}

// A text of JSON is read up to eight times the limit, whatever would become of it.
func TestJSONIsBoundedWhileItIsRead(t *testing.T) {
	const limit, path = 1 << 10, "/shop.v1.CartService/AddItem"
	fake := &dispatcher{}
	w := newWorld(t, fake, func(o *gateway.Options) { o.MaxRequest = limit })
	w.always(w.reply("Cart", `{}`))
	for _, tc := range []struct {
		bytes, status int
	}{{8 * limit, http.StatusOK}, {8*limit + 1, http.StatusRequestEntityTooLarge}} {
		const message = `{"cartId":"1"}`
		text := message + strings.Repeat(" ", tc.bytes-len(message))
		for _, headers := range [][]string{nil, {"Content-Encoding", "gzip"}} {
			body := text
			if headers != nil {
				body = gzipped(t, text)
			}
			got := w.httpWith(path, body, headers)
			if got.status != tc.status {
				t.Errorf("HTTP/JSON %v, %d bytes: %d %s", headers, tc.bytes, got.status, got.body)
			}
			status := tc.status
			if status != http.StatusOK {
				status = http.StatusTooManyRequests // Connect's status of resource_exhausted
			}
			got = w.httpWith(path, body, append([]string{"Connect-Protocol-Version", "1"}, headers...))
			if got.status != status {
				t.Errorf("Connect %v, %d bytes: %d %s", headers, tc.bytes, got.status, got.body)
			}
		}
	}
}

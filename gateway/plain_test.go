package gateway_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/gateway"
)

// answer is a response that was read to its end.
type answer struct {
	status int
	header http.Header
	body   string
}

// http sends one HTTP/1.1 request.
func (w *world) http(method, path, body string, headers ...string) answer {
	w.t.Helper()
	got, err := w.tryHTTP(method, path, body, headers...)
	if err != nil {
		w.t.Fatal(err)
	}
	return got
}

// httpWith posts JSON with more headers, some perhaps more than once.
func (w *world) httpWith(path, body string, headers []string) answer {
	w.t.Helper()
	return w.http("POST", path, body, append([]string{jsonType, jsonValue}, headers...)...)
}

func (w *world) tryHTTP(method, path, body string, headers ...string) (answer, error) {
	w.t.Helper()
	var reader io.Reader = http.NoBody
	if body != "" {
		reader = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(w.t.Context(), method, "http://"+w.addr+path, reader)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(b)}, err
}

const jsonType, jsonValue = "Content-Type", "application/json"

// Requests reach their method by the rules and by the generated path, and become the canonical
// bytes of its input.
func TestPlainRequests(t *testing.T) {
	fake := &dispatcher{}
	w := newWorld(t, fake, nil)
	w.always(w.reply("Cart", `{"cartId":"42","items":[{"itemId":"i","quantity":"9007199254740993"}]}`))
	const whole = `{"cartId":"42","items":[{"itemId":"i","quantity":"9007199254740993"}],"totalCents":"0"}`
	const items = `[{"itemId":"i","quantity":"9007199254740993"}]`
	for _, tc := range []struct {
		name, method, path, body string
		wantMethod, input, want  string
	}{
		{"body", "POST", "/v1/carts/42/items", `{"quantity":"2","itemId":"i","text":"t"}`, "AddItem", `{"cartId":"42","itemId":"i","quantity":"2","text":"t"}`, whole},
		{"body repeats the path", "POST", "/v1/carts/42/items", `{"cartId":"42"}`, "AddItem", `{"cartId":"42"}`, whole},
		{"one field as body", "PUT", "/v1/carts/42/item?itemId=q", `{"itemId":"i"}`, "PutItem", `{"cartId":"42","itemId":"q","item":{"itemId":"i"}}`, whole},
		{"query", "GET", "/v1/carts/42?limit=5", "", "GetCart", `{"cartId":"42","limit":5}`, whole},
		{"two variables", "DELETE", "/v1/carts/42/items/7", "", "RemoveItem", `{"cartId":"42","itemId":"7"}`, whole},
		{"response_body", "GET", "/v1/carts/42/items", "", "GetCart", `{"cartId":"42"}`, items},
		{"verb", "POST", "/v1/carts/42:checkout", `{}`, "Checkout", `{"cartId":"42"}`, whole},
		{"verb after a colon", "POST", "/v1/carts/a:b:checkout", `{}`, "Checkout", `{"cartId":"a:b"}`, whole},
		{"colon", "GET", "/v1/carts/a:b", "", "GetCart", `{"cartId":"a:b"}`, whole},
		{"colon inside", "GET", "/v1/carts/a:b/items", "", "GetCart", `{"cartId":"a:b"}`, items},
		{"escaped verb", "GET", "/v1/carts/42%3Acheckout", "", "GetCart", `{"cartId":"42:checkout"}`, whole},
		{"escaped slash", "GET", "/v1/carts/a%2Fb", "", "GetCart", `{"cartId":"a/b"}`, whole},
		{"escaped percent", "GET", "/v1/carts/100%25", "", "GetCart", `{"cartId":"100%"}`, whole},
		{"unescaped once", "GET", "/v1/carts/a%252Fb", "", "GetCart", `{"cartId":"a%2Fb"}`, whole},
		{"plus", "GET", "/v1/carts/a+b", "", "GetCart", `{"cartId":"a+b"}`, whole},
		{"space and umlaut", "GET", "/v1/carts/a%20%C3%BC", "", "GetCart", `{"cartId":"a ü"}`, whole},
		{"generated", "POST", "/shop.v1.CartService/Plain", `{"cartId":"42","item_id":"snake"}`, "Plain", `{"cartId":"42","itemId":"snake"}`, whole},
		{"generated, with a rule", "POST", "/shop.v1.CartService/AddItem", `{"cartId":"42"}`, "AddItem", `{"cartId":"42"}`, whole},
	} {
		t.Run(tc.name, func(t *testing.T) {
			headers := []string{jsonType, jsonValue}
			if tc.body == "" {
				headers = nil
			}
			got := w.http(tc.method, tc.path, tc.body, headers...)
			if got.status != http.StatusOK || got.body != tc.want || got.header.Get(jsonType) != jsonValue {
				t.Fatalf("%d %q %s", got.status, got.header.Get(jsonType), got.body)
			}
			cmd := fake.last()
			if cmd.Method != tc.wantMethod {
				t.Errorf("method %s", cmd.Method)
			}
			name := "CartRequest"
			if strings.HasSuffix(cmd.Payload.TypeURL, "AddItemRequest") {
				name = "AddItemRequest"
			}
			if want := canonical(t, w.message(name, tc.input)); !bytes.Equal(cmd.Payload.Value, want) {
				t.Errorf("payload %x, want %x", cmd.Payload.Value, want)
			}
		})
	}
}

// An invalid request is refused with a message that says why, and never runs.
func TestPlainRefusals(t *testing.T) {
	fake := &dispatcher{}
	w := newWorld(t, fake, func(o *gateway.Options) { o.MaxRequest = 1 << 10 })
	long := `{"cartId":"` + strings.Repeat("x", 2<<10) + `"}`
	longText := strings.ReplaceAll(long, "cartId", "text")
	deep := strings.Repeat(`{"item":`, 100) + strings.Repeat(`}`, 100)
	for _, tc := range []struct {
		name, method, path, body, contentType string
		status                                int
		want                                  string
	}{
		{"unknown field", "POST", "/v1/carts/1/items", `{"nope":1}`, jsonValue, 400, `unknown field \"nope\"`},
		{"unknown field, generated", "POST", "/shop.v1.CartService/Plain", `{"nope":1}`, jsonValue, 400, `unknown field \"nope\"`},
		{"bad JSON", "POST", "/v1/carts/1/items", `{`, jsonValue, 400, "unexpected EOF"},
		{"bad JSON, generated", "POST", "/shop.v1.CartService/Plain", `{`, jsonValue, 400, "unexpected EOF"},
		{"field twice", "POST", "/v1/carts/1/items", `{"text":"a","text":"b"}`, jsonValue, 400, "duplicate field"},
		{"too deep", "POST", "/v1/carts/1/items", deep, jsonValue, 400, ""},
		{"wrong type", "POST", "/v1/carts/1/items", `{"quantity":"many"}`, jsonValue, 400, "quantity"},
		{"unknown query field", "GET", "/v1/carts/1?nope=1", "", "", 400, "nope"},
		{"bad query value", "GET", "/v1/carts/1?limit=many", "", "", 400, "limit"},
		{"body where none belongs", "DELETE", "/v1/carts/1/items/2", `{"limit":1}`, jsonValue, 400, "no body"},
		{"body contradicts the path", "POST", "/v1/carts/42/items", `{"cartId":"43"}`, jsonValue, 400, `body: \"cart_id\": the path has another value`},
		{"query with a whole body", "POST", "/v1/carts/42/items?itemId=x", `{}`, jsonValue, 400, `query: \"itemId\"`},
		{"query of a field in the path", "GET", "/v1/carts/42?cart_id=43", "", "", 400, `query: \"cart_id\": the path sets it`},
		{"no key", "POST", "/shop.v1.CartService/Plain", `{}`, jsonValue, 400, "cart_id"},
		{"no body", "POST", "/shop.v1.CartService/Plain", "", jsonValue, 400, "cart_id"},
		{"form", "POST", "/v1/carts/1/items", `{}`, "application/x-www-form-urlencoded", 415, "application/x-www-form-urlencoded"},
		{"form, generated", "POST", "/shop.v1.CartService/Plain", `{}`, "application/x-www-form-urlencoded", 415, "application/json"},
		{"text", "POST", "/v1/carts/1/items", `{}`, "text/plain", 415, "text/plain"},
		{"too large", "POST", "/v1/carts/1/items", longText, jsonValue, 413, "1024 bytes"},
		{"too large, generated", "POST", "/shop.v1.CartService/Plain", long, jsonValue, 413, "1024 bytes"},
		{"unknown path", "GET", "/v2/carts", "", "", 404, "GET /v2/carts"},
		{"unknown method", "POST", "/shop.v1.CartService/Nope", `{}`, jsonValue, 404, "/shop.v1.CartService/Nope"},
		{"root", "GET", "/", "", "", 404, "GET /"},
		{"wrong HTTP method", "PATCH", "/v1/carts/1/items", `{}`, jsonValue, 405, "use "},
		{"wrong HTTP method, generated", "GET", "/shop.v1.CartService/Plain", "", "", 405, "use POST"},
		{"raw verb that no rule has", "POST", "/v1/carts/1:nope", `{}`, jsonValue, 405, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var headers []string
			if tc.contentType != "" {
				headers = []string{jsonType, tc.contentType}
			}
			got := w.http(tc.method, tc.path, tc.body, headers...)
			if got.status != tc.status || !strings.Contains(got.body, tc.want) {
				t.Errorf("%d %s", got.status, got.body)
			}
			if got.header.Get(jsonType) != jsonValue || !strings.HasPrefix(got.body, `{"code":`) ||
				got.header.Get("millrace-outcome") != "not_applied" {
				t.Errorf("%v %s", got.header, got.body)
			}
		})
	}
	if fake.count() != 0 {
		t.Errorf("%d commands ran", fake.count())
	}
}

func gzipped(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Compressed requests are decompressed, up to the same limit.
func TestPlainGzip(t *testing.T) {
	fake := &dispatcher{}
	w := newWorld(t, fake, func(o *gateway.Options) { o.MaxRequest = 1 << 10 })
	w.always(w.reply("Cart", `{}`))
	for _, path := range []string{"/v1/carts/1/items", "/shop.v1.CartService/AddItem"} {
		small := gzipped(t, `{"cartId":"1"}`)
		if got := w.http("POST", path, small, jsonType, jsonValue, "Content-Encoding", "gzip"); got.status != 200 {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
		bomb := gzipped(t, `{"text":"`+strings.Repeat("x", 1<<20)+`"}`)
		if len(bomb) > 2<<10 {
			t.Fatalf("the bomb has %d bytes", len(bomb))
		}
		if got := w.http("POST", path, bomb[:], jsonType, jsonValue, "Content-Encoding", "gzip"); got.status != 413 {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
		if got := w.http("POST", path, "x", jsonType, jsonValue, "Content-Encoding", "br"); got.status != 415 {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
		if got := w.http("POST", path, "garbage", jsonType, jsonValue, "Content-Encoding", "gzip"); got.status != 400 {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
	if fake.count() != 2 {
		t.Errorf("%d commands ran", fake.count())
	}
}

// A chunked body has no length; it is stopped at the limit nevertheless.
func TestPlainChunkedTooLarge(t *testing.T) {
	fake := &dispatcher{}
	w := newWorld(t, fake, func(o *gateway.Options) { o.MaxRequest = 1 << 10 })
	for _, path := range []string{"/v1/carts/1/items", "/shop.v1.CartService/AddItem"} {
		body := io.MultiReader(strings.NewReader(`{"text":"`), strings.NewReader(strings.Repeat("x", 4<<10)),
			strings.NewReader(`"}`))
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+w.addr+path, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(jsonType, jsonValue)
		transport := &http.Transport{DisableKeepAlives: true}
		resp, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
	if fake.count() != 0 {
		t.Errorf("%d commands ran", fake.count())
	}
}

// Headers of a plain call mean what they mean to gRPC.
func TestPlainHeaders(t *testing.T) {
	fake := &dispatcher{}
	w := newWorld(t, fake, nil)
	reply := w.reply("Cart", `{}`)
	reply.Token, reply.Owner, reply.Metadata = "tok", "b.example:9000",
		entities.Metadata{{Key: "x-shop", Text: "a"}, {Key: "content-length", Text: "9999"}}
	w.always(reply)
	for _, path := range []string{"/v1/carts/1/items", "/shop.v1.CartService/AddItem"} {
		got := w.http("POST", path, `{"cartId":"1"}`, jsonType, jsonValue, "Idempotency-Key", `"k"`,
			"Millrace-Consistency", "local")
		if got.status != 200 || got.header.Get("Millrace-Token") != "tok" ||
			got.header.Get("Millrace-Owner") != "b.example:9000" || got.header.Get("X-Shop") != "a" {
			t.Errorf("%s: %d %v %s", path, got.status, got.header, got.body)
		}
		if cmd := fake.last(); cmd.ID != "k" || cmd.Consistency != entities.Local {
			t.Errorf("%s: %+v", path, cmd)
		}
	}
	w.always(w.reply("Line", `{}`))
	w.http("POST", "/v1/echo", `{}`, jsonType, jsonValue, "X-Mine", "1")
	if md := fake.last().Metadata; md.Get("x-mine") != "1" || md.Get("content-type") != "" ||
		md.Get("connect-protocol-version") != "" {
		t.Errorf("metadata %v", md)
	}
}

func TestPlainDeadline(t *testing.T) {
	fake := &dispatcher{unary: func(ctx context.Context, _ *entities.Command) (*entities.Reply, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	w := newWorld(t, fake, nil)
	for _, path := range []string{"/v1/carts/1/items", "/shop.v1.CartService/AddItem"} {
		got := w.http("POST", path, `{"cartId":"1"}`, jsonType, jsonValue, "X-Server-Timeout", "0.02")
		if got.status != http.StatusGatewayTimeout || got.header.Get("millrace-outcome") != "unknown" {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
	if got := w.http("POST", "/v1/carts/1/items", `{}`, jsonType, jsonValue, "X-Server-Timeout",
		"soon"); got.status != 400 {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// google.api.HttpBody is sent as it is.
func TestPlainHTTPBody(t *testing.T) {
	w := newWorld(t, &dispatcher{}, nil)
	w.always(&entities.Reply{Payload: entities.Payload{Value: httpBody(t, "text/csv", "a;b")}})
	for _, got := range []answer{
		w.http("GET", "/v1/carts/1/receipt", ""),
		w.http("POST", "/shop.v1.CartService/Receipt", `{"cartId":"1"}`, jsonType, jsonValue),
	} {
		if got.status != 200 || got.body != "a;b" || got.header.Get(jsonType) != "text/csv" {
			t.Errorf("%d %v %q", got.status, got.header, got.body)
		}
	}
}

// Replies that cannot be printed are failures of the function.
func TestPlainBadReplies(t *testing.T) {
	w := newWorld(t, &dispatcher{}, nil)
	for _, reply := range []*entities.Reply{
		{NoPayload: true}, {Payload: entities.Payload{Value: []byte{0x0a, 0x09, 'x'}}},
	} {
		w.always(reply)
		for _, path := range []string{"/v1/carts/1/items", "/shop.v1.CartService/AddItem"} {
			got := w.http("POST", path, `{"cartId":"1"}`, jsonType, jsonValue)
			if got.status != 500 || !strings.Contains(got.body, "function") || got.header.Get("millrace-outcome") != "unknown" {
				t.Errorf("%s: %d %v %q", path, got.status, got.header, got.body)
			}
		}
	}
}

// Streams over plain HTTP: one message in; lines, events or bytes out.
func TestPlainStreams(t *testing.T) {
	w := newWorld(t, &dispatcher{stream: echoStream}, nil)
	for _, tc := range []struct {
		name   string
		method string
		path   string
		body   string
		accept string
		typ    string
		want   string
	}{
		{"lines", "GET", "/v1/out/a", "", "", jsonValue, `{"text":"a"}` + "\n" + `{"text":"a"}` + "\n" + `{"text":"a"}` + "\n"},
		{"events", "GET", "/v1/out/a", "", "text/event-stream", "text/event-stream", "id: t0\ndata: {\"text\":\"a\"}\n\nid: t1\ndata: {\"text\":\"a\"}\n\nid: t2\ndata: {\"text\":\"a\"}\n\n"},
		{"generated", "POST", "/shop.v1.StreamService/Both", `{"text":"b"}`, "", jsonValue, `{"text":"b"}` + "\n"},
		{"in, by a rule", "POST", "/v1/in", `{"text":"c"}`, "", jsonValue, `{"text":"c"}`},
		{"in, generated", "POST", "/shop.v1.StreamService/In", `{"text":"c"}`, "", jsonValue, `{"text":"c"}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			headers := []string{"Accept", tc.accept}
			if tc.body != "" {
				headers = append(headers, jsonType, jsonValue)
			}
			got := w.http(tc.method, tc.path, tc.body, headers...)
			if got.status != 200 || got.body != tc.want || got.header.Get(jsonType) != tc.typ ||
				got.header.Get("X-First") != "yes" {
				t.Errorf("%d %v %q", got.status, got.header, got.body)
			}
		})
	}
	w.fake.stream = func(_ context.Context, s *entities.Stream) error {
		for _, part := range []string{"ab", "cd"} {
			if err := s.Send(&entities.Reply{Payload: entities.Payload{Value: httpBody(t, "image/png", part)}}); err != nil {
				return err
			}
		}
		return nil
	}
	if got := w.http("GET", "/v1/blob?text=x", ""); got.body != "abcd" || got.header.Get(jsonType) != "image/png" {
		t.Errorf("%v %q", got.header, got.body)
	}
}

// A stream that fails answers like any call before its first message; after it, with an event or by
// closing the connection.
func TestPlainStreamFailures(t *testing.T) {
	boom := entities.Errorf(entities.FunctionFailed, entities.NotApplied, "boom")
	after := 0
	fake := &dispatcher{stream: func(_ context.Context, s *entities.Stream) error {
		for range after {
			if err := s.Send(&entities.Reply{Payload: s.Payload}); err != nil {
				return err
			}
		}
		return boom
	}}
	w := newWorld(t, fake, nil)
	if got := w.http("GET", "/v1/out/a", ""); got.status != 500 ||
		got.body != `{"code":2,"message":"boom","details":[]}`+"\n" {
		t.Errorf("before: %d %q", got.status, got.body)
	}
	after = 1
	if got := w.http("GET", "/v1/out/a", "", "Accept", "text/event-stream"); !strings.HasSuffix(got.body,
		"event: error\ndata: {\"code\":2,\"message\":\"boom\",\"details\":[]}\n\n") {
		t.Errorf("event: %q", got.body)
	}
	if got, err := w.tryHTTP("GET", "/v1/out/a", ""); !errors.Is(err, io.ErrUnexpectedEOF) ||
		got.body != "{\"text\":\"a\"}\n" {
		t.Errorf("lines: %q %v", got.body, err)
	}
}

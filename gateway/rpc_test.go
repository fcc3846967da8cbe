package gateway_test

import (
	"cmp"
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/gateway"
)

// frame is a message in its envelope.
func frame(flags byte, message string) string {
	return string([]byte{flags, 0, 0, byte(len(message) >> 8), byte(len(message))}) + message
}

// failAfterOne streams one message and then refuses, with a text that has to be escaped.
func failAfterOne(_ context.Context, s *entities.Stream) error {
	if err := s.Send(&entities.Reply{Payload: s.Payload, Token: "t"}); err != nil {
		return err
	}
	return &entities.Error{
		Reason: entities.FunctionRefused, Code: uint32(codes.FailedPrecondition), Outcome: entities.Refused,
		Message: "100 % zu spät",
	}
}

// What is on the wire, byte by byte, for clients that are not of the same library.
func TestRPCBytes(t *testing.T) {
	const (
		out      = "/shop.v1.StreamService/Out"
		plain    = "/shop.v1.CartService/Plain"
		look     = "/shop.v1.CartService/Look"
		nope     = "/shop.v1.CartService/Nope"
		line     = "\x0a\x01a"          // {"text":"a"}
		request  = "\x0a\x0242"         // {"cartId":"42"}
		cart     = "\x0a\x0242\x18\x07" // {"cartId":"42","totalCents":"7"}
		cartJSON = `{"cartId":"42","items":[],"totalCents":"7"}`

		web, webText = "application/grpc-web+proto", "application/grpc-web-text+proto"
		failed       = "grpc-status: 9\r\ngrpc-message: 100 %25 zu sp%C3%A4t\r\nmillrace-outcome:" +
			" refused\r\nmillrace-token: t\r\n"
		failedJSON = `{"error":{"code":"failed_precondition","message":"100 % zu` +
			` spät"},"metadata":{"millrace-outcome":["refused"],"millrace-token":["t"]}}`
	)
	b64 := base64.StdEncoding.EncodeToString
	get := func(path, query string) string { return path + "?" + query }
	version := func(v string) []string { return []string{"Connect-Protocol-Version", v} }
	notApplied := `"metadata":{"millrace-outcome":["not_applied"]}`
	for _, tc := range []struct {
		// method is that of the request: POST with a content type, otherwise GET.
		method, name, path, contentType, body string
		headers                               []string
		status                                int
		wantType, want                        string
		// outcome is that of a unary Connect response.
		outcome string
	}{
		{
			name: "web, unary", path: plain, contentType: web, body: frame(0, request), wantType: web,
			want: frame(0, cart) + frame(0x80, "grpc-status: 0\r\n"),
		},
		{
			name: "web, without a subtype", path: plain, contentType: "application/grpc-web", body: frame(0, request),
			wantType: "application/grpc-web", want: frame(0, cart) + frame(0x80, "grpc-status: 0\r\n"),
		},
		{
			name: "web, in capitals and with a charset",
			path: plain, contentType: "Application/GRPC-Web+Proto; Charset=UTF-8",
			body: frame(0, request), wantType: web, want: frame(0, cart) + frame(0x80, "grpc-status: 0\r\n"),
		},
		{
			name: "web, JSON",
			path: plain, contentType: "application/grpc-web+json", body: frame(0, `{"cartId":"42"}`),
			wantType: "application/grpc-web+json", want: frame(0, cartJSON) + frame(0x80, "grpc-status: 0\r\n"),
		},
		{
			name: "web, gzip", path: plain, contentType: web, body: frame(1, gzipped(t, request)),
			headers: []string{"Grpc-Encoding", "gzip"}, wantType: web,
			want: frame(0, cart) + frame(0x80, "grpc-status: 0\r\n"),
		},
		{
			name: "web, a stream that fails", path: out, contentType: web, body: frame(0, line), wantType: web,
			want: frame(0, line) + frame(0x80, failed),
		},
		{
			name: "web, unknown method", path: nope, contentType: web, body: frame(0, ""), wantType: web,
			want: frame(0x80, "grpc-status: 12\r\ngrpc-message: no method "+nope+
				" is served here: check its spelling, or list the methods with server"+
				" reflection\r\nmillrace-outcome: not_applied\r\n"),
		},
		{
			name: "web, a bad timeout", path: plain, contentType: web, body: frame(0, request),
			headers:  []string{"Grpc-Timeout", "5x"},
			wantType: web,
			want: frame(0x80, "grpc-status: 3\r\ngrpc-message: grpc-timeout is \"5x\": it must be a number of at"+
				" most"+
				" 8 digits and a unit: H, M, S, m, u or n\r\nmillrace-outcome: not_applied\r\n"),
		},
		{
			name: "web, no message", path: plain, contentType: web, wantType: web,
			want: frame(0x80, "grpc-status: 12\r\ngrpc-message: "+plain+
				" takes one message, and the request has none\r\nmillrace-outcome: not_applied\r\n"),
		},
		{
			name: "web, two messages",
			path: plain, contentType: web, body: frame(0, request) + frame(0, request), wantType: web,
			want: frame(0x80, "grpc-status: 12\r\ngrpc-message: "+plain+
				" takes one message, and the request has more than one\r\nmillrace-outcome: not_applied\r\n"),
		},
		{
			name: "web, torn", path: plain, contentType: web, body: frame(0, request)[:7], wantType: web,
			want: frame(0x80, "grpc-status: 3\r\ngrpc-message: the request's body ends in the middle of a"+
				" message\r\nmillrace-outcome: not_applied\r\n"),
		},
		{
			name: "web, too large", path: plain, contentType: web, body: "\x00\x7f\x00\x00\x00", wantType: web,
			want: frame(0x80, "grpc-status: 8\r\ngrpc-message: the request is larger than 4194304 bytes: send"+
				" less at once, or raise"+
				" max-request\r\nmillrace-outcome: not_applied\r\n"),
		},
		{
			name: "web, another subtype",
			path: plain, contentType: "application/grpc-web+thrift", body: frame(0, request),
			wantType: "application/grpc-web+thrift", want: frame(0x80, "grpc-status: 3\r\ngrpc-message: content type"+
				" \"application/grpc-web+thrift\" is not served for "+plain+": use application/grpc-web+proto,"+
				" application/grpc-web+json\r\nmillrace-outcome: not_applied\r\n"),
		},
		{
			name: "web text, unary", path: plain, contentType: webText, body: b64([]byte(frame(0, request))),
			wantType: webText,
			want:     b64([]byte(frame(0, cart))) + b64([]byte(frame(0x80, "grpc-status: 0\r\n"))),
		},
		{
			name: "web text, padded in the middle", path: plain, contentType: webText,
			body:     b64([]byte(frame(0, request)[:4])) + b64([]byte(frame(0, request)[4:])),
			wantType: webText, want: b64([]byte(frame(0, cart))) + b64([]byte(frame(0x80, "grpc-status: 0\r\n"))),
		},
		{
			name: "web text, a stream that fails",
			path: out, contentType: "application/grpc-web-text", body: b64([]byte(frame(0, line))),
			wantType: "application/grpc-web-text",
			want:     b64([]byte(frame(0, line))) + b64([]byte(frame(0x80, failed))),
		},

		{
			name: "connect, unary", path: plain, contentType: "application/proto", body: request,
			wantType: "application/proto", want: cart,
		},
		{
			name: "connect, JSON",
			path: plain, contentType: "Application/JSON; charset=\"UTF-8\"", body: `{"cartId":"42"}`,
			headers: version("1"), wantType: "application/json", want: cartJSON,
		},
		{
			name: "connect, gzip", path: plain, contentType: "application/proto", body: gzipped(t, request),
			headers: []string{"Content-Encoding", "gzip"}, wantType: "application/proto", want: cart,
		},
		{
			name: "connect, an empty message marked as gzip", path: plain, contentType: "application/json",
			headers: append(version("1"), "Content-Encoding", "gzip"), status: 400, wantType: "application/json",
			want: `{"code":"invalid_argument","message":"/shop.v1.CartService/Plain: the entity key cart_id of` +
				` shop.v1.CartRequest is empty`, outcome: "not_applied",
		},
		{
			name: "connect, another version", path: plain, contentType: "application/json", body: `{}`,
			headers: version("2"), status: 400,
			wantType: "application/json", outcome: "not_applied",
			want: `{"code":"invalid_argument","message":"connect-protocol-version is \"2\": only version 1 is` +
				` served"}`,
		},
		{
			name: "connect, unknown method", path: nope, contentType: "application/json", body: `{}`,
			headers: version("1"), status: 404,
			wantType: "application/json", outcome: "not_applied",
			want: `{"code":"unimplemented","message":"no method ` + nope + ` is served here: check its spelling, or list` +
				` the methods with server reflection"}`,
		},
		{
			name: "connect, a bad timeout", path: plain, contentType: "application/proto", body: request,
			headers: []string{"Connect-Timeout-Ms", "1.5"}, status: 400,
			wantType: "application/json", outcome: "not_applied",
			want: `{"code":"invalid_argument","message":"connect-timeout-ms is \"1.5\": it must be a number of` +
				` milliseconds with at most 10 digits"}`,
		},
		{
			name: "connect, a timeout of eleven digits", path: plain, contentType: "application/proto", body: request,
			headers: []string{"Connect-Timeout-Ms", "10000000000"}, status: 400,
			wantType: "application/json", outcome: "not_applied",
			want: `{"code":"invalid_argument","message":"connect-timeout-ms is`,
		},
		{
			name: "connect, a timeout of ten digits", path: plain, contentType: "application/proto", body: request,
			headers: []string{"Connect-Timeout-Ms", "9999999999"}, wantType: "application/proto", want: cart,
		},
		{
			name: "connect, another charset",
			path: plain, contentType: "application/json; charset=latin1", body: `{"cartId":"42"}`,
			headers: version("1"), status: 415, wantType: "application/json", outcome: "not_applied",
			want: `{"code":"unknown","message":"content type \"application/json; charset=latin1\" is` +
				` not served for ` + plain + `: use application/proto, application/json"}`,
		},
		{
			name: "connect, another coding", path: plain, contentType: "application/proto", body: request,
			headers: []string{"Content-Encoding", "br"}, status: 501,
			wantType: "application/json", outcome: "not_applied",
			want: `{"code":"unimplemented","message":"content-encoding \"br\" is not served: use gzip, or identity"}`,
		},
		{
			name: "connect, bad JSON", path: plain, contentType: "application/json", body: `{`,
			headers: version("1"), status: 400,
			wantType: "application/json", outcome: "not_applied",
			want: `{"code":"invalid_argument","message":"` + plain + `: the request is not valid JSON`,
		},
		{
			name: "connect, another HTTP method", method: "DELETE", path: plain, contentType: "application/proto", body: request,
			status: 405, wantType: "application/json", outcome: "not_applied",
			want: `{"code":"unknown","message":"DELETE ` + plain + ` is not served: use POST"}`,
		},
		{
			name: "connect, a stream as unary", path: out, contentType: "application/proto", body: line, status: 415,
			wantType: "application/json", outcome: "not_applied",
			want: `{"code":"unknown","message":"` + out + ` streams: send content-type` +
				` application/connect+proto or application/connect+json"}`,
		},

		{
			name: "connect stream that fails",
			path: out, contentType: "application/connect+proto", body: frame(0, line),
			wantType: "application/connect+proto", want: frame(0, line) + frame(2, failedJSON),
		},
		{
			name: "connect stream, JSON in capitals",
			path: out, contentType: "application/CONNECT+JSON", body: frame(0, `{"text":"a"}`),
			wantType: "application/connect+json", want: frame(0, `{"text":"a"}`) + frame(2, failedJSON),
		},
		{
			name: "connect stream, another version",
			path: out, contentType: "application/connect+proto", body: frame(0, line),
			headers: version("x"), wantType: "application/connect+proto",
			want: frame(2, `{"error":{"code":"invalid_argument","message":"connect-protocol-version is \"x\":`+
				` only version 1 is served"},`+notApplied+`}`),
		},
		{
			name: "connect stream, unknown method",
			path: nope, contentType: "application/connect+proto", body: frame(0, line),
			wantType: "application/connect+proto",
			want: frame(2, `{"error":{"code":"unimplemented","message":"no method `+nope+
				` is served here: check its spelling, or list the methods with server`+
				` reflection"},`+notApplied+`}`),
		},
		{
			name: "connect stream, an end from the caller",
			path: out, contentType: "application/connect+proto", body: frame(2, "{}"),
			wantType: "application/connect+proto", want: frame(2,
				`{"error":{"code":"invalid_argument","message":"a message of the request has the flags 0x2: only`+
					` 0x1 may be set"},`+notApplied+`}`),
		},
		{
			name: "connect stream, compressed without saying how",
			path: out, contentType: "application/connect+proto", body: frame(1, line),
			wantType: "application/connect+proto", want: frame(2,
				`{"error":{"code":"internal","message":"a message of the request is marked as compressed, but no`+
					` encoding is named"},`+notApplied+`}`),
		},
		{
			name: "connect stream, unary method",
			path: plain, contentType: "application/connect+proto", body: frame(0, request), status: 415,
			wantType: "application/json", outcome: "not_applied",
			want: `{"code":"unknown","message":"` + plain + ` has one message in each direction`,
		},

		{
			name: "get, JSON", path: get(look, "message=%7B%22cartId%22%3A%2242%22%7D&encoding=json&connect=v1"),
			wantType: "application/json", want: cartJSON,
		},
		{
			name:     "get, without a version",
			path:     get(look, "encoding=json&message=%7B%22cartId%22%3A%2242%22%7D&more=1"),
			wantType: "application/json", want: cartJSON,
		},
		{
			name: "get, proto",
			path: get(look,
				"connect=v1&base64=1&encoding=proto&message="+base64.RawURLEncoding.EncodeToString([]byte(request))),
			wantType: "application/proto", want: cart,
		},
		{
			name: "get, gzip", path: get(look, "connect=v1&base64=1&compression=gzip&encoding=proto&message="+
				base64.RawURLEncoding.EncodeToString([]byte(gzipped(t, request)))), wantType: "application/proto",
			want: cart,
		},
		{
			name: "get, another version", path: get(look, "connect=v2&encoding=json&message=%7B%7D"),
			status: 400, outcome: "not_applied",
			wantType: "application/json",
			want:     `{"code":"invalid_argument","message":"parameter connect is \"v2\": only version v1 is served"}`,
		},
		{
			name: "get, no message", path: get(look, "connect=v1&encoding=json"), status: 400, outcome: "not_applied",
			wantType: "application/json",
			want:     `{"code":"invalid_argument","message":"the URL has no parameter message"}`,
		},
		{
			name: "get, bad base64", path: get(look, "connect=v1&base64=1&encoding=proto&message=%2B%2B"),
			status: 400, outcome: "not_applied",
			wantType: "application/json",
			want:     `{"code":"invalid_argument","message":"parameter message is not in the base64 of URLs`,
		},
		{
			name: "get, a bad escape", path: get(look, "connect=v1&encoding=json&message=%zz"), status: 400,
			outcome:  "not_applied",
			wantType: "application/json",
			want:     `{"code":"invalid_argument","message":"the query of the URL is malformed`,
		},
		{
			name: "get, no encoding", path: get(look, "connect=v1&message=%7B%7D"), status: 415,
			outcome:  "not_applied",
			wantType: "application/json",
			want:     `{"code":"unknown","message":"parameter encoding is \"\": use proto or json"}`,
		},
		{
			name: "get, a method with side effects",
			path: get(plain, "connect=v1&encoding=json&message=%7B%7D"), status: 405, outcome: "not_applied",
			wantType: "application/json",
			want:     `{"code":"unknown","message":"` + plain + ` may have side effects`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, &dispatcher{stream: failAfterOne}, nil)
			w.always(w.reply("Cart", `{"cartId":"42","totalCents":"7"}`))
			method, headers := "GET", tc.headers
			if tc.contentType != "" {
				method, headers = cmp.Or(tc.method, "POST"), append([]string{jsonType, tc.contentType}, tc.headers...)
			}
			got := w.http(method, tc.path, tc.body, headers...)
			if tc.status == 0 {
				tc.status = 200
			}
			if got.status != tc.status || got.header.Get(jsonType) != tc.wantType ||
				!strings.HasPrefix(got.body, tc.want) || tc.status == 200 && got.body != tc.want {
				t.Errorf("%d %q\n%q\nwant %d"+
					" %q\n%q", got.status, got.header.Get(jsonType), got.body, tc.status, tc.wantType, tc.want)
			}
			if outcome := got.header.Get("Trailer-Millrace-Outcome"); outcome != tc.outcome {
				t.Errorf("outcome %q, want %q", outcome, tc.outcome)
			}
		})
	}
}

// Details of an error are in the form of each protocol.
func TestRPCErrorDetails(t *testing.T) {
	fake := &dispatcher{unary: func(context.Context, *entities.Command) (*entities.Reply, error) {
		return nil, &entities.Error{
			Reason: entities.Overloaded, Outcome: entities.NotApplied, Message: "too" +
				" much", RetryAfter: 2 * time.Second,
		}
	}}
	w := newWorld(t, fake, nil)
	const path = "/shop.v1.CartService/Plain"
	got := w.http("POST", path, `{"cartId":"1"}`, jsonType, jsonValue, "Connect-Protocol-Version", "1")
	const want = `{"code":"resource_exhausted","message":"too` +
		` much","details":[{"type":"google.rpc.RetryInfo","value":"CgIIAg",` +
		`"debug":{"retryDelay":"2s"}}]}`
	if got.status != http.StatusTooManyRequests || got.body != want {
		t.Errorf("Connect: %d %s", got.status, got.body)
	}
	got = w.http("POST", path, frame(0, "\x0a\x011"), jsonType, "application/grpc-web")
	const trailers = "grpc-status: 8\r\ngrpc-message: too much\r\ngrpc-status-details-bin: "
	if got.status != http.StatusOK || !strings.HasPrefix(got.body[5:], trailers) {
		t.Errorf("gRPC-Web: %d %q", got.status, got.body)
	}
}

// A binary header that was joined with commas is split; one that is no base64 is refused in the
// caller's form.
func TestRPCBinaryHeaders(t *testing.T) {
	fake := &dispatcher{}
	w := newWorld(t, fake, nil)
	w.always(w.reply("Line", `{}`))
	const path = "/shop.v1.StreamService/Echo"
	w.http("POST", path, frame(0, ""), jsonType, "application/grpc-web", "X-Bin", "AQID, BAUG==", "X-Bin", "Bw")
	var got []string
	for _, entry := range fake.last().Metadata {
		if entry.Key == "x-bin" {
			got = append(got, entry.Text)
		}
	}
	if strings.Join(got, " ") != "AQID BAUG Bw" {
		t.Errorf("%q", got)
	}
	refused := w.http("POST", path, "", jsonType, "application/proto", "X-Bin", "!")
	if refused.status != 400 || !strings.Contains(refused.body, `header x-bin is \"!\"`) {
		t.Errorf("%d %s", refused.status, refused.body)
	}
}

// A deadline in the headers of each protocol ends the call in the caller's form.
func TestRPCDeadlines(t *testing.T) {
	fake := &dispatcher{unary: func(ctx context.Context, _ *entities.Command) (*entities.Reply, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	w := newWorld(t, fake, nil)
	const path = "/shop.v1.CartService/Plain"
	got := w.http("POST", path, "\x0a\x011", jsonType, "application/proto", "Connect-Timeout-Ms", "20")
	if got.status != http.StatusGatewayTimeout || !strings.Contains(got.body, `"code":"deadline_exceeded"`) {
		t.Errorf("Connect: %d %s", got.status, got.body)
	}
	got = w.http("POST", path, frame(0, "\x0a\x011"), jsonType, "application/grpc-web", "Grpc-Timeout", "20m")
	if got.status != http.StatusOK || !strings.Contains(got.body, "grpc-status: 4\r\n") {
		t.Errorf("gRPC-Web: %d %q", got.status, got.body)
	}
}

// Native gRPC reads a content type as the other protocols do.
func TestNativeContentTypes(t *testing.T) {
	w := newWorld(t, &dispatcher{}, nil)
	w.always(w.reply("Cart", `{"cartId":"42"}`))
	client := webClient(t, true)
	const proto, json = "\x0a\x0242", `{"cartId":"42"}`
	const jsonReply = `{"cartId":"42","items":[],"totalCents":"0"}`
	for _, c := range []struct{ contentType, message, reply string }{
		{"application/grpc;charset=utf-8", proto, proto},
		{"APPLICATION/GRPC", proto, proto},
		{"application/grpc+proto; x=1", proto, proto},
		{"application/grpc+json; x=1", json, jsonReply},
		{"Application/gRPC+JSON", json, jsonReply},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+w.addr+"/shop.v1.CartService/Plain",
			strings.NewReader(frame(0, c.message)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(jsonType, c.contentType)
		r.Header.Set("Te", "trailers")
		got, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(got.Body)
		_ = got.Body.Close()
		isJSON := strings.Contains(got.Header.Get(jsonType), "json")
		if err != nil || got.Trailer.Get("Grpc-Status") != "0" || string(body) != frame(0, c.reply) ||
			isJSON != (c.reply != proto) {
			t.Errorf("%s: %d %v %v %q, %v", c.contentType, got.StatusCode, got.Header, got.Trailer, body, err)
		}
		client.CloseIdleConnections() // the next one is sniffed again
	}
}

// A client may ping while it has no call, as channels with PermitWithoutStream do.
func TestPingsWithoutCalls(t *testing.T) {
	w := newWorld(t, &dispatcher{}, func(o *gateway.Options) { o.MinPingInterval = time.Nanosecond })
	w.always(w.reply("Cart", `{}`))
	c := w.wire()
	h := newH2(t, c)
	write(t, c, []byte(http2.ClientPreface))
	h.must(h.WriteSettings())
	h.request("application/grpc", []byte(frame(0, "\x0a\x011")), false)
	h.response()
	for i := range byte(5) { // grpc-go closes the connection after three that come too early
		h.must(h.WritePing(false, [8]byte{1, i}))
		for answered := false; !answered; {
			f, err := h.ReadFrame()
			h.must(err)
			switch f := f.(type) {
			case *http2.GoAwayFrame:
				t.Fatalf("GOAWAY %v %q", f.ErrCode, f.DebugData())
			case *http2.PingFrame:
				answered = f.IsAck() && f.Data == [8]byte{1, i}
			}
		}
	}
}

package gateway_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/gateway"
)

// ruleFile is a function whose action echoes its input, by rules of every form.
const ruleFile = `
name: "rules.proto" package: "rules.v1" syntax: "proto3"
dependency: "google/api/annotations.proto" dependency: "google/api/httpbody.proto"
dependency: "google/protobuf/timestamp.proto" dependency: "google/protobuf/struct.proto"
dependency: "google/protobuf/wrappers.proto" dependency: "google/protobuf/field_mask.proto"
message_type { name: "All"
  field { name: "id" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "num" number: 2 type: TYPE_INT64 label: LABEL_OPTIONAL }
  field { name: "pick_s" number: 3 type: TYPE_STRING label: LABEL_OPTIONAL oneof_index: 0 }
  field { name: "pick_i" number: 4 type: TYPE_INT32 label: LABEL_OPTIONAL oneof_index: 0 }
  field { name: "rts" number: 5 type: TYPE_MESSAGE type_name: ".google.protobuf.Timestamp" label: LABEL_REPEATED }
  field { name: "ts" number: 6 type: TYPE_MESSAGE type_name: ".google.protobuf.Timestamp" label: LABEL_OPTIONAL }
  field { name: "val" number: 7 type: TYPE_MESSAGE type_name: ".google.protobuf.Value" label: LABEL_OPTIONAL }
  field { name: "ws" number: 8 type: TYPE_MESSAGE type_name: ".google.protobuf.StringValue" label: LABEL_OPTIONAL }
  field { name: "mask" number: 9 type: TYPE_MESSAGE type_name: ".google.protobuf.FieldMask" label: LABEL_OPTIONAL }
  field { name: "file" number: 10 type: TYPE_MESSAGE type_name: ".google.api.HttpBody" label: LABEL_OPTIONAL }
  field { name: "user_id" number: 11 type: TYPE_STRING label: LABEL_OPTIONAL }
  oneof_decl { name: "choice" } }
service { name: "Rules"
  method { name: "Get" input_type: ".rules.v1.All" output_type: ".rules.v1.All"
    options { [google.api.http] { get: "/v1/items/{id}" additional_bindings { get: "/v1/nums/{num}" }
      additional_bindings { get: "/v1/pick/{pick_s}" } additional_bindings { get: "/v1/multi/{id=items/*/parts/*}" } } } }
  method { name: "Search" input_type: ".rules.v1.All" output_type: ".rules.v1.All"
    options { [google.api.http] { get: "/v1/items/search" } } }
  method { name: "Body" input_type: ".rules.v1.All" output_type: ".rules.v1.All"
    options { [google.api.http] { post: "/v1/ts" body: "ts" response_body: "ts" }  } }
  method { name: "Str" input_type: ".rules.v1.All" output_type: ".rules.v1.All"
    options { [google.api.http] { post: "/v1/str" body: "user_id" additional_bindings { post: "/v1/val" body: "val" }
      additional_bindings { post: "/v1/file" body: "file" response_body: "file" } } } }
  method { name: "Out" input_type: ".rules.v1.All" output_type: ".rules.v1.All" server_streaming: true
    options { [google.api.http] { get: "/v1/out/{id}" response_body: "id" } } } }
`

// newRules starts a gateway with ruleFile.
func newRules(t *testing.T) *world {
	t.Helper()
	fake := &dispatcher{
		unary: func(_ context.Context, cmd *entities.Command) (*entities.Reply, error) {
			return &entities.Reply{Payload: cmd.Payload}, nil
		},
		stream: func(_ context.Context, s *entities.Stream) error {
			return s.Send(&entities.Reply{Payload: s.Payload})
		},
	}
	w := newEmptyWorld(t, fake, nil)
	w.catalog = catalogOf(t, ruleFile, discovery.Options{})
	if err := w.server.SetCatalog(w.catalog); err != nil {
		t.Fatal(err)
	}
	return w
}

// Requests by rules of every form are bound exactly, or refused with the place and the field.
func TestRules(t *testing.T) {
	w := newRules(t)
	for _, tc := range []struct {
		name, method, path, body, contentType string
		status                                int
		want                                  string
	}{
		{"F4: the rule that serves decides what the path binds", "GET", "/v1/items/search?id=7", "", "", 200, `"id":"7"`},
		{"F5: semicolon", "GET", "/v1/items/1?num=5;x=1", "", "", 400, `query: \"num=5;x=1\"`},
		{"F5: bad escape", "GET", "/v1/items/1?num=%zz", "", "", 400, `query: \"num\"`},
		{"F6: null in the path", "GET", "/v1/nums/null", "", "", 400, `path: \"num\": \"null\"`},
		{"F6: null in the query", "GET", "/v1/items/1?num=null", "", "", 400, `query: \"num\": \"null\"`},
		{"F6: blanks around a number", "GET", "/v1/nums/%0A5", "", "", 400, `path: \"num\"`},
		{"F7: another member of the path's oneof", "GET", "/v1/pick/x?pick_i=5", "", "", 400, `query: \"pick_i\": \"pick_s\" is set`},
		{"F8: a parameter that is the body", "POST", "/v1/ts?ts=2023-01-01T00:00:00Z", `"2024-01-01T00:00:00Z"`, jsonValue, 400, `query: \"ts\": the body`},
		{"F8: two members", "GET", "/v1/items/1?pick_s=a&pick_i=1", "", "", 400, `query: \"pick_i\"`},
		{"F8: two names", "GET", "/v1/items/1?user_id=x&userId=y", "", "", 400, `query: \"userId\": it is given twice`},
		{"F9: repeated Timestamp", "GET", "/v1/items/1?rts=2024-01-01T00:00:00Z&rts=2025-01-01T00:00:00Z", "", "", 200, `"rts":["2024-01-01T00:00:00Z","2025-01-01T00:00:00Z"]`},
		{"F9: quotes belong to a StringValue", "GET", "/v1/items/1?ws=%22x%22", "", "", 200, `"ws":"\"x\""`},
		{"F9: control characters", "GET", "/v1/items/1?ws=a%7Fb", "", "", 200, "\"ws\":\"a\x7fb\""},
		{"F9: an empty StringValue", "GET", "/v1/items/1?ws=", "", "", 200, `"ws":""`},
		{"F10: more than one value", "POST", "/v1/str", `"x","num":5`, jsonValue, 400, `body: \"user_id\"`},
		{"F10: closes the object", "POST", "/v1/str", `"x"}`, jsonValue, 400, `body: \"user_id\"`},
		{"F11: an empty body is an absent field", "POST", "/v1/ts", "", jsonValue, 200, `null`},
		{"F11: null is an absent field", "POST", "/v1/ts", "null", jsonValue, 200, `null`},
		{"F11: an empty body is no Value", "POST", "/v1/val", "", jsonValue, 200, `"userId":""`},
		{"F11: null is a Value", "POST", "/v1/val", "null", jsonValue, 200, `"val":null`},
		{"F11: what JSON cannot print", "GET", "/v1/items/1?ts.seconds=999999999999", "", "", 400, `query: \"ts.seconds\"`},
		{"F12: parameters of the content type", "POST", "/v1/str", `"x"`, `application/json;charset=UTF-8`, 200, `"userId":"x"`},
		{"F12: capital letters", "POST", "/v1/str", `"x"`, `Application/JSON ; Charset="utf-8"`, 200, `"userId":"x"`},
		{"F12: another charset", "POST", "/v1/str", `"x"`, `application/json;charset=latin1`, 415, "latin1"},
		{"F12: no body has no type", "GET", "/v1/items/1", "", "text/plain", 200, `"id":"1"`},
		{"F13: an encoded slash in several segments", "GET", "/v1/multi/items/1%2F2/parts/3", "", "", 200, `"id":"items/1%2F2/parts/3"`},
		{"F13: an encoded slash in one segment", "GET", "/v1/items/1%2F2", "", "", 200, `"id":"1/2"`},
		{"R7: an empty segment", "GET", "/v1/items/", "", "", 404, "GET /v1/items/"},
		{"R8: an empty object where no body belongs", "GET", "/v1/items/1", " {} ", jsonValue, 200, `"id":"1"`},
		{"R16: an error shows the value whole", "GET", "/v1/items/1?ts=202", "", "", 400, `query: \"ts\": \"202\": write a time`},
		{"R18: snake_case in a FieldMask", "GET", "/v1/items/1?mask=user_id,displayName", "", "", 200, `"mask":"userId,displayName"`},
		{"another method at the same path", "DELETE", "/v1/items/1", "", "", 405, "use GET, HEAD"},
		{"HttpBody in and out", "POST", "/v1/file", "a;b", "text/csv", 200, "a;b"},
		{"response_body of a stream", "GET", "/v1/out/x", "", "", 200, "\"x\"\n"},
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
			if got.status >= 400 && (!strings.HasPrefix(got.body, `{"code":`) || got.header.Get("millrace-outcome") != "not_applied") {
				t.Errorf("%v %s", got.header, got.body)
			}
		})
	}
	if got := w.http("DELETE", "/v1/items/1", ""); got.header.Get("Allow") != "GET, HEAD" {
		t.Errorf("Allow: %q", got.header.Get("Allow"))
	}
}

// A path is taken as it was sent, also where a client left characters that it should encode.
func TestRulesTakeThePathAsItWasSent(t *testing.T) {
	w := newRules(t)
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, "GET /v1/items/a%2Fb|c HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(got), `{"id":"a/b|c",`) {
		t.Errorf("%v %s", err, got)
	}
}

// HEAD is answered like GET, without content; a stream is not run for it.
func TestHead(t *testing.T) {
	w := newRules(t)
	get := w.http("GET", "/v1/items/1", "")
	head := w.http("HEAD", "/v1/items/1", "")
	if head.status != http.StatusOK || head.body != "" ||
		head.header.Get("Content-Length") != get.header.Get("Content-Length") || head.header.Get(jsonType) != jsonValue {
		t.Errorf("%d %v %q", head.status, head.header, head.body)
	}
	if got := w.http("HEAD", "/v1/items/1?nope=1", ""); got.status != http.StatusBadRequest || got.body != "" {
		t.Errorf("%d %q", got.status, got.body)
	}
	before := w.fake.count()
	got := w.http("HEAD", "/v1/out/x", "")
	if got.status != http.StatusOK || got.header.Get(jsonType) != jsonValue || got.body != "" {
		t.Errorf("%d %v %q", got.status, got.header, got.body)
	}
	if w.fake.count() != before {
		t.Error("HEAD ran a stream")
	}
}

// Names of codings and media types ignore case, and q=0 refuses one.
func TestPlainNegotiation(t *testing.T) {
	w := newRules(t)
	for _, coding := range []string{"gzip", "GZIP", "x-gzip"} {
		got := w.http("POST", "/v1/str", gzipped(t, `"x"`), jsonType, jsonValue, "Content-Encoding", coding)
		if got.status != http.StatusOK || !strings.Contains(got.body, `"userId":"x"`) {
			t.Errorf("%s: %d %s", coding, got.status, got.body)
		}
	}
	got := w.http("POST", "/v1/str", `"x"`, jsonType, jsonValue, "Content-Encoding", "br")
	if got.header.Get("Accept-Encoding") != "gzip" {
		t.Errorf("%d %v", got.status, got.header)
	}
	for _, tc := range []struct {
		accept []string
		want   string
	}{
		{[]string{"Text/Event-Stream"}, "text/event-stream"},
		{[]string{"Accept: text/html", "text/event-stream;q=0.5"}, "text/event-stream"},
		{[]string{"text/html, text/event-stream"}, "text/event-stream"},
		{[]string{"text/event-stream;q=0"}, jsonValue},
		{[]string{"application/x-text/event-stream"}, jsonValue},
		{nil, jsonValue},
	} {
		var headers []string
		for _, accept := range tc.accept {
			headers = append(headers, "Accept", accept)
		}
		if got := w.http("GET", "/v1/out/x", "", headers...); got.header.Get(jsonType) != tc.want {
			t.Errorf("%q: %q", tc.accept, got.header.Get(jsonType))
		}
	}
}

// lockedBuffer is a log that many goroutines write.
type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// A panic while a request is handled is answered as an error, and logged with its stack.
func TestPlainPanic(t *testing.T) {
	logged := &lockedBuffer{}
	fake := &dispatcher{unary: func(context.Context, *entities.Command) (*entities.Reply, error) { panic("boom") }}
	w := newWorld(t, fake, func(o *gateway.Options) { o.Log = slog.New(slog.NewTextHandler(logged, nil)) })
	for _, path := range []string{"/v1/carts/1/items", "/shop.v1.CartService/AddItem"} {
		got := w.http("POST", path, `{"cartId":"1"}`, jsonType, jsonValue)
		if got.status != http.StatusInternalServerError || !strings.HasPrefix(got.body, `{"code":13,`) ||
			got.header.Get("millrace-outcome") != "unknown" {
			t.Errorf("%d %v %s", got.status, got.header, got.body)
		}
	}
	text := logged.String()
	if strings.Count(text, "rules_test.go") != 2 || strings.Contains(text, "http: panic serving") {
		t.Errorf("the log: %s", text)
	}
}

package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/millrace-io/millrace/entities"
)

// documented is a row of docs/headers.md.
type documented struct{ name, read, repeated, malformed string }

var headerRow = regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| [^|]+ \\| ([^|]+) \\| [^|]+ \\| ([^|]+) \\| ([^|]+) \\|$")

func documentedHeaders(t *testing.T) (rows []documented) {
	t.Helper()
	page, err := os.ReadFile("../docs/headers.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range headerRow.FindAllStringSubmatch(string(page), -1) {
		rows = append(rows, documented{name: m[1], read: m[2], repeated: m[3], malformed: m[4]})
	}
	return rows
}

// callPlain calls Plain of the shop by a protocol, with headers of its own, and returns the code
// and the text of the answer.
func (w *world) callPlain(protocol string, headers ...string) (codes.Code, string) {
	w.t.Helper()
	const message = "\x0a\x0242" // {"cartId":"42"}
	switch protocol {
	case "gRPC":
		ctx := metadata.AppendToOutgoingContext(w.t.Context(), headers...)
		err := w.dial().Invoke(ctx, plainPath, w.message("CartRequest", `{"cartId":"42"}`),
			dynamicpb.NewMessage(w.messageType("Cart")))
		return status.Code(err), fmt.Sprint(err)
	case "gRPC-Web":
		got := w.http("POST", plainPath, frame(0, message), append([]string{jsonType, "application/grpc-web"}, headers...)...)
		var code codes.Code
		_, rest, _ := strings.Cut(got.body, "grpc-status: ")
		_, err := fmt.Sscan(rest, (*uint32)(&code))
		if err != nil {
			w.t.Fatalf("%d %v %q", got.status, got.header, got.body)
		}
		return code, got.body
	case "Connect":
		got := w.http("POST", plainPath, message, append([]string{jsonType, "application/proto"}, headers...)...)
		return codeOfStatus[got.status], got.body
	default:
		got := w.http("POST", plainPath, `{"cartId":"42"}`, append([]string{jsonType, jsonValue}, headers...)...)
		return codeOfStatus[got.status], got.body
	}
}

var codeOfStatus = map[int]codes.Code{
	http.StatusOK: codes.OK, http.StatusBadRequest: codes.InvalidArgument,
	http.StatusGatewayTimeout:       codes.DeadlineExceeded,
	http.StatusUnsupportedMediaType: codes.InvalidArgument, http.StatusNotImplemented: codes.Unimplemented,
}

// Every header does, in every protocol that reads it, what docs/headers.md says of two values and
// of a malformed one.
func TestHeadersDoWhatIsDocumented(t *testing.T) {
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333%d-01"
	samples := map[string]struct{ one, other, malformed string }{
		"millrace-command-id":            {"a", "b", strings.Repeat("x", 257)},
		"idempotency-key":                {"a", "b", strings.Repeat("x", 257)},
		"millrace-consistency":           {"local", "eventual", "soon"},
		"millrace-min-token":             {"a", "b", "nonsense"},
		"millrace-max-staleness":         {"1s", "2s", "-1s"},
		"traceparent":                    {fmt.Sprintf(trace, 1), fmt.Sprintf(trace, 2), "nonsense"},
		"x-server-timeout":               {"50", "60", "soon"},
		"millrace-session-token":         {"a", "b", "nonsense"},
		"grpc-timeout":                   {"1M", "2M", "soon"},
		"connect-timeout-ms":             {"50000", "60000", "soon"},
		"connect-protocol-version":       {"1", "2", "3"},
		"content-type":                   {"", "text/x", ""}, // beside the one of the call
		"content-encoding":               {"gzip", "identity", "br"},
		"grpc-encoding":                  {"gzip", "identity", "br"},
		"connect-content-encoding":       {"gzip", "identity", ""},
		"accept":                         {"text/plain", "text/html", ";;"},
		"origin":                         {"http://a.example", "http://b.example", ""},
		"access-control-request-method":  {"GET", "POST", "x y"},
		"access-control-request-headers": {"a", "b", ";;"},
	}
	fake := &dispatcher{}
	w := newWorld(t, fake, nil)
	w.always(w.reply("Cart", `{}`))
	rows := documentedHeaders(t)
	if len(rows) != len(samples) {
		t.Fatalf("docs/headers.md has %d rows, the test %d", len(rows), len(samples))
	}
	for _, row := range rows {
		sample, found := samples[row.name]
		if !found {
			t.Fatalf("the test has no values of %s", row.name)
		}
		read := strings.Replace(row.read, "all", "gRPC, gRPC-Web, Connect, HTTP/JSON", 1)
		for protocol := range strings.SplitSeq(read, ", ") {
			isTransport := slices.Contains([]string{"content-type", "grpc-encoding", "grpc-timeout"}, row.name)
			if protocol == "gRPC" && isTransport {
				continue // grpc-go reads them: see the page
			}
			before := fake.count()
			code, text := w.callPlain(protocol, row.name, sample.one, row.name, sample.other)
			switch row.repeated {
			case "refused if they differ":
				if code != codes.InvalidArgument || !strings.Contains(text, row.name+" was sent twice") || fake.count() != before {
					t.Errorf("%s by %s twice: %v %s", row.name, protocol, code, text)
				}
			case "none counts if they differ":
				if code != codes.OK || fake.last().TraceParent != "" {
					t.Errorf("%s by %s twice: %v %s", row.name, protocol, code, text)
				}
			case "one list":
				if row.name == "content-encoding" && (code == codes.OK || !strings.Contains(text, `\"gzip, identity\"`)) {
					t.Errorf("%s by %s twice: %v %s", row.name, protocol, code, text)
				}
			default:
				t.Errorf("%s: the test does not know what %q means", row.name, row.repeated)
			}
			if sample.malformed == "" {
				continue
			}
			code, text = w.callPlain(protocol, row.name, sample.malformed)
			if refused := strings.Contains(row.malformed, "refused") || row.malformed == "as millrace-command-id"; refused !=
				(code == codes.InvalidArgument || code == codes.Unimplemented) {
				t.Errorf("%s by %s malformed, should be %s: %v %s", row.name, protocol, row.malformed, code, text)
			}
		}
	}
}

// A trace that is sent twice in the same form counts.
func TestATraceSentTwice(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	fake := &dispatcher{}
	w := newWorld(t, fake, nil)
	w.always(w.reply("Cart", `{}`))
	for _, protocol := range []string{"gRPC", "gRPC-Web", "Connect", "HTTP/JSON"} {
		if code, text := w.callPlain(protocol, "traceparent", parent, "traceparent", parent); code != codes.OK ||
			fake.last().TraceParent != parent {
			t.Errorf("%s: %v %s %q", protocol, code, text, fake.last().TraceParent)
		}
	}
}

// Of several deadlines the earliest counts, in every protocol.
func TestTheEarliestDeadlineCounts(t *testing.T) {
	fake := &dispatcher{unary: func(ctx context.Context, _ *entities.Command) (*entities.Reply, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	w := newWorld(t, fake, nil)
	for _, tc := range []struct{ protocol, header, soon, late string }{
		{"gRPC", "grpc-timeout", "20m", "1M"},
		{"gRPC-Web", "grpc-timeout", "20m", "1M"},
		{"Connect", "connect-timeout-ms", "20", "60000"},
		{"HTTP/JSON", "connect-timeout-ms", "20", "60000"},
	} {
		for _, headers := range [][]string{
			{tc.header, tc.soon, "x-server-timeout", "60"},
			{tc.header, tc.late, "x-server-timeout", "0.02"},
			{"x-server-timeout", "0.02"},
		} {
			if tc.protocol == "gRPC" && headers[0] == tc.header {
				headers = headers[2:] // the client writes its own from its context
				if headers[1] == "60" {
					continue
				}
			}
			if code, text := w.callPlain(tc.protocol, headers...); code != codes.DeadlineExceeded {
				t.Errorf("%s %q: %v %s", tc.protocol, headers, code, text)
			}
		}
	}
}

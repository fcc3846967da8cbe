package gateway

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/entities"
)

// protocols is a set of the protocols of the public port.
type protocols byte

const (
	overGRPC protocols = 1 << iota
	overWeb
	overConnect
	overHTTP
	overAll = overGRPC | overWeb | overConnect | overHTTP
)

// String lists the protocols for docs/headers.md.
func (p protocols) String() string {
	if p == overAll {
		return "all"
	}
	var names []string
	for i, name := range []string{"gRPC", "gRPC-Web", "Connect", "HTTP/JSON"} {
		if p&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// repetition says what several values of one header mean.
type repetition string

const (
	// oneValue: different values are refused, equal ones are one.
	oneValue repetition = "refused if they differ"
	// oneList: the values are one list, as if there were commas between them.
	oneList repetition = "one list"
	// oneOrNone: of different values none counts.
	oneOrNone repetition = "none counts if they differ"
)

// requestHeader is a header of a request that means something to millrace.
type requestHeader struct {
	// name is in lower case, as gRPC has it.
	name string
	// sender is who sets it, meaning what it says, malformed what happens to a value that is not of
	// its form: columns of docs/headers.md.
	sender, meaning, malformed string
	// read are the protocols that read it. Others take it for a header of the caller's own.
	read     protocols
	repeated repetition
}

// Places of headers in requestHeaders.
const (
	atCommandID = iota
	atIdempotencyKey
	atConsistency
	atMinToken
	atMaxStaleness
	atTraceParent
	atServerTimeout
	// envelopeHeaders is how many headers are read with each call, in every protocol.
	envelopeHeaders
)

// requestHeaders are all headers that millrace understands, except for those of HTTP itself, such
// as Content-Length. Every protocol reads them by this table, and docs/headers.md shows it.
//
//nolint:gochecknoglobals // a constant table
var requestHeaders = []requestHeader{
	atCommandID: {
		"millrace-command-id", "caller", "the command's id: a repeat with this id takes effect once",
		"empty, or longer than 256 bytes: refused", overAll, oneValue,
	},
	atIdempotencyKey: {
		"idempotency-key", "caller",
		"the same, by the name of the draft standard; may be quoted; not together with another millrace-command-id",
		"as millrace-command-id", overAll, oneValue,
	},
	atConsistency: {
		"millrace-consistency", "caller", "how fresh a read must be: strong, local, eventual, bounded, at_least",
		"refused", overAll, oneValue,
	},
	atMinToken: {
		"millrace-min-token", "caller", "the token of an earlier answer, which the read must include",
		"refused", overAll, oneValue,
	},
	atMaxStaleness: {
		"millrace-max-staleness", "caller", "how old the answer of a read may be, as in 500ms", "refused",
		overAll, oneValue,
	},
	atTraceParent: {
		"traceparent", "caller, proxy", "the span of which the call is a part (W3C trace context)",
		"ignored: the call begins a trace of its own", overAll, oneOrNone,
	},
	atServerTimeout: {
		"x-server-timeout", "caller, proxy",
		"deadline in seconds, as in 0.5, from the arrival of the call; of several deadlines the earliest counts",
		"refused", overAll, oneValue,
	},
	{
		entities.SessionToken, "client library, gateway",
		"the token of all that a session has seen, which queries include that name no freshness; browsers have it in a cookie",
		"ignored", overAll, oneOrNone,
	},
	{
		"grpc-timeout", "client library", "deadline of gRPC",
		"refused", overGRPC | overWeb, oneValue,
	},
	{
		"connect-timeout-ms", "client library", "deadline of Connect, in milliseconds",
		"refused", overConnect | overHTTP, oneValue,
	},
	{
		"connect-protocol-version", "client library", "says that the request is Connect; 1 is served", "refused",
		overConnect, oneValue,
	},
	{
		"content-type", "client library", "protocol and encoding of the request", "refused (415)", overAll, oneValue,
	},
	{
		"content-encoding", "client library", "compression of the body: gzip, identity, or left out", "refused",
		overConnect | overHTTP, oneList,
	},
	{
		"grpc-encoding", "client library", "compression of messages: gzip, identity, or left out", "refused",
		overGRPC | overWeb, oneValue,
	},
	{
		"connect-content-encoding", "client library",
		"compression of the messages of a stream: gzip, identity, or left out", "refused", overConnect, oneValue,
	},
	{
		"accept", "caller", "text/event-stream asks for a stream as server-sent events", "ignored", overHTTP, oneList,
	},
	{
		"origin", "browser", "origin of the page that calls (CORS)", "refused to the page",
		overWeb | overConnect | overHTTP, oneValue,
	},
	{
		"access-control-request-method", "browser", "with OPTIONS: whether a page may call (CORS)", "ignored",
		overWeb | overConnect | overHTTP, oneValue,
	},
	{
		"access-control-request-headers", "browser", "the headers that the page wants to send (CORS)", "ignored",
		overWeb | overConnect | overHTTP, oneList,
	},
}

// canonicalNames are the names of the headers of an envelope as net/http has them.
//
//nolint:gochecknoglobals // a constant table
var canonicalNames = func() (names [envelopeHeaders]string) {
	for i := range names {
		names[i] = http.CanonicalHeaderKey(requestHeaders[i].name)
	}
	return names
}()

// protocolHeaders are the headers with one value that are not of an envelope, by the names that
// net/http has for them.
//
//nolint:gochecknoglobals // a constant table
var protocolHeaders = func() map[string]string {
	names := map[string]string{}
	for _, h := range requestHeaders[envelopeHeaders:] {
		if h.repeated == oneValue {
			names[http.CanonicalHeaderKey(h.name)] = h.name
		}
	}
	return names
}()

// checkProtocolHeaders refuses a request over net/http that contradicts itself, before its protocol
// is chosen. Headers of an envelope are checked with the command.
func checkProtocolHeaders(header http.Header) *entities.Error {
	var wrong []string
	for name, values := range header {
		if len(values) > 1 && protocolHeaders[name] != "" {
			if _, problem := single(protocolHeaders[name], values); problem != nil {
				wrong = append(wrong, protocolHeaders[name])
			}
		}
	}
	if wrong == nil {
		return nil
	}
	return contradictory(slices.Min(wrong))
}

// single returns the value of a header; "" if it was not sent. Repeated values must be equal.
func single(name string, values []string) (string, *entities.Error) {
	if len(values) == 0 {
		return "", nil
	}
	if differ(values) {
		return "", contradictory(name)
	}
	return values[0], nil
}

func differ(values []string) bool {
	return slices.ContainsFunc(values[1:], func(v string) bool { return v != values[0] })
}

func contradictory(name string) *entities.Error {
	return invalid("%s was sent twice with different values: send it once", name)
}

// single returns the value of a header of an envelope; "" if it was not sent.
func (env *envelope) single(at int) (string, *entities.Error) {
	return single(requestHeaders[at].name, env.values[at])
}

// traceParent returns the caller's trace; "" if there is none, or if it is not of the form of a W3C
// trace context. A trace is no reason to refuse a call.
func (env *envelope) traceParent() string {
	values := env.values[atTraceParent]
	if len(values) == 0 || differ(values) || !isTraceParent(values[0]) {
		return ""
	}
	return values[0]
}

// withServerTimeout applies the deadline in values of X-Server-Timeout.
func withServerTimeout(ctx context.Context, values []string) (context.Context, context.CancelFunc, *entities.Error) {
	name := requestHeaders[atServerTimeout].name
	text, problem := single(name, values)
	if problem != nil {
		return nil, nil, problem
	}
	if text == "" {
		return ctx, func() {}, nil
	}
	seconds, err := strconv.ParseFloat(text, 64)
	const most = float64(24 * time.Hour / time.Second)
	if err != nil || !(seconds > 0) { // also refuses NaN
		return nil, nil, invalid("%s is %q: it must be a number of seconds above 0", name, text)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(min(seconds, most)*float64(time.Second)))
	return ctx, cancel, nil
}

package gateway

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
)

// The marks of a Connect request. A client may leave out the version if the content type suffices.
const (
	headerConnectVersion = "Connect-Protocol-Version"
	headerConnectTimeout = "Connect-Timeout-Ms"
	connectVersion       = "1"
)

// connectCodes are the names of gRPC's codes in Connect.
//
//nolint:gochecknoglobals // a constant table
var connectCodes = map[codes.Code]string{
	codes.Canceled:           "canceled",
	codes.Unknown:            "unknown",
	codes.InvalidArgument:    "invalid_argument",
	codes.DeadlineExceeded:   "deadline_exceeded",
	codes.NotFound:           "not_found",
	codes.AlreadyExists:      "already_exists",
	codes.PermissionDenied:   "permission_denied",
	codes.ResourceExhausted:  "resource_exhausted",
	codes.FailedPrecondition: "failed_precondition",
	codes.Aborted:            "aborted",
	codes.OutOfRange:         "out_of_range",
	codes.Unimplemented:      "unimplemented",
	codes.Internal:           "internal",
	codes.Unavailable:        "unavailable",
	codes.DataLoss:           "data_loss",
	codes.Unauthenticated:    "unauthenticated",
}

// isConnectGet reports whether a GET has the parameters of Connect.
func isConnectGet(r *http.Request) bool {
	query := r.URL.Query()
	return query.Has("connect") || query.Has("encoding") && query.Has("message")
}

// checkConnectVersion refuses versions of the protocol that are not served.
func checkConnectVersion(r *http.Request) *entities.Error {
	if version := r.Header.Get(headerConnectVersion); version != "" && version != connectVersion {
		return invalid("%s is %q: only version %s is served", strings.ToLower(headerConnectVersion), version, connectVersion)
	}
	version := r.URL.Query().Get("connect")
	if r.Method == http.MethodGet && version != "" && version != "v"+connectVersion {
		return invalid("parameter connect is %q: only version v%s is served", version, connectVersion)
	}
	return nil
}

// checkKind refuses a request whose form does not fit the kind of its method: streams have
// envelopes, and only a method without side effects is called by GET.
func (c *rpcCall) checkKind(r *http.Request) (int, *entities.Error) {
	switch {
	case !c.form.isConnect():
		return 0, nil
	case c.form == formConnectStream && c.method.IsUnary():
		c.w.Header().Set("Accept-Post", "application/proto, application/json")
		return http.StatusUnsupportedMediaType,
			invalid("%s has one message in each direction: send content-type application/proto or application/json", r.URL.Path)
	case c.form != formConnectStream && !c.method.IsUnary():
		c.w.Header().Set("Accept-Post", contentTypeConnectStream+"+proto, "+contentTypeConnectStream+"+json")
		return http.StatusUnsupportedMediaType,
			invalid("%s streams: send content-type %s+proto or %[2]s+json", r.URL.Path, contentTypeConnectStream)
	case c.form == formConnectGet && !hasNoSideEffects(c.method):
		c.w.Header().Set("Allow", http.MethodPost)
		return http.StatusMethodNotAllowed, entities.Errorf(entities.NotSupported, entities.NotApplied,
			"%s may have side effects: use POST, or declare idempotency_level = NO_SIDE_EFFECTS", r.URL.Path)
	}
	return 0, nil
}

// hasNoSideEffects reports whether the method's author has said so. GET requests are sent again,
// and answered from caches, by machines that do not ask.
func hasNoSideEffects(m *discovery.Method) bool {
	options, _ := m.Descriptor.Options().(*descriptorpb.MethodOptions)
	return options.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
}

// connectGetMessage returns the message in the URL of a GET.
func connectGetMessage(u *url.URL) ([]byte, *entities.Error) {
	query, err := url.ParseQuery(u.RawQuery)
	switch {
	case err != nil:
		return nil, invalid("the query of the URL is malformed: %w", err)
	case !query.Has("message"):
		return nil, invalid("the URL has no parameter message")
	}
	text := query.Get("message")
	if query.Get("base64") != "1" {
		return []byte(text), nil
	}
	message, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "="))
	if err != nil {
		return nil, invalid("parameter message is not in the base64 of URLs: %w", err)
	}
	return message, nil
}

// connectError is an error as Connect writes it.
type connectError struct {
	Code    string          `json:"code"`
	Message string          `json:"message,omitempty"`
	Details []connectDetail `json:"details,omitempty"`
}

// connectDetail is a detail of an error: bytes in base64 without padding, and the message as JSON
// for people, if this process knows its type.
type connectDetail struct {
	Type  string          `json:"type"`
	Value string          `json:"value"`
	Debug json.RawMessage `json:"debug,omitempty"`
}

// connectError is the error of a call that did not succeed.
func (e ending) connectError() *connectError {
	name, known := connectCodes[codes.Code(e.status.GetCode())] //nolint:gosec // a code of gRPC
	if !known {
		name = connectCodes[codes.Unknown]
	}
	failure := &connectError{Code: name, Message: e.status.GetMessage()}
	for _, detail := range e.status.GetDetails() {
		typeName := detail.GetTypeUrl()[strings.LastIndexByte(detail.GetTypeUrl(), '/')+1:]
		d := connectDetail{Type: typeName, Value: base64.RawStdEncoding.EncodeToString(detail.GetValue())}
		if msg, err := detail.UnmarshalNew(); err == nil { // readers may not depend on it
			if text, err := protojson.Marshal(msg); err == nil {
				d.Debug = text
			}
		}
		failure.Details = append(failure.Details, d)
	}
	return failure
}

// closeConnect ends a response with one message. Its trailers are headers with a prefix, since
// clients of HTTP/1.1 may not see trailers. httpStatus is that of a request that never became a
// call; 0: the status follows from the code.
func (c *rpcCall) closeConnect(httpStatus int, e ending) {
	const trailerPrefix = "Trailer-"
	c.writeLead()
	header := c.w.Header()
	for name, values := range e.trailer {
		for _, value := range values {
			header.Add(trailerPrefix+name, value)
		}
	}
	body, contentType, status := c.reply, c.contentType, http.StatusOK
	if e.failed() {
		failure := e.connectError()
		if httpStatus == http.StatusMethodNotAllowed || httpStatus == http.StatusUnsupportedMediaType {
			failure.Code = connectCodes[codes.Unknown] // what these statuses say without a body
		}
		body, contentType, status = marshalJSON(failure), contentTypeJSON, httpStatus
		if status == 0 {
			status = httpOfCode[codes.Code(e.status.GetCode())] //nolint:gosec // a code of gRPC
		}
		if status == 0 { // a code that gRPC does not define
			status = http.StatusInternalServerError
		}
	}
	header.Set("Content-Type", contentType)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("X-Content-Type-Options", "nosniff")
	c.w.WriteHeader(status)
	_, _ = c.w.Write(body) // the caller may have left
}

// closeConnectStream ends a stream with the envelope of its end. A content type that is not a
// stream's is refused by HTTP status, so that a client that does not know Connect sees an error.
func (c *rpcCall) closeConnectStream(httpStatus int, e ending) {
	if !c.begun && httpStatus == http.StatusUnsupportedMediaType {
		c.closeConnect(httpStatus, e)
		return
	}
	var end struct {
		Error    *connectError       `json:"error,omitempty"`
		Metadata map[string][]string `json:"metadata,omitempty"`
	}
	end.Metadata = e.trailer
	if e.failed() {
		end.Error = e.connectError()
	}
	c.begin()
	c.writeFrame(flagConnectEnd, marshalJSON(end))
}

// marshalJSON encodes what the gateway itself says, never a message of the user.
func marshalJSON(v any) []byte {
	body, err := json.Marshal(v)
	if err != nil { // impossible: strings alone
		return []byte("{}")
	}
	return body
}

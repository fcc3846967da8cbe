package gateway

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/millrace-io/millrace/entities"
)

// Front serves the services of a gRPC server by the protocols of the public port: native gRPC,
// gRPC-Web, Connect, and POST /<package.Service>/<Method> with JSON, with the same errors. It is
// for services of the runtime itself, such as that of the admin port: their types are compiled in,
// and every call has one request message. Where a method streams its output, plain HTTP gets one
// JSON document per line, or server-sent events if the request says Accept: text/event-stream.
type Front struct {
	server   *grpc.Server
	services map[string]grpc.ServiceInfo
	options  FrontOptions
	json     *jsonCodec
	rpc      *rpcFront
}

// FrontOptions bound what callers may ask for. All are required.
type FrontOptions struct {
	// MaxRequest bounds one request message, in bytes of protobuf.
	MaxRequest int
	// BodyTimeout is how long a request may take to arrive.
	BodyTimeout time.Duration
}

// NewFront returns a front of a server whose services are all registered. It starts no goroutine,
// and its handlers end with the calls of the server.
func NewFront(server *grpc.Server, o FrontOptions) *Front {
	f := &Front{server: server, services: server.GetServiceInfo(), options: o}
	f.json = newJSONCodec(protoregistry.GlobalTypes)
	f.rpc = &rpcFront{
		server: server, method: runtimeMethods(server), unknown: unknownMethod, json: f.json,
		limit: o.MaxRequest, textLimit: jsonBytes(o.MaxRequest), bodyTimeout: o.BodyTimeout,
	}
	return f
}

// IsCall says whether a request is for a service: by its path, or because it speaks native gRPC.
func (f *Front) IsCall(r *http.Request) bool {
	service, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	_, ours := f.services[service]
	return ours || isNative(r)
}

func isNative(r *http.Request) bool {
	return r.ProtoMajor == 2 && isNativeGRPC(r.Header.Get("Content-Type"))
}

// ServeHTTP answers one call.
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if isNative(r) {
		f.server.ServeHTTP(w, r)
		return
	}
	if problem := checkProtocolHeaders(r.Header); problem != nil {
		refuse(w, r, problem)
		return
	}
	if form := formOf(r, f.rpc.isMethod); form != formPlain {
		f.rpc.serve(form, w, r)
		return
	}
	r = r.WithContext(r.Context()) // net/http must find its own body in its request
	if r.Body != http.NoBody {
		r.Body = http.MaxBytesReader(w, timeBody(w, r, f.options.BodyTimeout), int64(jsonBytes(f.options.MaxRequest))+1)
	}
	f.servePlain(w, r)
}

// Refuse answers a request that is not to be served, in the form of all errors.
func (*Front) Refuse(w http.ResponseWriter, code codes.Code, message string) {
	writePlainError(w, statusError(code, message))
}

func writeNoRoute(w http.ResponseWriter, r *http.Request) {
	writePlainError(w, notFound(r.Method, r.URL.Path))
}

// servePlain answers POST /<package.Service>/<Method> with JSON.
func (f *Front) servePlain(w http.ResponseWriter, r *http.Request) {
	m := methodAt(r.URL.Path)
	switch contentType := r.Header.Get("Content-Type"); {
	case m == nil:
		writeNoRoute(w, r)
		return
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		writeHTTPError(w, http.StatusMethodNotAllowed, wrongMethod(r.Method, r.URL.Path, http.MethodPost))
		return
	case !isJSON(contentType):
		writeHTTPError(w, http.StatusUnsupportedMediaType, wrongContentType(contentType))
		return
	}
	ctx, cancel, problem := withDeadline(r.Context(), r.Header)
	if problem != nil {
		writePlainError(w, problem)
		return
	}
	defer cancel()
	payload, problem := f.readRequest(m, r)
	if problem != nil {
		writePlainError(w, problem)
		return
	}
	header, problem := grpcHeader(r.Header, formPlain)
	if problem != nil {
		writePlainError(w, problem)
		return
	}
	c := &frontCall{w: w, method: m, json: f.json, header: http.Header{}, sse: acceptsEvents(r.Header)}
	f.server.ServeHTTP(c, asGRPC(ctx, r, header, io.NopCloser(bytes.NewReader(appendFrame(nil, 0, payload)))))
	c.end()
}

// methodAt returns the method of a path, nil when none is compiled in.
func methodAt(path string) protoreflect.MethodDescriptor {
	service, method, found := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	if s, isService := d.(protoreflect.ServiceDescriptor); err == nil && isService && found {
		return s.Methods().ByName(protoreflect.Name(method))
	}
	return nil
}

// readRequest reads a whole request and returns it encoded. No bytes at all are an empty message.
func (f *Front) readRequest(m protoreflect.MethodDescriptor, r *http.Request) ([]byte, *entities.Error) {
	if m.IsStreamingClient() {
		return nil, entities.Errorf(entities.NotSupported, entities.NotApplied,
			"%s streams its input: call it by gRPC", m.FullName())
	}
	data, err := io.ReadAll(r.Body)
	_, tooLong := errors.AsType[*http.MaxBytesError](err)
	switch {
	case tooLong, len(data) > jsonBytes(f.options.MaxRequest):
		return nil, tooLarge(jsonBytes(f.options.MaxRequest))
	case err != nil:
		return nil, invalid("the request's body cannot be read: %w", err)
	case len(data) == 0:
		data = []byte("{}")
	}
	t, err := protoregistry.GlobalTypes.FindMessageByName(m.Input().FullName())
	if err != nil {
		return nil, asError(err)
	}
	msg := t.New().Interface()
	if err := f.json.UnmarshalOptions.Unmarshal(data, msg); err != nil {
		return nil, invalid("%s: %s", r.URL.Path, jsonProblem(err))
	}
	payload, err := proto.Marshal(msg)
	if err != nil {
		return nil, invalid("%s: %w", r.URL.Path, err)
	}
	if len(payload) > f.options.MaxRequest {
		return nil, tooLarge(f.options.MaxRequest)
	}
	return payload, nil
}

// frontCall is the response of a plain call: it takes what a gRPC server writes, and prints each
// message as it is complete.
type frontCall struct {
	w      http.ResponseWriter
	method protoreflect.MethodDescriptor
	json   *jsonCodec
	// header is what the server says of the call; its trailers come into it too.
	header http.Header
	// sse: the caller wants a stream as server-sent events.
	sse    bool
	frames frameSplitter
	// reply is that of a method that does not stream.
	reply []byte
	// streamed: the response is a stream that has begun.
	streamed bool
	// problem is why a message could not be printed.
	problem error
}

// Header returns what the server says.
func (c *frontCall) Header() http.Header { return c.header }

// WriteHeader does nothing: the status of a call stands in its trailer.
func (c *frontCall) WriteHeader(int) {}

// Flush does nothing: a message is sent when it is complete.
func (c *frontCall) Flush() {}

// Write takes a part of the server's frames.
func (c *frontCall) Write(p []byte) (int, error) {
	c.frames.write(p, func(payload []byte) {
		if c.problem == nil {
			c.problem = c.print(payload)
		}
	})
	return len(p), nil
}

// print takes one message.
func (c *frontCall) print(payload []byte) error {
	t, err := protoregistry.GlobalTypes.FindMessageByName(c.method.Output().FullName())
	if err != nil {
		return err
	}
	msg := t.New().Interface()
	if err := proto.Unmarshal(payload, msg); err != nil {
		return err
	}
	text, err := c.json.Marshal(msg)
	switch {
	case err != nil:
		return err
	case !c.method.IsStreamingServer():
		c.reply = text
		return nil
	case c.sse:
		text = event("", "", text)
	default:
		text = append(text, '\n')
	}
	c.begin()
	if _, err := c.w.Write(text); err != nil {
		return err
	}
	return http.NewResponseController(c.w).Flush()
}

// begin sends the headers of a stream, once.
func (c *frontCall) begin() {
	if c.streamed {
		return
	}
	c.streamed = true
	header := c.w.Header()
	header.Set("Content-Type", contentTypeJSON)
	if c.sse {
		header.Set("Content-Type", contentTypeEvents)
		header.Set("Cache-Control", "no-cache")
	}
	c.w.WriteHeader(http.StatusOK)
}

// end completes the response. A stream that has begun and did not succeed ends with an event, or is
// cut.
func (c *frontCall) end() {
	failure := c.failure()
	switch {
	case failure != nil && !c.streamed:
		writePlainError(c.w, failure)
	case failure != nil && c.sse:
		_, _ = c.w.Write(event("error", "", errorBody(failure))) // a caller that left gets nothing
	case failure != nil:
		panic(http.ErrAbortHandler)
	case c.method.IsStreamingServer():
		c.begin()
	default:
		header := c.w.Header()
		header.Set("Content-Type", contentTypeJSON)
		header.Set("Content-Length", strconv.Itoa(len(c.reply)))
		_, _ = c.w.Write(c.reply) // a caller that left gets nothing
	}
}

// failure is what the server says in its trailer, nil after success.
func (c *frontCall) failure() *entities.Error {
	code, err := strconv.ParseUint(c.header.Get("Grpc-Status"), 10, 32)
	switch {
	case err != nil: // a server that was stopped writes nothing
		return unavailable("this process is ending: call another one")
	case codes.Code(code) != codes.OK:
		return statusError(codes.Code(code), unescape(c.header.Get("Grpc-Message")))
	case c.problem != nil:
		return entities.Errorf(entities.Internal, entities.Unknown,
			"%s: the reply cannot be printed: %w", c.method.FullName(), c.problem)
	default:
		return nil
	}
}

// statusError is the status of a gRPC handler as this package writes errors. Codes that speak of
// the request mean that nothing was done.
func statusError(code codes.Code, message string) *entities.Error {
	return &entities.Error{
		Reason: entities.FunctionRefused, Code: uint32(code), Outcome: outcomeOf(code), Message: message,
	}
}

// outcomeOf is what a code says of a call to a service of the runtime.
func outcomeOf(code codes.Code) entities.OutcomeClass {
	switch code {
	case codes.InvalidArgument, codes.NotFound, codes.Unimplemented, codes.PermissionDenied, codes.Unauthenticated:
		return entities.NotApplied
	default:
		return entities.Unknown
	}
}

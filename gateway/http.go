package gateway

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"

	"connectrpc.com/connect"
	"connectrpc.com/vanguard"

	"github.com/millrace-io/millrace/entities"
)

// Beginnings of content types.
const (
	contentTypeGRPCWeb       = "application/grpc-web"
	contentTypeGRPCWebText   = "application/grpc-web-text"
	contentTypeConnectStream = "application/connect+"
	contentTypeConnectProto  = "application/proto"
	contentTypeJSON          = "application/json"
)

// The marks of a Connect request. A client may leave them out if the content type suffices.
const (
	headerConnectVersion = "Connect-Protocol-Version"
	connectVersion       = "1"
)

// serveHTTP is the handler of net/http. It chooses the protocol of a request.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.beginRequest() {
		writePlainError(w, unavailable("this gateway is shutting down: call another one").ForCommand(httpCommandID(r.Header)))
		return
	}
	defer s.requests.Done()
	g, problem := s.await(r.Context())
	if problem != nil {
		writePlainError(w, problem.ForCommand(httpCommandID(r.Header)))
		return
	}
	contentType := r.Header.Get("Content-Type")
	switch {
	case strings.HasPrefix(contentType, contentTypeGRPCWebText):
		writeHTTPError(w, http.StatusUnsupportedMediaType,
			invalid("content type %q is not served: use %s+proto", contentType, contentTypeGRPCWeb))
	case isTranscodedRPC(r, contentType):
		s.serveTranscoded(g, w, r)
	default:
		s.servePlain(g, w, r)
	}
}

// serveTranscoded answers a gRPC, gRPC-Web or Connect request. It works on a copy: net/http must
// find its own body in its request, or it would take the rest of the body for the next request.
func (s *Server) serveTranscoded(g *generation, w http.ResponseWriter, r *http.Request) {
	r = r.WithContext(r.Context())
	if r.ContentLength > int64(s.opts.transcoderBytes()) {
		r.ContentLength = -1 // the transcoder would refuse a long body without a reason
	}
	if m := g.catalog.Method(r.URL.Path); m != nil && !m.ClientStreams {
		r.Body = timeBody(w, r, s.opts.BodyTimeout)
	}
	g.rpc.ServeHTTP(w, r)
}

// isTranscodedRPC reports whether a request is gRPC, gRPC-Web or Connect. A Connect request without
// a version is recognized by the binary content type; with JSON it is treated as a plain request.
func isTranscodedRPC(r *http.Request, contentType string) bool {
	switch {
	case strings.HasPrefix(contentType, contentTypeGRPC), strings.HasPrefix(contentType, contentTypeConnectStream):
		return true
	case r.Header.Get(headerConnectVersion) != "":
		return true
	case contentType == contentTypeConnectProto:
		r.Header.Set(headerConnectVersion, connectVersion)
		return true
	default:
		return r.Method == http.MethodGet && r.URL.Query().Get("connect") == "v"+connectVersion
	}
}

// newTranscoder returns a handler that turns Connect and gRPC-Web into calls of g.inner, and
// decompresses messages. It does not change messages otherwise, JSON ones included.
func (s *Server) newTranscoder(g *generation, types *typeResolver) (*vanguard.Transcoder, error) {
	var services []*vanguard.Service
	inner := s.bound(g.inner)
	for _, service := range g.catalog.Services() {
		services = append(services, vanguard.NewServiceWithSchema(withoutRules{service.Descriptor}, inner))
	}
	for name := range g.inner.GetServiceInfo() {
		if g.catalog.Service(name) == nil { // the gateway's own services have no JSON
			services = append(services, vanguard.NewService(name, inner, vanguard.WithTargetCodecs(vanguard.CodecProto)))
		}
	}
	return transcoderOf(services, types, g.json, s.opts.transcoderBytes(), http.HandlerFunc(s.writeNotFound))
}

// transcoderOf returns a transcoder to gRPC whose messages have at most limit bytes in any
// encoding.
func transcoderOf(services []*vanguard.Service, types vanguard.TypeResolver, json *jsonCodec, limit int,
	unknown http.Handler,
) (*vanguard.Transcoder, error) {
	return vanguard.NewTranscoder(services,
		vanguard.WithDefaultServiceOptions(
			vanguard.WithTargetProtocols(vanguard.ProtocolGRPC),
			vanguard.WithTargetCodecs(vanguard.CodecProto, vanguard.CodecJSON),
			vanguard.WithNoTargetCompression(),
			vanguard.WithMaxMessageBufferBytes(uint32(limit)), //nolint:gosec // at most 1 GiB
			vanguard.WithTypeResolver(types),
		),
		vanguard.WithCodec(func(r vanguard.TypeResolver) vanguard.Codec { return protoCodec{vanguard.NewProtoCodec(r)} }),
		vanguard.WithCodec(func(vanguard.TypeResolver) vanguard.Codec { return json }),
		vanguard.WithCompression(vanguard.CompressionGzip,
			func() connect.Compressor { return gzip.NewWriter(io.Discard) },
			func() connect.Decompressor { return &boundedGzip{limit: limit} }),
		vanguard.WithUnknownHandler(unknown),
	)
}

// transcoderBytes bounds one message in a transcoder, in any encoding. JSON takes more space than
// the protobuf message whose size the inner gRPC server checks.
func (o *Options) transcoderBytes() int {
	const jsonGrowth, most = 4, 1 << 30
	return min(jsonGrowth*o.MaxRequest, most)
}

// boundedGzip stops decompressing at a limit, so that a small request cannot become a large one.
type boundedGzip struct {
	gzip.Reader
	limit, left int
}

// Reset implements connect.Decompressor.
func (b *boundedGzip) Reset(r io.Reader) error {
	b.left = b.limit
	return b.Reader.Reset(r)
}

// Read implements connect.Decompressor.
func (b *boundedGzip) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p[:min(len(p), b.left+1)])
	if b.left -= n; b.left < 0 {
		return 0, connect.NewError(connect.CodeResourceExhausted,
			fmt.Errorf("the decompressed message has more than %d bytes", b.limit))
	}
	return n, err
}

// writeNotFound answers for a path without a route.
func (s *Server) writeNotFound(w http.ResponseWriter, r *http.Request) {
	writePlainError(w, s.unknown(notFound(r.Method, r.URL.Path)))
}

func notFound(method, path string) *entities.Error {
	return entities.Errorf(entities.UnknownMethod, entities.NotApplied,
		"no route for %s %s: use POST /<package.Service>/<Method>, or a path declared with google.api.http", method, path)
}

package gateway

import (
	"cmp"
	"context"
	"encoding/base64"
	"iter"
	"maps"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
)

// binarySuffix marks headers whose values are base64 on the wire.
const binarySuffix = "-bin"

// hopHeaders belong to one connection or to the encoding of one message. They do not become
// metadata of an action, and are dropped from its replies, because support libraries echo what they
// got.
//
//nolint:gochecknoglobals // a constant table
var hopHeaders = map[string]bool{
	"content-type": true, "content-length": true, "content-encoding": true, "transfer-encoding": true,
	"te": true, "trailer": true, "connection": true, "keep-alive": true, "proxy-connection": true, "upgrade": true,
	"host": true, "accept-encoding": true,
}

// requestOnlyHeaders describe a request; in a response they would be wrong, or leak into a cache.
//
//nolint:gochecknoglobals // a constant table
var requestOnlyHeaders = map[string]bool{
	"user-agent": true, "accept": true, "authorization": true, "proxy-authorization": true, "cookie": true,
	"date": true, "server": true, "idempotency-key": true, "traceparent": true, "tracestate": true,
}

// reservedPrefixes begin names of the protocols.
//
//nolint:gochecknoglobals // a constant table
var reservedPrefixes = []string{":", "grpc-", "connect-"}

// ownPrefix begins the names that only millrace sets.
const ownPrefix = "millrace-"

func isHop(name string) bool {
	return hopHeaders[name] ||
		slices.ContainsFunc(reservedPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// grpcEnvelope reads the headers of a gRPC call. It copies all headers only for actions.
func grpcEnvelope(ctx context.Context, app string, m *discovery.Method) envelope {
	var env envelope
	for at := range env.values {
		env.values[at] = metadata.ValueFromIncomingContext(ctx, requestHeaders[at].name)
	}
	if !m.Service.Kind.Spec().HasEntities {
		md, _ := metadata.FromIncomingContext(ctx)
		for name, values := range md { // FromIncomingContext returns a copy
			if strings.HasSuffix(name, binarySuffix) {
				for i := range values {
					values[i] = base64.RawStdEncoding.EncodeToString([]byte(values[i]))
				}
			}
		}
		env.metadata = withSession(app, asMetadata(md))
	}
	return env
}

func firstValue(ctx context.Context, name string) string {
	if values := metadata.ValueFromIncomingContext(ctx, name); len(values) > 0 {
		return values[0]
	}
	return ""
}

// httpEnvelope reads the headers of a plain HTTP request, whose deadline began before its body was
// read: withDeadline.
func httpEnvelope(header http.Header, app string, m *discovery.Method) envelope {
	var env envelope
	for at, name := range canonicalNames {
		if at != atServerTimeout {
			env.values[at] = header[name]
		}
	}
	if !m.Service.Kind.Spec().HasEntities {
		lower := make(map[string][]string, len(header))
		for name, values := range header {
			lower[strings.ToLower(name)] = values
		}
		env.metadata = withSession(app, asMetadata(lower))
	}
	return env
}

// grpcCommandID and httpCommandID return the command id of a call that ends before its headers are
// read.
func grpcCommandID(ctx context.Context) string {
	return cmp.Or(firstValue(ctx, requestHeaders[atCommandID].name),
		firstValue(ctx, requestHeaders[atIdempotencyKey].name))
}

func httpCommandID(header http.Header) string {
	return cmp.Or(header.Get(canonicalNames[atCommandID]), header.Get(canonicalNames[atIdempotencyKey]))
}

// asMetadata converts headers to the metadata of an action, sorted by name because their order is
// lost. All values are text, binary ones in base64, as in Cloudstate.
func asMetadata(headers map[string][]string) entities.Metadata {
	var md entities.Metadata
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		if isHop(name) {
			continue
		}
		for _, value := range headers[name] {
			md = append(md, entities.MetadataEntry{Key: name, Text: value})
		}
	}
	return md
}

// replyHeaders yields the metadata of a reply that may become response headers: names in lower
// case, binary values in base64.
func replyHeaders(md entities.Metadata) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		for i := range md {
			name, value := strings.ToLower(md[i].Key), md[i].Text
			if md[i].IsBinary {
				if !strings.HasSuffix(name, binarySuffix) {
					continue // a header cannot carry it
				}
				value = base64.RawStdEncoding.EncodeToString(md[i].Binary)
			}
			if mayReply(name) && isPrintable(value) && !yield(name, value) {
				return
			}
		}
	}
}

func mayReply(name string) bool {
	return !isHop(name) && !requestOnlyHeaders[name] &&
		(!strings.HasPrefix(name, ownPrefix) || name == entities.SessionDropped) &&
		!strings.HasPrefix(name, strings.ToLower(corsPrefix)) && isHeaderName(name)
}

func isHeaderName(name string) bool {
	return name != "" && strings.IndexFunc(name, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-_.", r)
	}) < 0
}

// isPrintable keeps line breaks, and thus forged headers, out of a response.
func isPrintable(value string) bool {
	for i := range len(value) {
		if value[i] < ' ' || value[i] > '~' {
			return false
		}
	}
	return true
}

// tellsOwner reports whether the caller gets the owner's address. Another worker may send anything
// as its address.
func tellsOwner(reply *entities.Reply) bool { return reply.Owner != "" && isPrintable(reply.Owner) }

// grpcReplyHeaders returns the response headers of a call's first reply; nil if there are none.
func grpcReplyHeaders(reply *entities.Reply, token string) metadata.MD {
	var md metadata.MD
	add := func(name, value string) {
		if md == nil {
			md = metadata.MD{}
		}
		md[name] = append(md[name], value)
	}
	for name, value := range replyHeaders(reply.Metadata) {
		if strings.HasSuffix(name, binarySuffix) {
			raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
			if err != nil {
				continue // the transport encodes it itself
			}
			value = string(raw)
		}
		add(name, value)
	}
	if token != "" {
		add(headerToken, token)
	}
	if tellsOwner(reply) {
		add(headerOwner, reply.Owner)
	}
	return md
}

// setReplyHeaders adds the response headers of a plain HTTP call's first reply.
func setReplyHeaders(header http.Header, reply *entities.Reply) {
	for name, value := range replyHeaders(reply.Metadata) {
		header.Add(name, value)
	}
	if reply.Token != "" {
		header["Millrace-Token"] = []string{reply.Token}
	}
	if tellsOwner(reply) {
		header["Millrace-Owner"] = []string{reply.Owner}
	}
}

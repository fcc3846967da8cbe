package gateway

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
)

// Flags of an envelope. The last two mark the end of a response, in gRPC-Web and in Connect.
const (
	flagCompressed byte = 1 << 0
	flagConnectEnd byte = 1 << 1
	flagWebTrailer byte = 1 << 7
)

func appendFrame(b []byte, flags byte, payload []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, flags), uint32(len(payload))) //nolint:gosec // messages have bounds
	return append(b, payload...)
}

// frameSplitter finds the messages in what a gRPC server writes.
type frameSplitter struct {
	// unread begins with a message that is not complete.
	unread []byte
}

// write passes on every message that is complete. It is lent for the call.
func (f *frameSplitter) write(p []byte, message func(payload []byte)) {
	f.unread = append(f.unread, p...)
	at := 0
	for len(f.unread)-at >= grpcEnvelopeBytes {
		end := at + grpcEnvelopeBytes + int(binary.BigEndian.Uint32(f.unread[at+1:]))
		if len(f.unread) < end {
			break
		}
		message(f.unread[at+grpcEnvelopeBytes : end])
		at = end
	}
	f.unread = append(f.unread[:0], f.unread[at:]...)
}

// messageReader reads the messages of a request, and returns them as protobuf that is not
// compressed.
type messageReader struct {
	method *discovery.Method
	body   io.Reader
	// bare: the body is one message without an envelope.
	bare bool
	// gzip: the caller compresses messages.
	gzip bool
	// json is nil if messages are protobuf.
	json *jsonCodec
	// limit bounds one message, as it is sent and as it is when decompressed; messageLimit one that
	// was JSON, as protobuf.
	limit, messageLimit int

	timeout time.Duration
}

// reader returns the reader of a request's messages. body is that of the request.
func (f *rpcFront) reader(c *rpcCall, r *http.Request, body io.Reader) (*messageReader, *entities.Error) {
	m := &messageReader{
		method: c.method, body: body, bare: c.form == formConnect || c.form == formConnectGet, json: c.json,
		limit: f.limit, messageLimit: f.limit, timeout: f.bodyTimeout,
	}
	if c.json != nil {
		m.limit = f.textLimit
	}
	coding := "Grpc-Encoding"
	switch c.form {
	case formConnect:
		coding = "Content-Encoding"
	case formConnectStream:
		coding = "Connect-Content-Encoding"
	default:
	}
	text := strings.Join(r.Header.Values(coding), ", ")
	if c.form == formConnectGet {
		coding, text = "parameter compression", r.URL.Query().Get("compression")
	}
	other := strings.Join(r.Header.Values("Content-Encoding"), ", ")
	if coding != "Content-Encoding" && !isIdentity(other) {
		return nil, unsupportedCoding("Content-Encoding", other, "none")
	}
	switch {
	case isIdentity(text):
	case strings.EqualFold(text, "gzip"):
		m.gzip = true
	default:
		return nil, unsupportedCoding(coding, text, "gzip, or identity")
	}
	if c.form == formConnectGet {
		message, problem := connectGetMessage(r.URL)
		if problem != nil {
			return nil, problem
		}
		m.body = bytes.NewReader(message)
		return m, nil
	}
	if !c.method.ClientStreams {
		m.body = timeBody(c.w, r, f.bodyTimeout)
	}
	if c.form == formWebText {
		m.body = &base64Runs{from: bufio.NewReader(m.body)}
	}
	return m, nil
}

func isIdentity(coding string) bool { return coding == "" || strings.EqualFold(coding, "identity") }

func unsupportedCoding(name, coding, supported string) *entities.Error {
	return entities.Errorf(entities.NotSupported, entities.NotApplied, "%s %q is not served: use %s",
		strings.ToLower(name), coding, supported)
}

// only reads a request that must have one message.
func (m *messageReader) only() ([]byte, *entities.Error) {
	if m.bare {
		data, problem := m.readAll(m.body)
		if problem != nil {
			return nil, problem
		}
		return m.decode(m.gzip && len(data) > 0, data)
	}
	payload, problem := m.next()
	switch {
	case problem != nil:
		return nil, problem
	case payload == nil:
		return nil, wrongCount(m.method, "none")
	}
	if n, err := io.ReadFull(m.body, make([]byte, 1)); n > 0 {
		return nil, wrongCount(m.method, "more than one")
	} else if !errors.Is(err, io.EOF) {
		return nil, problemOfBody(err, m.timeout)
	}
	return payload, nil
}

// wrongCount refuses a request that must have one message. The code is the one that gRPC's list of
// status codes has for that.
func wrongCount(m *discovery.Method, got string) *entities.Error {
	return entities.Errorf(entities.NotSupported, entities.NotApplied, "%s takes one message, and the request has %s",
		m.FullName, got)
}

// next reads a message in an envelope. It is nil at the end.
func (m *messageReader) next() ([]byte, *entities.Error) {
	var envelope [grpcEnvelopeBytes]byte
	switch _, err := io.ReadFull(m.body, envelope[:]); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, problemOfBody(err, m.timeout)
	}
	flags, size := envelope[0], int64(binary.BigEndian.Uint32(envelope[1:]))
	if flags&^flagCompressed != 0 {
		return nil, invalid("a message of the request has the flags %#x: only %#x may be set", flags, flagCompressed)
	}
	if size > int64(m.limit) {
		return nil, tooLarge(m.limit)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(m.body, data); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, problemOfBody(err, m.timeout)
	}
	if flags&flagCompressed != 0 && !m.gzip {
		problem := statusError(codes.Internal, "a message of the request is marked as compressed, but no encoding is named")
		problem.Outcome = entities.NotApplied
		return nil, problem
	}
	return m.decode(flags&flagCompressed != 0, data)
}

// decode returns a message as protobuf; never nil.
func (m *messageReader) decode(compressed bool, data []byte) ([]byte, *entities.Error) {
	if compressed {
		unpacked, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil, invalid("a message of the request is not valid gzip: %w", err)
		}
		var problem *entities.Error
		if data, problem = m.readAll(unpacked); problem != nil {
			return nil, problem
		}
	}
	if m.json != nil {
		payload, problem := m.json.fromJSON(m.method, data)
		if problem == nil && len(payload) > m.messageLimit {
			problem = tooLarge(m.messageLimit)
		}
		return append([]byte{}, payload...), problem // an empty message is a message, too
	}
	return data, nil
}

func (m *messageReader) readAll(from io.Reader) ([]byte, *entities.Error) {
	data, err := io.ReadAll(io.LimitReader(from, int64(m.limit)+1))
	switch {
	case err != nil:
		return nil, problemOfBody(err, m.timeout)
	case len(data) > m.limit:
		return nil, tooLarge(m.limit)
	}
	return data, nil
}

// messageStream is the body of a call that streams its input, as a gRPC server reads it.
type messageStream struct {
	*messageReader
	closer io.Closer
	// unread is left of the message that was read last.
	unread []byte
	// problem is why reading ended early. Read returns io.EOF then: after any other error grpc-go
	// would end the call itself.
	problem atomic.Pointer[entities.Error]
}

// Read implements io.Reader.
func (s *messageStream) Read(p []byte) (int, error) {
	if len(s.unread) == 0 {
		payload, problem := s.next()
		switch {
		case problem != nil:
			s.problem.Store(problem)
			return 0, io.EOF
		case payload == nil:
			return 0, io.EOF
		}
		s.unread = appendFrame(make([]byte, 0, grpcEnvelopeBytes+len(payload)), 0, payload)
	}
	n := copy(p, s.unread)
	s.unread = s.unread[n:]
	return n, nil
}

// Close implements io.Closer.
func (s *messageStream) Close() error { return s.closer.Close() }

// base64Runs decodes base64 that may be padded anywhere, since senders encode what they have at the
// moment.
type base64Runs struct {
	from *bufio.Reader
	// ready was decoded and not read yet.
	ready []byte
	buf   [3]byte
}

// Read implements io.Reader.
func (b *base64Runs) Read(p []byte) (int, error) {
	for len(b.ready) == 0 {
		var quantum [4]byte
		if _, err := io.ReadFull(b.from, quantum[:]); err != nil {
			return 0, err // a torn quantum is io.ErrUnexpectedEOF
		}
		n, err := base64.StdEncoding.Decode(b.buf[:], quantum[:])
		if err != nil {
			return 0, err
		}
		b.ready = b.buf[:n]
	}
	n := copy(p, b.ready)
	b.ready = b.ready[n:]
	return n, nil
}

package gateway

import (
	"cmp"
	"context"
	"io"
	"net/http"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
)

const contentTypeEvents = "text/event-stream"

// httpBodyName is the message whose content is the response body.
const httpBodyName protoreflect.FullName = "google.api.HttpBody"

// sendsHTTPBody reports whether the replies of a call are google.api.HttpBody.
func (c *plainCall) sendsHTTPBody(m *discovery.Method) bool {
	if c.rule != nil {
		return c.rule.SendsHTTPBody()
	}
	return m.Output.FullName() == httpBodyName
}

// encode returns a reply as a body and its content type.
func (c *plainCall) encode(m *discovery.Method, reply *entities.Reply) ([]byte, string, *entities.Error) {
	raw := c.sendsHTTPBody(m)
	if c.rule == nil && !raw {
		body, problem := c.g.json.toJSON(m, reply.Payload.Value)
		return body, contentTypeJSON, problem
	}
	msg, err := c.g.json.decode(m, reply.Payload.Value)
	if err == nil && raw {
		body, contentType := c.httpBody(msg, reply)
		return body, contentType, nil
	}
	var body []byte
	if err == nil {
		body, err = c.rule.Print(msg)
	}
	if err != nil {
		return nil, "", badReply(m, err)
	}
	return body, contentTypeJSON, nil
}

// httpBody returns the content of a google.api.HttpBody.
func (c *plainCall) httpBody(msg protoreflect.Message, reply *entities.Reply) ([]byte, string) {
	if c.rule != nil {
		msg = c.rule.HTTPBody(msg)
	}
	fields := msg.Descriptor().Fields()
	contentType := msg.Get(fields.ByName("content_type")).String()
	if contentType == "" {
		contentType = reply.Metadata.Get("content-type")
	}
	if contentType == "" || !isPrintable(contentType) {
		contentType = "application/octet-stream"
	}
	return msg.Get(fields.ByName("data")).Bytes(), contentType
}

// runStream runs a streamed call. The request is its only message. If the function answers with one
// message, that is returned like a unary reply.
func (c *plainCall) runStream(ctx context.Context, m *discovery.Method, payload []byte, env *envelope) *entities.Reply {
	out := &plainStream{call: c, m: m}
	var only *entities.Reply
	call := streamIO{first: payload, send: out.send}
	if m.ClientStreams {
		call.first, call.recv = nil, onlyMessage(payload)
	}
	if !m.ServerStreams {
		call.send = func(reply *entities.Reply) error {
			only = reply
			return nil
		}
	}
	failure := c.server.serveStream(ctx, m, env, call)
	if !m.ServerStreams && failure == nil && only == nil {
		failure = noPayload(m)
	}
	switch {
	case failure != nil:
		out.fail(failure)
		return nil
	case m.ServerStreams:
		out.end()
		return nil
	default:
		return only
	}
}

// onlyMessage is a stream of one message: the request of a caller that cannot stream.
func onlyMessage(payload []byte) func(context.Context) ([]byte, error) {
	read := false
	return func(context.Context) ([]byte, error) {
		if read {
			return nil, io.EOF
		}
		read = true
		return payload, nil
	}
}

// plainStream writes the replies of a streamed call: JSON documents, one per line; server-sent
// events; or the bytes of google.api.HttpBody. Each reply is flushed: a reader waits for it. The
// headers of the first reply are those of the response; later ones cannot be sent.
type plainStream struct {
	call *plainCall
	m    *discovery.Method
}

func (p *plainStream) raw() bool { return p.call.sendsHTTPBody(p.m) }

// send writes one reply.
func (p *plainStream) send(reply *entities.Reply) error {
	body, contentType, problem := p.call.encode(p.m, reply)
	if problem != nil {
		return problem
	}
	if !p.call.streamed {
		setReplyHeaders(p.call.w.Header(), reply)
		p.begin(contentType)
	}
	switch {
	case p.raw():
	case p.call.sse:
		body = event("", cmp.Or(reply.Metadata.Get(entities.EventID), reply.Token), body)
	default:
		body = append(body, '\n')
	}
	if _, err := p.call.w.Write(body); err != nil {
		return err
	}
	return http.NewResponseController(p.call.w).Flush()
}

// begin sends the headers. From then on the response is a stream.
func (p *plainStream) begin(contentType string) {
	header := p.call.w.Header()
	if p.call.sse && !p.raw() {
		contentType = contentTypeEvents
		header.Set("Cache-Control", "no-cache")
	}
	header.Set("Content-Type", contentType)
	p.call.streamed = true
	p.call.w.WriteHeader(http.StatusOK)
}

// end completes a stream, also one without a reply.
func (p *plainStream) end() {
	if !p.call.streamed {
		p.begin(contentTypeJSON)
	}
}

// fail ends a stream with an error: as an ordinary error response if nothing was sent, as an error
// event if the stream has events, otherwise by closing the connection.
func (p *plainStream) fail(failure *entities.Error) {
	if !p.call.streamed {
		p.call.fail(failure, 0)
		return
	}
	// Lines of JSON, and bytes, have no place for an error: a stream that ends as if it were complete
	// would be taken for the whole answer.
	if !p.call.sse || p.raw() {
		panic(http.ErrAbortHandler)
	}
	_, _ = p.call.w.Write(event("error", "", errorBody(failure))) // the caller may have left
}

// event is a server-sent event. data has no line breaks, because it is compact JSON. Its id is the
// one that the function has given to the reply, else the token: the position of the state that it
// shows, for later reads of the page.
func event(name, id string, data []byte) []byte {
	var b []byte
	if name != "" {
		b = append(append(append(b, "event: "...), name...), '\n')
	}
	if id != "" {
		b = append(append(append(b, "id: "...), id...), '\n')
	}
	return append(append(append(b, "data: "...), data...), "\n\n"...)
}

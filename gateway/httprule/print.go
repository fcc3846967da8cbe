package httprule

import (
	"encoding/json"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// SendsHTTPBody reports whether responses are a google.api.HttpBody instead of JSON.
func (r *Rule) SendsHTTPBody() bool {
	if r.response == nil {
		return r.output.Descriptor().FullName() == httpBody
	}
	return isMessage(r.response) && r.response.Message().FullName() == httpBody
}

// HTTPBody returns the google.api.HttpBody in a reply, if SendsHTTPBody. It is empty if the reply
// leaves it out.
func (r *Rule) HTTPBody(reply protoreflect.Message) protoreflect.Message {
	if r.response == nil {
		return reply
	}
	return reply.Get(r.response).Message()
}

// Print returns a reply as compact JSON: whole, or the field that response_body names. A field
// that can be absent, and is, is null.
func (r *Rule) Print(reply protoreflect.Message) ([]byte, error) {
	fd := r.response
	switch {
	case fd == nil:
		return r.print(reply)
	case fd.HasPresence() && !reply.Has(fd):
		return []byte("null"), nil
	case isMessage(fd):
		return r.print(reply.Get(fd).Message())
	}
	// There is no printer for one field: print a message that has nothing else, and take it out.
	only := reply.New()
	if reply.Has(fd) {
		only.Set(fd, reply.Get(fd))
	}
	printed, err := r.print(only)
	if err != nil {
		return nil, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(printed, &fields); err != nil {
		return nil, err
	}
	return fields[fd.JSONName()], nil
}

// print removes the random white space of protojson, so that equal replies are equal bytes: caches
// and clients compare them.
func (r *Rule) print(m protoreflect.Message) ([]byte, error) {
	encoded, err := r.router.marshal.Marshal(m.Interface())
	return Compact(encoded), err
}

// Compact removes, in place, the white space between the tokens of valid JSON: protojson prints
// some or none, which differs between builds.
func Compact(encoded []byte) []byte {
	compact, inString := encoded[:0], false
	for i := 0; i < len(encoded); i++ {
		c := encoded[i]
		switch {
		case inString && c == '\\':
			compact = append(compact, c)
			i++
			c = encoded[i]
		case c == '"':
			inString = !inString
		case !inString && (c == ' ' || c == '\n' || c == '\t' || c == '\r'):
			continue
		}
		compact = append(compact, c)
	}
	return compact
}

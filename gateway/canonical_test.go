package gateway_test

import (
	"slices"
	"testing"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// canonical encodes a message and then orders its top-level fields by number, independently of the
// gateway's own way.
func canonical(t testing.TB, msg proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(msg)
	if err != nil {
		t.Fatal(err)
	}
	type field struct {
		number protowire.Number
		bytes  []byte
	}
	var fields []field
	for len(b) > 0 {
		number, _, n := protowire.ConsumeField(b)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		fields = append(fields, field{number, b[:n]})
		b = b[n:]
	}
	slices.SortStableFunc(fields, func(x, y field) int { return int(x.number - y.number) })
	var sorted []byte
	for _, f := range fields {
		sorted = append(sorted, f.bytes...)
	}
	return sorted
}

func httpBody(t testing.TB, contentType, data string) []byte {
	t.Helper()
	b, err := proto.Marshal(&httpbody.HttpBody{ContentType: contentType, Data: []byte(data)})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

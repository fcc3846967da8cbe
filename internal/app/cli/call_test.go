package cli

import (
	"context"
	"encoding/hex"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// probe is a service whose message has an Any, an extension and a map.
const probe = `
name: "probe.proto" package: "probe.v1"
dependency: "google/protobuf/any.proto" dependency: "google/protobuf/timestamp.proto"
message_type {
  name: "Put"
  field { name: "id" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL json_name: "id" }
  field { name: "detail" number: 2 type: TYPE_MESSAGE type_name: ".google.protobuf.Any" label: LABEL_OPTIONAL json_name: "detail" }
  field { name: "details" number: 3 type: TYPE_MESSAGE type_name: ".google.protobuf.Any" label: LABEL_REPEATED json_name: "details" }
  field { name: "at" number: 4 type: TYPE_MESSAGE type_name: ".google.protobuf.Timestamp" label: LABEL_OPTIONAL json_name: "at" }
  extension_range { start: 100 end: 200 }
}
message_type {
  name: "Nested"
  field { name: "text" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL json_name: "text" }
  field { name: "inner" number: 2 type: TYPE_MESSAGE type_name: ".google.protobuf.Any" label: LABEL_OPTIONAL json_name: "inner" }
}
extension { name: "note" number: 100 type: TYPE_STRING label: LABEL_OPTIONAL extendee: ".probe.v1.Put" json_name: "note" }
service { name: "KeyService" method { name: "Put" input_type: ".probe.v1.Put" output_type: ".probe.v1.Put" } }
`

// echo is a process that serves probe, and answers with the request: a detail of an unknown type
// if the id asks for it.
type echo struct {
	adminv1.UnimplementedAdminServiceServer
	set  *descriptorpb.FileDescriptorSet
	puts protoreflect.MessageDescriptor
}

// Descriptors returns what is served.
func (e *echo) Descriptors(context.Context, *adminv1.DescriptorsRequest) (*adminv1.DescriptorsResponse, error) {
	b, err := proto.Marshal(e.set)
	return &adminv1.DescriptorsResponse{FileDescriptorSet: b}, err
}

func (e *echo) call(_ any, stream grpc.ServerStream) error {
	m := dynamicpb.NewMessage(e.puts)
	if err := stream.RecvMsg(m); err != nil {
		return err
	}
	id, fields := m.Get(e.puts.Fields().ByName("id")).String(), e.puts.Fields()
	_ = stream.SetHeader(metadata.Pairs("millrace-token", "T1"))
	anyOf := func(url string, value []byte) protoreflect.Message {
		b, _ := proto.Marshal(&anypb.Any{TypeUrl: url, Value: value})
		a := dynamicpb.NewMessage(fields.ByName("detail").Message())
		_ = proto.Unmarshal(b, a)
		return a
	}
	switch id {
	case "unknown":
		m.Set(fields.ByName("detail"), protoreflect.ValueOfMessage(anyOf("type.googleapis.com/other.v1.Thing", []byte{8, 1})))
		m.Mutable(fields.ByName("details")).List().Append(protoreflect.ValueOfMessage(
			anyOf("type.googleapis.com/probe.v1.Nested", append([]byte{18, 27}, // inner
				append([]byte{10, 20}, append([]byte("type.example/other.T"), 18, 3, 1, 2, 3)...)...))))
	case "broken":
		m.Set(fields.ByName("detail"), protoreflect.ValueOfMessage(anyOf("type.googleapis.com/probe.v1.Nested", []byte{255})))
	case "never":
		at := dynamicpb.NewMessage(fields.ByName("at").Message())
		at.Set(at.Descriptor().Fields().ByName("nanos"), protoreflect.ValueOfInt32(-1))
		m.Set(fields.ByName("at"), protoreflect.ValueOfMessage(at))
		m.Clear(fields.ByName("id")) // one field: several have no fixed order
	case "header":
		md, _ := metadata.FromIncomingContext(stream.Context())
		m.Set(fields.ByName("id"), protoreflect.ValueOfString(hex.EncodeToString([]byte(strings.Join(md.Get("x-bin"), "|")))))
	case "refused":
		stream.SetTrailer(metadata.Pairs("millrace-outcome", "applied"))
		return status.Error(codes.Aborted, "no\x1b[2J\nFORGED")
	case "cut":
		return status.Error(codes.Unavailable, "gone")
	}
	return stream.SendMsg(m)
}

func serveEcho(t *testing.T) string {
	t.Helper()
	file := &descriptorpb.FileDescriptorProto{}
	if err := prototext.Unmarshal([]byte(probe), file); err != nil {
		t.Fatal(err)
	}
	e := &echo{set: &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{
		protodesc.ToFileDescriptorProto(anypb.File_google_protobuf_any_proto),
		protodesc.ToFileDescriptorProto(timestamppb.File_google_protobuf_timestamp_proto), file,
	}}}
	files, err := protodesc.NewFiles(e.set)
	if err != nil {
		t.Fatal(err)
	}
	d, err := files.FindDescriptorByName("probe.v1.Put")
	if err != nil {
		t.Fatal(err)
	}
	e.puts, _ = d.(protoreflect.MessageDescriptor)
	server := grpc.NewServer(grpc.UnknownServiceHandler(e.call))
	adminv1.RegisterAdminServiceServer(server, e)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }() // Stop ends it; received below
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// A call knows the function's own types, and prints every reply, with its token; after an error it
// says whether the command took effect.
func TestCallKnowsTypes(t *testing.T) {
	t.Chdir(t.TempDir())
	p, address := tool(t), serveEcho(t)
	const method = "probe.v1.KeyService/Put"
	for name, tc := range map[string]struct {
		args, request  string
		stdout, stderr string
		code           int
	}{
		"any": {
			request: `{"id":"a","detail":{"@type":"type.googleapis.com/probe.v1.Nested","text":"x"}}`,
			stdout:  `{"id":"a","detail":{"@type":"type.googleapis.com/probe.v1.Nested","text":"x"},"details":[]}`,
			stderr:  "token T1\n",
		},
		"any of a well-known type that the function does not import": {
			request: `{"detail":{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1s"}}`,
			stdout:  `{"detail":{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1s"},"details":[]}`,
			stderr:  "token T1\n",
		},
		"extension": {
			request: `{"id":"a","[probe.v1.note]":"n"}`,
			stdout:  `{"id":"a","details":[],"[probe.v1.note]":"n"}`,
			stderr:  "token T1\n",
		},
		"any of unknown types, also within another one": {
			request: `{"id":"unknown"}`,
			stdout: `{"id":"unknown","detail":{"@type":"type.googleapis.com/other.v1.Thing","value":"CAE="},"details":[` +
				`{"@type":"type.googleapis.com/probe.v1.Nested","inner":{"@type":"type.example/other.T","value":"AQID"}}]}`,
			stderr: "warning: not known here, or not of their type, and shown as base64: type.example/other.T, type.googleapis.com/other.v1.Thing\ntoken T1\n",
		},
		"any that is not of its type": {
			request: `{"id":"broken"}`,
			stdout:  `{"id":"broken","detail":{"@type":"type.googleapis.com/probe.v1.Nested","value":"/w=="},"details":[]}`,
			stderr:  "warning: not known here, or not of their type, and shown as base64: type.googleapis.com/probe.v1.Nested\ntoken T1\n",
		},
		"a reply that has no JSON": {
			request: `{"id":"never"}`,
			stdout:  `{"@type":"type.googleapis.com/probe.v1.Put","value":"IgsQ////////////AQ=="}`,
			stderr: "warning: the reply cannot be shown as JSON, and is there as base64: google.protobuf.Timestamp: nanos out of range -1\n" +
				"token T1\n",
		},
		"a type that is not known in a request": {
			request: `{"detail":{"@type":"type.googleapis.com/other.v1.Thing"}}`,
			stderr:  `millrace: invalid probe.v1.Put: (line 1:20): unable to resolve "type.googleapis.com/other.v1.Thing": "not found"` + "\n",
			code:    exitUsage,
		},
		"an error": {
			request: `{"id":"refused"}`,
			stderr:  "token T1\noutcome applied\nmillrace: no" + `\x1b[2J` + "\n  FORGED (ABORTED)\n", code: exitError,
		},
		"a call that breaks off": {
			request: `{"id":"cut"}`,
			stderr:  "token T1\noutcome unknown\nmillrace: gone (UNAVAILABLE)\n", code: exitError,
		},
		"a binary header": {
			args: "-H|x-bin: AQID", request: `{"id":"header"}`, stderr: "token T1\n",
			stdout: `{"id":"010203","details":[]}`,
		},
		"a binary header in the other alphabet, padded": {
			args: "-H|X-BIN:-_8=", request: `{"id":"header"}`, stderr: "token T1\n",
			stdout: `{"id":"fbff","details":[]}`,
		},
		"a binary header that is not base64": {
			args: "-H|x-bin: A!", request: `{}`, code: exitUsage,
			stderr: `millrace: header "x-bin: A!": the value of a name that ends in -bin is base64: illegal base64 data at input byte 1` + "\n",
		},
		"a header with a bad name": {
			args: "-H|x y: A", request: `{}`, code: exitUsage,
			stderr: `millrace: header "x y: A": a name has letters, digits, and any of - _ . only` + "\n",
		},
		"a header without a name": {
			args: "-H|:path: A", request: `{}`, code: exitUsage,
			stderr: `millrace: header ":path: A": a name has letters, digits, and any of - _ . only` + "\n",
		},
		"a header of the protocol": {
			args: "-H|grpc-timeout: 1S", request: `{}`, code: exitUsage,
			stderr: `millrace: header "grpc-timeout: 1S": names that begin with grpc- belong to the protocol` + "\n",
		},
		"a header with letters that are none of ASCII": {
			args: "-H|x: ö", request: `{}`, code: exitUsage,
			stderr: `millrace: header "x: ö": a value has printable ASCII only; send other bytes, in base64, under a name that ends in -bin` + "\n",
		},
		"yaml": {
			args: "-o|yaml", request: `{"id":"a"}`, stderr: "token T1\n", stdout: "id: a\ndetails: []",
		},
		"table": {
			args: "-o|table", request: `{"id":"a"}`, stderr: "token T1\n", stdout: "FIELD    VALUE\nid       a\ndetails  []",
		},
		"name": {
			args: "-o|name", request: `{"id":"a"}`, code: exitUsage,
			stderr: "millrace: a reply has no name: use -o json, yaml or table\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"call", method, "--admin", address, "--address", address, "-d", tc.request}
			if tc.args != "" {
				args = append(args, strings.Split(tc.args, "|")...)
			}
			r := p.runIn(t, false, "", args...)
			if r.code != tc.code || strings.TrimSuffix(r.stdout, "\n") != tc.stdout || r.stderr != tc.stderr {
				t.Errorf("exit code %d, want %d\n%s%s\nwant\n%s\n%s", r.code, tc.code, r.stdout, r.stderr, tc.stdout, tc.stderr)
			}
		})
	}
}

// A call that never reached a process was not applied.
func TestCallThatIsNotSent(t *testing.T) {
	t.Chdir(t.TempDir())
	r := tool(t).runIn(t, false, "", "call", "probe.v1.KeyService/Put", "--admin", serveEcho(t), "--address", "127.0.0.1:1")
	if r.code != exitError || !strings.HasPrefix(r.stderr, "outcome not_applied\nmillrace: cannot connect to 127.0.0.1:1: ") {
		t.Errorf("exit code %d: %s", r.code, r.stderr)
	}
}

package gateway_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

// twinsFile has two services that differ in their messages alone: google.api.HttpRule, which is
// compiled in, and a copy of it, which is not.
const twinsFile = `
name: "twins.proto" package: "twins.v1" syntax: "proto3"
dependency: "google/api/annotations.proto" dependency: "google/api/http.proto" dependency: "copy.proto"
service { name: "Compiled"
  method { name: "Call" input_type: ".google.api.HttpRule" output_type: ".google.api.HttpRule"
    options { [google.api.http] { post: "/compiled/{selector}" body: "*"
      additional_bindings { get: "/compiled/{selector}" }
      additional_bindings { put: "/compiled/{selector}" body: "custom" response_body: "custom" } } } } }
service { name: "Dynamic"
  method { name: "Call" input_type: ".copy.HttpRule" output_type: ".copy.HttpRule"
    options { [google.api.http] { post: "/dynamic/{selector}" body: "*"
      additional_bindings { get: "/dynamic/{selector}" }
      additional_bindings { put: "/dynamic/{selector}" body: "custom" response_body: "custom" } } } } }
`

// newTwins starts a gateway with twinsFile, whose functions echo. change may change the file of
// google.api.HttpRule as the function has it.
func newTwins(t testing.TB, change func(*descriptorpb.FileDescriptorProto)) *world {
	t.Helper()
	own := protodesc.ToFileDescriptorProto(annotations.File_google_api_http_proto)
	change(own)
	text := prototext.Format(protodesc.ToFileDescriptorProto(annotations.File_google_api_http_proto))
	set := &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{own}}
	for _, file := range []string{
		strings.NewReplacer("google/api/http.proto", "copy.proto", "google.api", "copy").Replace(text), twinsFile,
	} {
		fd := &descriptorpb.FileDescriptorProto{}
		if err := prototext.Unmarshal([]byte(file), fd); err != nil {
			t.Fatal(err)
		}
		set.File = append(set.File, fd)
	}
	encoded, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	spec := &cloudstate.EntitySpec{Proto: encoded, ServiceInfo: &cloudstate.ServiceInfo{ProtocolMinorVersion: 2}}
	for _, service := range []string{"twins.v1.Compiled", "twins.v1.Dynamic"} {
		spec.Entities = append(spec.Entities, &cloudstate.Entity{
			EntityType: entities.Action.Spec().Protocol, ServiceName: service, PersistenceId: service,
		})
	}
	catalog, err := discovery.NewCatalog(spec, discovery.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := newEmptyWorld(t, &dispatcher{unary: func(_ context.Context, cmd *entities.Command) (*entities.Reply, error) {
		return &entities.Reply{Payload: cmd.Payload}, nil
	}}, nil)
	if err := w.server.SetCatalog(catalog); err != nil {
		t.Fatal(err)
	}
	return w
}

// Messages that are compiled in are bound, encoded and printed as dynamic ones are.
func TestCompiledInTypesMakeNoDifference(t *testing.T) {
	w := newTwins(t, func(*descriptorpb.FileDescriptorProto) {})
	for _, tc := range []struct {
		method, path, body string
		want               int
	}{
		{"POST", "/KIND/s", ``, 200},
		{"POST", "/KIND/s", `{"responseBody":"r","get":"g","body":"b"}`, 200},
		{"POST", "/KIND/s", `{"custom":{"path":"p","kind":"k"},"additional_bindings":[{"put":"p","selector":"x"},{}]}`, 200},
		{"POST", "/KIND/s", `{"selector":"s"}`, 200},
		{"POST", "/KIND/s", `{"selector":"other"}`, 400},
		{"POST", "/KIND/s", `{"get":"g","put":"p"}`, 400},
		{"POST", "/KIND/s", `{"get":"g","get":"g"}`, 400},
		{"POST", "/KIND/s", `{"none":1}`, 400},
		{"POST", "/KIND/s", `{"get":null,"custom":null}`, 200},
		{"POST", "/KIND/s", "{\"get\":\"\xff\"}", 400},
		{"GET", "/KIND/s", ``, 200},
		{"GET", "/KIND/a%2Fb?custom.kind=k&custom.path=p%20q&responseBody=r", ``, 200},
		{"GET", "/KIND/s?custom.kind=k&custom.kind=k", ``, 400},
		{"GET", "/KIND/s?response_body=k&responseBody=k", ``, 400},
		{"GET", "/KIND/s?custom.kind=k&get=g", ``, 400},
		{"GET", "/KIND/s?additional_bindings=k", ``, 400},
		{"PUT", "/KIND/s", `{"kind":"k","path":"\"p\", \\"}`, 200},
		{"PUT", "/KIND/s", `null`, 200},
		{"PUT", "/KIND/s?get=g", `{}`, 400},
		{"PUT", "/KIND/s?get=g", ``, 200},
		{"POST", "/twins.v1.NAME/Call", `{"additionalBindings":[{"delete":"d"}],"body":"b"}`, 200},
		{"POST", "/twins.v1.NAME/Call", `{"body":5}`, 400},
	} {
		call := func(kind, name string) (answer, []byte) {
			path := strings.NewReplacer("KIND", kind, "NAME", name).Replace(tc.path)
			before := w.fake.count()
			got := w.http(tc.method, path, tc.body, jsonType, jsonValue)
			got.body = strings.NewReplacer(kind, "KIND", name, "NAME", "copy.", "google.api.").Replace(got.body)
			if w.fake.count() == before {
				return got, nil
			}
			return got, w.fake.last().Payload.Value
		}
		compiled, bytesOfCompiled := call("compiled", "Compiled")
		dynamic, bytesOfDynamic := call("dynamic", "Dynamic")
		if compiled.status != tc.want || compiled.status != dynamic.status || compiled.body != dynamic.body ||
			!bytes.Equal(bytesOfCompiled, bytesOfDynamic) {
			t.Errorf("%s %s %s: want %d\ncompiled in %d %s %q\ndynamic     %d %s %q", tc.method, tc.path, tc.body, tc.want,
				compiled.status, compiled.body, bytesOfCompiled, dynamic.status, dynamic.body, bytesOfDynamic)
		}
	}
}

// A function whose file differs from the one that is compiled in is served by its own.
func TestAnotherVersionOfACompiledInFile(t *testing.T) {
	w := newTwins(t, func(own *descriptorpb.FileDescriptorProto) {
		for _, m := range own.GetMessageType() {
			if m.GetName() == "CustomHttpPattern" { // of a field of the request, not the request itself
				m.Field = append(m.Field, &descriptorpb.FieldDescriptorProto{
					Name: proto.String("added"), Number: proto.Int32(99),
					Type:  descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(),
					Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
				})
			}
		}
	})
	got := w.http("PUT", "/compiled/s", `{"added":"new"}`, jsonType, jsonValue)
	if got.status != 200 || got.body != `{"kind":"","path":"","added":"new"}` {
		t.Fatal(got.status, got.body)
	}
}

package httprule_test

import (
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	_ "google.golang.org/genproto/googleapis/api/httpbody" // the file
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	_ "google.golang.org/protobuf/types/known/durationpb"  // the file
	_ "google.golang.org/protobuf/types/known/emptypb"     // the file
	_ "google.golang.org/protobuf/types/known/fieldmaskpb" // the file
	_ "google.golang.org/protobuf/types/known/structpb"    // the file
	_ "google.golang.org/protobuf/types/known/wrapperspb"  // the file

	"github.com/millrace-io/millrace/gateway/httprule"
)

// schema has fields of all types, and rules of all forms.
const schema = `
syntax = "proto3";
package t.v1;
import "google/api/annotations.proto";
import "google/api/httpbody.proto";
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/empty.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";

enum Color { RED = 0; GREEN = 1; BLUE = 5; }

message Inner {
  string name = 1;
  int32 n = 2;
  Inner inner = 3;
  repeated string tags = 4;
  oneof pick { string a = 5; int32 b = 6; }
}

message All {
  string id = 1;
  string user_id = 2;
  bool flag = 3;
  int32 i32 = 4;
  sint64 i64 = 5;
  fixed32 u32 = 6;
  uint64 u64 = 7;
  float f32 = 8;
  double f64 = 9;
  bytes raw = 10;
  Color color = 11;
  Inner inner = 12;
  repeated string tags = 13;
  repeated int32 nums = 14;
  repeated Color colors = 15;
  repeated Inner inners = 16;
  map<string, string> labels = 17;
  oneof choice { string pick_s = 18; int32 pick_i = 19; Inner pick_m = 20; }
  optional string maybe = 21;
  optional int32 count = 22;
  string renamed = 23 [json_name = "other"];
  google.protobuf.Timestamp ts = 30;
  google.protobuf.Duration dur = 31;
  google.protobuf.FieldMask mask = 32;
  google.protobuf.StringValue ws = 33;
  google.protobuf.Int64Value wi = 34;
  google.protobuf.BoolValue wb = 35;
  google.protobuf.DoubleValue wd = 36;
  google.protobuf.BytesValue wr = 37;
  google.protobuf.Value val = 38;
  google.protobuf.Struct obj = 39;
  google.protobuf.ListValue list = 40;
  google.protobuf.Any any = 41;
  google.protobuf.Empty empty = 42;
  google.protobuf.NullValue nothing = 43;
  repeated google.protobuf.Timestamp times = 44;
  repeated google.protobuf.StringValue texts = 45;
  google.api.HttpBody file = 46;
}

service S {
  rpc Get(All) returns (All) { option (google.api.http) = {
    get: "/v1/items/{id}"
    additional_bindings { get: "/v1/a/{inner.name}/b/{user_id}" }
    additional_bindings { get: "/v1/num/{i32}" }
    additional_bindings { get: "/v1/long/{i64}" }
    additional_bindings { get: "/v1/flag/{flag}" }
    additional_bindings { get: "/v1/color/{color}" }
    additional_bindings { get: "/v1/raw/{raw}" }
    additional_bindings { get: "/v1/at/{ts}" }
    additional_bindings { get: "/v1/ws/{ws}" }
    additional_bindings { get: "/v1/double/{f64}" }
    additional_bindings { get: "/v1/pick/{pick_s}" }
    additional_bindings { get: "/v1/inpick/{inner.a}" }
    additional_bindings { get: "/v1/maybe/{maybe}" }
  }; }
  rpc Search(All) returns (All) { option (google.api.http) = { get: "/v1/items/search" }; }
  rpc Fixed(All) returns (All) { option (google.api.http) = { post: "/v1/items/fixed" body: "*" }; }
  rpc Name(All) returns (All) { option (google.api.http) = {
    get: "/v1/{id=shelves/*/books/*}"
    additional_bindings { get: "/v1/files/{id=**}" }
    additional_bindings { get: "/v1/one/{id=docs/*}" }
    additional_bindings { get: "/v1/lit/{id=exact}" }
    additional_bindings { get: "/v1/any/**" }
    additional_bindings { get: "/v1/star/*/{id}" }
  }; }
  rpc Verb(All) returns (All) { option (google.api.http) = {
    post: "/v1/items/{id}:archive" body: "*"
    additional_bindings { post: "/v1/files/{id=**}:undo" }
    additional_bindings { get: "/v1/items:count" }
  }; }
  rpc Whole(All) returns (All) { option (google.api.http) = {
    post: "/v1/items/{id}" body: "*"
    additional_bindings { put: "/v1/inner/{inner.name}" body: "*" }
    additional_bindings { put: "/v1/pick/{pick_s}" body: "*" }
    additional_bindings { put: "/v1/maybe/{maybe}" body: "*" }
    additional_bindings { put: "/v1/at/{ts}" body: "*" }
  }; }
  rpc Field(All) returns (All) { option (google.api.http) = {
    patch: "/v1/items/{id}" body: "inner"
    additional_bindings { patch: "/v1/in/{inner.name}" body: "inner" }
    additional_bindings { post: "/v1/body/user_id" body: "user_id" }
    additional_bindings { post: "/v1/body/i32" body: "i32" }
    additional_bindings { post: "/v1/body/tags" body: "tags" }
    additional_bindings { post: "/v1/body/inners" body: "inners" }
    additional_bindings { post: "/v1/body/labels" body: "labels" }
    additional_bindings { post: "/v1/body/ts" body: "ts" }
    additional_bindings { post: "/v1/body/val" body: "val" }
    additional_bindings { post: "/v1/body/ws" body: "ws" }
    additional_bindings { post: "/v1/body/color" body: "color" }
    additional_bindings { post: "/v1/body/pick_s" body: "pick_s" }
    additional_bindings { post: "/v1/body/mask" body: "mask" }
    additional_bindings { post: "/v1/body/file" body: "file" }
  }; }
  rpc Custom(All) returns (All) { option (google.api.http) = {
    custom { kind: "LOCK" path: "/v1/items/{id}" }
    additional_bindings { custom { kind: "*" path: "/v1/every/{id}" } }
    additional_bindings { custom { kind: "HEAD" path: "/v1/head/{id}" } }
    additional_bindings { get: "/v1/every/{id}" }
    additional_bindings { delete: "/v1/items/{id}" }
  }; }
}`

// compileSchema returns the methods of a proto source.
func compileSchema(t testing.TB, source string) protoreflect.ServiceDescriptor {
	t.Helper()
	find := func(path string) (protocompile.SearchResult, error) {
		if path == "t.proto" {
			return protocompile.SearchResult{Source: strings.NewReader(source)}, nil
		}
		fd, err := protoregistry.GlobalFiles.FindFileByPath(path)
		return protocompile.SearchResult{Desc: fd}, err
	}
	compiler := protocompile.Compiler{Resolver: protocompile.ResolverFunc(find)}
	files, err := compiler.Compile(t.Context(), "t.proto")
	if err != nil {
		t.Fatal(err)
	}
	// Encoded and decoded, options are of the types that are compiled in.
	encoded, err := proto.Marshal(protodesc.ToFileDescriptorProto(files[0]))
	if err != nil {
		t.Fatal(err)
	}
	file := &descriptorpb.FileDescriptorProto{}
	if err := proto.Unmarshal(encoded, file); err != nil {
		t.Fatal(err)
	}
	fd, err := protodesc.NewFile(file, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	return fd.Services().Get(0)
}

// routerOf returns a router with the rules of a service.
func routerOf(t testing.TB, service protoreflect.ServiceDescriptor) *httprule.Router {
	t.Helper()
	router, err := newRouter(service)
	if err != nil {
		t.Fatal(err)
	}
	return router
}

func newRouter(service protoreflect.ServiceDescriptor) (*httprule.Router, error) {
	router := httprule.NewRouter(dynamicpb.NewMessageType, protojson.UnmarshalOptions{RecursionLimit: 64},
		protojson.MarshalOptions{EmitDefaultValues: true})
	for i := range service.Methods().Len() {
		if err := router.Add(service.Methods().Get(i)); err != nil {
			return nil, err
		}
	}
	return router, nil
}

package httprule_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/millrace-io/millrace/gateway/httprule"
)

// serviceWith is a service with one rule.
func serviceWith(rule string) string {
	return "service S { rpc Get(All) returns (All) { option (google.api.http) = { " + rule + " }; } }"
}

// Rules that cannot be served are refused when the router is made, with the rule and the reason.
func TestBadRules(t *testing.T) {
	for _, tc := range []struct{ rule, want string }{
		{`get: "v1/x"`, "a path begins with a slash"},
		{`get: "/v1//x"`, "it has an empty segment"},
		{`get: "/v1/x/"`, "it has an empty segment"},
		{`get: "/v1/**/x"`, "** is not the last segment"},
		{`get: "/v1/{id=**}/x"`, "** is not the last segment"},
		{`get: "/v1/{id"`, "it does not close a brace"},
		{`get: "/v1/id}"`, "it closes a brace that is not open"},
		{`get: "/v1/{id={user_id}}"`, "a variable contains another"},
		{`get: "/v1/{id}x"`, "has text after its brace"},
		{`get: "/v1/x{id}"`, `"x{id}" is neither`},
		{`get: "/v1/x*"`, `"x*" is neither`},
		{`get: "/v1/{id}:"`, "its verb is empty"},
		{`get: "/v1/{id=}"`, "it has an empty segment"},
		{`get: "/v1/%zz"`, "invalid URL escape"},
		{`get: "/v1/{nope}"`, `variable "nope": t.v1.All has no field "nope"`},
		{`get: "/v1/{}"`, `has no field ""`},
		{`get: "/v1/{tags}"`, "is repeated"},
		{`get: "/v1/{labels}"`, "is repeated"},
		{`get: "/v1/{inner}"`, "is a message"},
		{`get: "/v1/{val}"`, "is a message"},
		{`get: "/v1/{id.x}"`, "has no fields to set"},
		{`get: "/v1/{ts.seconds}"`, "has no fields to set"},
		{`get: "/v1/{id}/{id}"`, "set the same field"},
		{`get: "/v1/{pick_s}/{pick_i}"`, `members of the oneof "choice"`},
		{`get: "/v1/{pick_s}/{pick_m.name}"`, `members of the oneof "choice"`},
		{`post: "/v1/x" body: "nope"`, `body: t.v1.All has no field "nope"`},
		{`post: "/v1/x" body: "inner.name"`, "body: t.v1.All has no field"},
		{`post: "/v1/{id}" body: "id"`, "is in the path and is the body"},
		{`get: "/v1/x" response_body: "nope"`, "response_body: t.v1.All has no field"},
		{`body: "*"`, "a rule has no HTTP method"},
		{`get: "/v1/{id}" additional_bindings { get: "/v1/{user_id}" }`, "two rules serve the same requests"},
		{`get: "/v1/**" additional_bindings { get: "/v1/{user_id=**}" }`, "two rules serve the same requests"},
		{`get: "/v1/{id}:a" additional_bindings { get: "/v1/*:a" }`, "two rules serve the same requests"},
		{`get: "/v1/{id}:a" additional_bindings { get: "/v1/*:b" }`, ""},
		{`get: "/v1/{id}" additional_bindings { post: "/v1/*" }`, ""},
		{`get: "/"`, ""},
	} {
		head, _, _ := strings.Cut(schema, "service S {")
		_, err := newRouter(compileSchema(t, head+serviceWith(tc.rule)))
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s: %v", tc.rule, err)
		case tc.want == "":
		case err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "t.v1.S.Get"):
			t.Errorf("%s: %v, want %q", tc.rule, err, tc.want)
		}
	}
}

// response_body prints one field; what can be absent, and is, is null.
func TestPrint(t *testing.T) {
	head, _, _ := strings.Cut(schema, "service S {")
	for _, tc := range []struct{ field, reply, want string }{
		{"id", `{}`, `""`},
		{"id", `{"id":"x"}`, `"x"`},
		{"i64", `{"i64":"5"}`, `"5"`},
		{"color", `{}`, `"RED"`},
		{"tags", `{}`, `[]`},
		{"tags", `{"tags":["a"],"id":"x"}`, `["a"]`},
		{"inners", `{"inners":[{}]}`, `[{"name":"","n":0,"tags":[]}]`},
		{"labels", `{"labels":{"a":"b"}}`, `{"a":"b"}`},
		{"inner", `{}`, `null`},
		{"inner", `{"inner":{}}`, `{"name":"","n":0,"tags":[]}`},
		{"ts", `{}`, `null`},
		{"ts", `{"ts":"2024-01-01T00:00:00Z"}`, `"2024-01-01T00:00:00Z"`},
		{"val", `{}`, `null`},
		{"val", `{"val":[1]}`, `[1]`},
		{"ws", `{}`, `null`},
		{"ws", `{"ws":""}`, `""`},
		{"maybe", `{}`, `null`},
		{"maybe", `{"maybe":""}`, `""`},
		{"pick_i", `{"pickS":"x"}`, `null`},
		{"renamed", `{"other":"x"}`, `"x"`},
	} {
		service := compileSchema(t, head+serviceWith(`get: "/v1/x" response_body: "`+tc.field+`"`))
		match, _, err := routerOf(t, service).Match("GET", "/v1/x")
		if err != nil {
			t.Fatal(err)
		}
		reply := dynamicpb.NewMessage(service.Methods().Get(0).Output())
		if err := protojson.Unmarshal([]byte(tc.reply), reply); err != nil {
			t.Fatal(err)
		}
		if got, err := match.Print(reply); err != nil || string(got) != tc.want {
			t.Errorf("%s of %s: %s %v, want %s", tc.field, tc.reply, got, err, tc.want)
		}
	}
}

// White space between tokens goes, and that within strings stays.
func TestCompact(t *testing.T) {
	for _, text := range []string{
		``, `null`, `""`, `" "`, ` { "a" : [ 1 ,2 ] , "b c": "d, \" \\" } `, "{\n\t\"a\":\r\n\"\\\\\" }", `[{}, {}]`, `"\u00e9 , é"`,
	} {
		var want bytes.Buffer
		if text != "" {
			if err := json.Compact(&want, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		if got := httprule.Compact([]byte(text)); string(got) != want.String() {
			t.Errorf("%s: %s, want %s", text, got, want.String())
		}
	}
}

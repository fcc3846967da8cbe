package httprule_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/millrace-io/millrace/gateway/httprule"
)

// Sections of the specification, which the rows name: the comments of google/api/http.proto, the
// JSON mapping of protobuf, RFC 3986 (URI) and RFC 9110 (HTTP). own is a decision of ADR 23.
const (
	segments  = "http.proto: * matches one segment, ** zero or more"
	single    = "http.proto: a variable of one segment is decoded"
	multi     = "http.proto: in a variable of several segments %2F is left unchanged"
	literals  = "http.proto: LITERAL matches literal text"
	verbs     = "http.proto: Verb = ':' LITERAL"
	params    = "http.proto: rule 1: all other fields are query parameters"
	bodyStar  = "http.proto: rule 2: with body * there is no query parameter"
	bodyNone  = "http.proto: rule 3: without body there is no HTTP request body"
	bodyField = "http.proto: body names the field that is the request body"
	bindings  = "http.proto: additional_bindings, custom"
	repeated  = "http.proto: a repeated field may be several parameters of one name"
	nested    = "http.proto: the parameter name is the field path"
	noMessage = "http.proto: repeated messages and maps are no parameters"
	jsonNum   = "JSON mapping: int32, int64, float, double"
	jsonText  = "JSON mapping: string, bool, bytes"
	jsonEnum  = "JSON mapping: enum"
	jsonKnown = "JSON mapping: Timestamp, Duration, wrappers, FieldMask"
	jsonNull  = "JSON mapping: null is an absent field"
	jsonOne   = "JSON mapping: oneof"
	jsonNames = "JSON mapping: lowerCamelCase and original names"
	rfc3986   = "RFC 3986 2.1, 3.3, 3.4: escapes, path, query"
	rfc9110   = "RFC 9110 9.3.2, 15.5.6: HEAD, Allow"
	own       = "ADR 23"
)

// row is one request. want is the method and its message as JSON; or the status and the beginning
// of the error; or the status and the allowed methods.
type row struct{ section, request, body, want string }

var table = []row{
	// Paths.
	{segments, "GET /v1/items/7", "", `Get {"id":"7"}`},
	{segments, "GET /v1/items/7/8", "", `404`},
	{segments, "GET /v1/items", "", `404`},
	{segments, "GET /v1", "", `404`},
	{segments, "GET /", "", `404`},
	{segments, "GET /v2/items/7", "", `404`},
	{own, "GET /v1/items/", "", `404`},
	{own, "GET /v1//items/7", "", `404`},
	{own, "GET //v1/items/7", "", `404`},
	{own, "GET /v1/items/7/", "", `404`},
	{segments, "GET /v1/a/x/b/y", "", `Get {"inner":{"name":"x"},"userId":"y"}`},
	{segments, "GET /v1/any", "", `Name {}`},
	{segments, "GET /v1/any/x", "", `Name {}`},
	{segments, "GET /v1/any/x/y/z", "", `Name {}`},
	{own, "GET /v1/any/", "", `404`},
	{own, "GET /v1/any/x//y", "", `404`},
	{segments, "GET /v1/star/x/y", "", `Name {"id":"y"}`},
	{segments, "GET /v1/star/x", "", `404`},
	{segments, "GET /v1/files/a", "", `Name {"id":"a"}`},
	{segments, "GET /v1/files/a/b/c", "", `Name {"id":"a/b/c"}`},
	{segments, "GET /v1/files", "", `Name {}`},
	{segments, "GET /v1/shelves/1/books/2", "", `Name {"id":"shelves/1/books/2"}`},
	{segments, "GET /v1/shelves/1/book/2", "", `404`},
	{segments, "GET /v1/shelves/1/books", "", `404`},
	{literals, "GET /v1/lit/exact", "", `Name {"id":"exact"}`},
	{literals, "GET /v1/lit/inexact", "", `404`},
	{literals, "GET /v1/Items/7", "", `404`},
	{literals, "GET /v1/it%65ms/7", "", `Get {"id":"7"}`},
	{literals, "GET /v1/items/se%61rch", "", `Search {}`},
	{literals, "GET /v1%2Fitems/7", "", `404`},
	{literals, "GET /v1/items/search", "", `Search {}`},
	{literals, "GET /v1/items/search?id=7", "", `Search {"id":"7"}`},
	{own, "GET /v1/items/fixed", "", `Get {"id":"fixed"}`},
	{own, "POST /v1/items/fixed", "{}", `Fixed {}`},
	{own, "POST /v1/items/search", "{}", `Whole {"id":"search"}`},
	{single, "GET /v1/items/a%2Fb", "", `Get {"id":"a/b"}`},
	{single, "GET /v1/items/a%2fb", "", `Get {"id":"a/b"}`},
	{single, "GET /v1/items/100%25", "", `Get {"id":"100%"}`},
	{single, "GET /v1/items/a%252Fb", "", `Get {"id":"a%2Fb"}`},
	{single, "GET /v1/items/a+b", "", `Get {"id":"a+b"}`},
	{single, "GET /v1/items/a%20b", "", `Get {"id":"a b"}`},
	{single, "GET /v1/items/%C3%BC", "", `Get {"id":"ü"}`},
	{single, "GET /v1/items/ü", "", `Get {"id":"ü"}`},
	{single, "GET /v1/items/%22x%22", "", `Get {"id":"\"x\""}`},
	{single, "GET /v1/items/null", "", `Get {"id":"null"}`},
	{single, "GET /v1/items/.", "", `Get {"id":"."}`},
	{single, "GET /v1/items/..", "", `Get {"id":".."}`},
	{single, "GET /v1/items/%3F%23", "", `Get {"id":"?#"}`},
	{single, "GET /v1/items/%00", "", `Get {"id":"\u0000"}`},
	{jsonText, "GET /v1/items/%FF", "", `400 path: "id"`},
	{rfc3986, "GET /v1/items/%zz", "", `400 path: `},
	{rfc3986, "GET /v1/items/%2", "", `400 path: `},
	{rfc3986, "GET /v1/items/%", "", `400 path: `},
	{rfc3986, "GET /v1/items/a:b;c=d,e@f&g=h", "", `Get {"id":"a:b;c=d,e@f&g=h"}`},
	{multi, "GET /v1/shelves/1%2F2/books/3", "", `Name {"id":"shelves/1%2F2/books/3"}`},
	{multi, "GET /v1/shelves/1%2f2/books/3", "", `Name {"id":"shelves/1%2f2/books/3"}`},
	{multi, "GET /v1/shelves/1%252F2/books/3", "", `Name {"id":"shelves/1%2F2/books/3"}`},
	{multi, "GET /v1/shelves/%C3%BC%2F%25/books/3", "", `Name {"id":"shelves/ü%2F%/books/3"}`},
	{multi, "GET /v1/files/a%2Fb/c%20d", "", `Name {"id":"a%2Fb/c d"}`},
	{multi, "GET /v1/files/a%2Fb", "", `Name {"id":"a%2Fb"}`},
	{multi, "GET /v1/one/docs/1%2F2", "", `Name {"id":"docs/1%2F2"}`},
	{multi, "GET /v1/one/d%6Fcs/1", "", `Name {"id":"docs/1"}`},
	{multi, "GET /v1/files/%FF", "", `400 path: "id"`},
	{multi, "GET /v1/files/a%2", "", `400 path: `},
	// Verbs.
	{verbs, "POST /v1/items/7:archive", "{}", `Verb {"id":"7"}`},
	{verbs, "POST /v1/items/a:b:archive", "{}", `Verb {"id":"a:b"}`},
	{verbs, "POST /v1/items/7:%61rchive", "{}", `Verb {"id":"7"}`},
	{verbs, "GET /v1/items:count", "", `Verb {}`},
	{verbs, "GET /v1/items/7%3Aarchive", "", `Get {"id":"7:archive"}`},
	{verbs, "POST /v1/items/7%3Aarchive", "{}", `Whole {"id":"7:archive"}`},
	{verbs, "POST /v1/items/a%2Fb:archive", "{}", `Verb {"id":"a/b"}`},
	{verbs, "POST /v1/files/a/b%2Fc:undo", "", `Verb {"id":"a/b%2Fc"}`},
	{verbs, "GET /v1/files/a:b", "", `Name {"id":"a:b"}`},
	{own, "GET /v1/items/7:archive", "", `405 POST`},
	{own, "GET /v1/items/7:undo", "", `Get {"id":"7:undo"}`},
	{own, "GET /v1/items/7:nope", "", `Get {"id":"7:nope"}`},
	{own, "GET /v1/items/:archive", "", `Get {"id":":archive"}`},
	{own, "GET /v1/items/7:", "", `Get {"id":"7:"}`},
	{verbs, "GET /v1/items:archive", "", `404`},
	// HTTP methods.
	{rfc9110, "HEAD /v1/items/7", "", `Get {"id":"7"}`},
	{bindings, "HEAD /v1/head/7", "", `Custom {"id":"7"}`},
	{rfc9110, "GET /v1/head/7", "", `405 HEAD`},
	{rfc9110, "OPTIONS /v1/items/7", "", `405 DELETE, GET, HEAD, LOCK, PATCH, POST`},
	{rfc9110, "PUT /v1/items/search", "", `405 DELETE, GET, HEAD, LOCK, PATCH, POST`},
	{rfc9110, "DELETE /v1/num/7", "", `405 GET, HEAD`},
	{rfc9110, "get /v1/num/7", "", `405 GET, HEAD`},
	{rfc9110, "POST /v1/items:count", "", `405 GET, HEAD`},
	{bindings, "LOCK /v1/items/7", "", `Custom {"id":"7"}`},
	{bindings, "DELETE /v1/items/7", "", `Custom {"id":"7"}`},
	{bindings, "TRACE /v1/every/7", "", `Custom {"id":"7"}`},
	{bindings, "GET /v1/every/7", "", `Custom {"id":"7"}`},
	{bindings, "HEAD /v1/every/7", "", `Custom {"id":"7"}`},
	// Types in the path.
	{jsonNum, "GET /v1/num/5", "", `Get {"i32":5}`},
	{jsonNum, "GET /v1/num/-2147483648", "", `Get {"i32":-2147483648}`},
	{jsonNum, "GET /v1/num/2147483648", "", `400 path: "i32"`},
	{jsonNum, "GET /v1/num/null", "", `400 path: "i32"`},
	{jsonNum, "GET /v1/num/%0A5", "", `400 path: "i32"`},
	{jsonNum, "GET /v1/num/5%20", "", `400 path: "i32"`},
	{jsonNum, "GET /v1/num/%225%22", "", `400 path: "i32"`},
	{own, "GET /v1/num/+5", "", `400 path: "i32"`},
	{own, "GET /v1/num/007", "", `400 path: "i32"`},
	{own, "GET /v1/num/1e3", "", `400 path: "i32"`},
	{jsonNum, "GET /v1/num/5.0", "", `400 path: "i32"`},
	{jsonNum, "GET /v1/num/0x10", "", `400 path: "i32"`},
	{jsonNum, "GET /v1/num/1_000", "", `400 path: "i32"`},
	{jsonNum, "GET /v1/long/9223372036854775807", "", `Get {"i64":"9223372036854775807"}`},
	{jsonNum, "GET /v1/long/9223372036854775808", "", `400 path: "i64"`},
	{jsonText, "GET /v1/flag/true", "", `Get {"flag":true}`},
	{jsonText, "GET /v1/flag/1", "", `400 path: "flag"`},
	{jsonText, "GET /v1/flag/null", "", `400 path: "flag"`},
	{jsonText, "GET /v1/flag/True", "", `400 path: "flag"`},
	{jsonEnum, "GET /v1/color/GREEN", "", `Get {"color":"GREEN"}`},
	{jsonEnum, "GET /v1/color/5", "", `Get {"color":"BLUE"}`},
	{jsonEnum, "GET /v1/color/9", "", `Get {"color":9}`},
	{jsonEnum, "GET /v1/color/green", "", `400 path: "color"`},
	{jsonEnum, "GET /v1/color/null", "", `400 path: "color"`},
	{jsonText, "GET /v1/raw/AQID", "", `Get {"raw":"AQID"}`},
	{jsonText, "GET /v1/raw/_-8=", "", `Get {"raw":"/+8="}`},
	{jsonText, "GET /v1/raw/_-8", "", `Get {"raw":"/+8="}`},
	{jsonText, "GET /v1/raw/%2F%2B8%3D", "", `Get {"raw":"/+8="}`},
	{jsonText, "GET /v1/raw/A", "", `400 path: "raw"`},
	{jsonText, "GET /v1/raw/AQ%0AID", "", `400 path: "raw"`},
	{jsonText, "GET /v1/raw/AQIDBA%3D", "", `400 path: "raw"`},
	{jsonKnown, "GET /v1/at/2024-01-01T00:00:00Z", "", `Get {"ts":"2024-01-01T00:00:00Z"}`},
	{jsonKnown, "GET /v1/at/2024-01-01", "", `400 path: "ts"`},
	{jsonKnown, "GET /v1/ws/%22x%22", "", `Get {"ws":"\"x\""}`},
	{jsonNum, "GET /v1/double/1.5e3", "", `Get {"f64":1500}`},
	{jsonNum, "GET /v1/double/NaN", "", `Get {"f64":"NaN"}`},
	{jsonNum, "GET /v1/double/1e400", "", `400 path: "f64"`},
	{jsonNum, "GET /v1/double/inf", "", `400 path: "f64"`},
	{jsonNum, "GET /v1/double/.5", "", `400 path: "f64"`},
	{jsonOne, "GET /v1/maybe/x", "", `Get {"maybe":"x"}`},
	// Query parameters.
	{params, "GET /v1/items/7?user_id=x", "", `Get {"id":"7","userId":"x"}`},
	{jsonNames, "GET /v1/items/7?userId=x", "", `Get {"id":"7","userId":"x"}`},
	{jsonNames, "GET /v1/items/7?other=x", "", `Get {"id":"7","other":"x"}`},
	{jsonNames, "GET /v1/items/7?renamed=x", "", `Get {"id":"7","other":"x"}`},
	{jsonNames, "GET /v1/items/7?UserId=x", "", `400 query: "UserId"`},
	{jsonNames, "GET /v1/items/7?userid=x", "", `400 query: "userid"`},
	{params, "GET /v1/items/7?nope=1", "", `400 query: "nope"`},
	{params, "GET /v1/items/7?", "", `Get {"id":"7"}`},
	{params, "GET /v1/items/7?&&", "", `Get {"id":"7"}`},
	{params, "GET /v1/items/7?=x", "", `400 query: `},
	{params, "GET /v1/items/7?user_id", "", `Get {"id":"7"}`},
	{params, "GET /v1/items/7?maybe=", "", `Get {"id":"7","maybe":""}`},
	{params, "GET /v1/items/7?user_id=a=b", "", `Get {"id":"7","userId":"a=b"}`},
	{params, "GET /v1/items/7?user_id=a+b%2Bc", "", `Get {"id":"7","userId":"a b+c"}`},
	{params, "GET /v1/items/7?user%5Fid=x", "", `Get {"id":"7","userId":"x"}`},
	{params, "GET /v1/items/7?id=7", "", `400 query: "id"`},
	{params, "GET /v1/items/7?id=8", "", `400 query: "id"`},
	{params, "GET /v1/a/x/b/y?inner.name=z", "", `400 query: "inner.name"`},
	{params, "GET /v1/a/x/b/y?inner.n=2", "", `Get {"inner":{"name":"x","n":2},"userId":"y"}`},
	{params, "GET /v1/items/7?user_id=x&user_id=y", "", `400 query: "user_id"`},
	{params, "GET /v1/items/7?user_id=x&user_id=x", "", `400 query: "user_id"`},
	{params, "GET /v1/items/7?i32=0&i32=5", "", `400 query: "i32"`},
	{own, "GET /v1/items/7?user_id=x&userId=y", "", `400 query: "userId"`},
	{own, "GET /v1/items/7?inner.inner.name=x&inner.inner.name=y", "", `400 query: "inner.inner.name"`},
	{rfc3986, "GET /v1/items/7?i32=5;x=1", "", `400 query: "i32=5;x=1"`},
	{rfc3986, "GET /v1/items/7?user_id=a%3Bb", "", `Get {"id":"7","userId":"a;b"}`},
	{rfc3986, "GET /v1/items/7?i32=%zz", "", `400 query: "i32"`},
	{rfc3986, "GET /v1/items/7?%zz=1", "", `400 query: "%zz"`},
	{rfc3986, "GET /v1/items/7?i32=5&user_id=%", "", `400 query: "user_id"`},
	{jsonText, "GET /v1/items/7?user_id=%FF", "", `400 query: "user_id"`},
	{jsonText, "GET /v1/items/7?user_id=null", "", `Get {"id":"7","userId":"null"}`},
	{jsonText, "GET /v1/items/7?flag=true", "", `Get {"id":"7","flag":true}`},
	{jsonText, "GET /v1/items/7?flag", "", `400 query: "flag"`},
	{jsonText, "GET /v1/items/7?flag=yes", "", `400 query: "flag"`},
	{jsonNum, "GET /v1/items/7?i32=null", "", `400 query: "i32"`},
	{jsonNum, "GET /v1/items/7?i32=", "", `400 query: "i32"`},
	{jsonNum, "GET /v1/items/7?i32=+5", "", `400 query: "i32"`},
	{jsonNum, "GET /v1/items/7?u32=4294967295&u64=18446744073709551615", "", `Get {"id":"7","u32":4294967295,"u64":"18446744073709551615"}`},
	{jsonNum, "GET /v1/items/7?u32=-1", "", `400 query: "u32"`},
	{jsonNum, "GET /v1/items/7?u64=18446744073709551616", "", `400 query: "u64"`},
	{jsonNum, "GET /v1/items/7?f32=1e39", "", `400 query: "f32"`},
	{jsonNum, "GET /v1/items/7?f32=-Infinity&f64=-0.5", "", `Get {"id":"7","f32":"-Infinity","f64":-0.5}`},
	{jsonText, "GET /v1/items/7?raw=AQID", "", `Get {"id":"7","raw":"AQID"}`},
	{jsonText, "GET /v1/items/7?raw=%2B%2B%2B%2B", "", `Get {"id":"7","raw":"++++"}`},
	{jsonText, "GET /v1/items/7?raw=++++", "", `400 query: "raw"`},
	{jsonEnum, "GET /v1/items/7?color=BLUE", "", `Get {"id":"7","color":"BLUE"}`},
	{jsonEnum, "GET /v1/items/7?color=-1", "", `Get {"id":"7","color":-1}`},
	{jsonEnum, "GET /v1/items/7?color=null", "", `400 query: "color"`},
	{jsonEnum, "GET /v1/items/7?color=", "", `400 query: "color"`},
	{jsonEnum, "GET /v1/items/7?color=2147483648", "", `400 query: "color"`},
	{repeated, "GET /v1/items/7?tags=a&tags=b&tags=a", "", `Get {"id":"7","tags":["a","b","a"]}`},
	{repeated, "GET /v1/items/7?tags=a,b", "", `Get {"id":"7","tags":["a,b"]}`},
	{repeated, "GET /v1/items/7?tags=", "", `Get {"id":"7","tags":[""]}`},
	{repeated, "GET /v1/items/7?nums=1&nums=2", "", `Get {"id":"7","nums":[1,2]}`},
	{repeated, "GET /v1/items/7?nums=1&nums=x", "", `400 query: "nums"`},
	{repeated, "GET /v1/items/7?nums=1,2", "", `400 query: "nums"`},
	{repeated, "GET /v1/items/7?colors=RED&colors=5", "", `Get {"id":"7","colors":["RED","BLUE"]}`},
	{repeated, "GET /v1/items/7?tags[]=a", "", `400 query: "tags[]"`},
	{nested, "GET /v1/items/7?inner.name=x&inner.inner.n=3", "", `Get {"id":"7","inner":{"name":"x","inner":{"n":3}}}`},
	{nested, "GET /v1/items/7?inner.tags=a&inner.tags=b", "", `Get {"id":"7","inner":{"tags":["a","b"]}}`},
	{nested, "GET /v1/items/7?inner.nope=1", "", `400 query: "inner.nope"`},
	{nested, "GET /v1/items/7?inner.=1", "", `400 query: "inner."`},
	{nested, "GET /v1/items/7?.id=1", "", `400 query: ".id"`},
	{nested, "GET /v1/items/7?id.x=1", "", `400 query: "id.x"`},
	{nested, "GET /v1/items/7?inner=x", "", `400 query: "inner"`},
	{nested, "GET /v1/items/7?inner[name]=x", "", `400 query: "inner[name]"`},
	{own, "GET /v1/items/7?" + strings.Repeat("inner.", 64) + "n=1", "", `400 query: `},
	{noMessage, "GET /v1/items/7?inners.name=x", "", `400 query: "inners.name"`},
	{noMessage, "GET /v1/items/7?inners=x", "", `400 query: "inners"`},
	{noMessage, "GET /v1/items/7?labels=x", "", `400 query: "labels"`},
	{noMessage, "GET /v1/items/7?labels.a=x", "", `400 query: "labels.a"`},
	{noMessage, "GET /v1/items/7?labels[a]=x", "", `400 query: "labels[a]"`},
	{jsonOne, "GET /v1/items/7?pick_s=a", "", `Get {"id":"7","pickS":"a"}`},
	{jsonOne, "GET /v1/items/7?pick_s=", "", `Get {"id":"7","pickS":""}`},
	{jsonOne, "GET /v1/items/7?pick_s=a&pick_i=1", "", `400 query: "pick_i"`},
	{jsonOne, "GET /v1/items/7?pick_i=0&pick_s=a", "", `400 query: "pick_s"`},
	{jsonOne, "GET /v1/items/7?pick_m.name=x&pick_i=1", "", `400 query: "pick_i"`},
	{jsonOne, "GET /v1/items/7?pick_i=1&pick_m.name=x", "", `400 query: "pick_m.name"`},
	{jsonOne, "GET /v1/items/7?pick_m.name=x&pick_m.n=1", "", `Get {"id":"7","pickM":{"name":"x","n":1}}`},
	{jsonOne, "GET /v1/pick/x?pick_i=5", "", `400 query: "pick_i"`},
	{jsonOne, "GET /v1/pick/x?pickM.name=5", "", `400 query: "pickM.name"`},
	{jsonOne, "GET /v1/inpick/x?inner.b=5", "", `400 query: "inner.b"`},
	{jsonOne, "GET /v1/items/7?count=0", "", `Get {"id":"7","count":0}`},
	{jsonKnown, "GET /v1/items/7?ts=2024-01-01T00:00:00.5Z", "", `Get {"id":"7","ts":"2024-01-01T00:00:00.500Z"}`},
	{jsonKnown, "GET /v1/items/7?ts=2024-01-01T02:00:00%2B02:00", "", `Get {"id":"7","ts":"2024-01-01T00:00:00Z"}`},
	{jsonKnown, "GET /v1/items/7?ts=2024-01-01T02:00:00+02:00", "", `400 query: "ts"`},
	{jsonKnown, "GET /v1/items/7?ts=2024-01-01T00:00:00,5Z", "", `400 query: "ts"`},
	{jsonKnown, "GET /v1/items/7?ts=2024-02-30T00:00:00Z", "", `400 query: "ts"`},
	{jsonKnown, "GET /v1/items/7?ts=2024-01-01T00:00:00.1234567891Z", "", `400 query: "ts"`},
	{jsonKnown, "GET /v1/items/7?ts=202", "", `400 query: "ts": "202": write a time`},
	{jsonKnown, "GET /v1/items/7?ts=", "", `400 query: "ts"`},
	{jsonKnown, "GET /v1/items/7?ts=null", "", `400 query: "ts"`},
	{jsonKnown, "GET /v1/items/7?ts=%222024-01-01T00:00:00Z%22", "", `400 query: "ts"`},
	{own, "GET /v1/items/7?ts.seconds=5", "", `400 query: "ts.seconds"`},
	{jsonKnown, "GET /v1/items/7?dur=1.5s", "", `Get {"id":"7","dur":"1.5s"}`},
	{jsonKnown, "GET /v1/items/7?dur=-3s", "", `Get {"id":"7","dur":"-3s"}`},
	{jsonKnown, "GET /v1/items/7?dur=1.5", "", `400 query: "dur"`},
	{jsonKnown, "GET /v1/items/7?dur=1m", "", `400 query: "dur"`},
	{jsonKnown, "GET /v1/items/7?dur=315576000001s", "", `400 query: "dur"`},
	{jsonKnown, "GET /v1/items/7?mask=userId,inner.name", "", `Get {"id":"7","mask":"userId,inner.name"}`},
	{own, "GET /v1/items/7?mask=user_id,inner.name", "", `Get {"id":"7","mask":"userId,inner.name"}`},
	{own, "GET /v1/items/7?mask=user_idName", "", `400 query: "mask"`},
	{jsonKnown, "GET /v1/items/7?mask=", "", `Get {"id":"7","mask":""}`},
	{jsonKnown, "GET /v1/items/7?mask=a,,b", "", `400 query: "mask"`},
	{jsonKnown, "GET /v1/items/7?mask=a,+b", "", `400 query: "mask"`},
	{jsonKnown, "GET /v1/items/7?mask=*", "", `400 query: "mask"`},
	{jsonKnown, "GET /v1/items/7?ws=", "", `Get {"id":"7","ws":""}`},
	{jsonKnown, "GET /v1/items/7?ws=%22x%22", "", `Get {"id":"7","ws":"\"x\""}`},
	{jsonKnown, "GET /v1/items/7?ws=a%7Fb%01", "", `Get {"id":"7","ws":"a\u007fb\u0001"}`},
	{jsonKnown, "GET /v1/items/7?ws=null", "", `Get {"id":"7","ws":"null"}`},
	{jsonKnown, "GET /v1/items/7?wi=5&wb=false&wd=1.5&wr=AQID", "", `Get {"id":"7","wi":"5","wb":false,"wd":1.5,"wr":"AQID"}`},
	{jsonKnown, "GET /v1/items/7?wi=%225%22", "", `400 query: "wi"`},
	{jsonKnown, "GET /v1/items/7?wi=null", "", `400 query: "wi"`},
	{own, "GET /v1/items/7?ws.value=x", "", `400 query: "ws.value"`},
	{own, "GET /v1/items/7?times=2024-01-01T00:00:00Z&times=2025-01-01T00:00:00Z", "", `Get {"id":"7","times":["2024-01-01T00:00:00Z","2025-01-01T00:00:00Z"]}`},
	{own, "GET /v1/items/7?texts=a&texts=", "", `Get {"id":"7","texts":["a",""]}`},
	{own, "GET /v1/items/7?val=1", "", `400 query: "val"`},
	{own, "GET /v1/items/7?val.string_value=x", "", `400 query: "val.string_value"`},
	{own, "GET /v1/items/7?obj=%7B%7D", "", `400 query: "obj"`},
	{own, "GET /v1/items/7?list=x", "", `400 query: "list"`},
	{own, "GET /v1/items/7?any=x", "", `400 query: "any"`},
	{own, "GET /v1/items/7?any.type_url=x", "", `400 query: "any.type_url"`},
	{nested, "GET /v1/items/7?empty=", "", `400 query: "empty"`},
	{jsonEnum, "GET /v1/items/7?nothing=NULL_VALUE", "", `Get {"id":"7"}`},
	{nested, "GET /v1/items/7?file.content_type=x", "", `Get {"id":"7","file":{"contentType":"x"}}`},
	// Whole bodies.
	{bodyStar, "POST /v1/items/7", `{"userId":"x"}`, `Whole {"id":"7","userId":"x"}`},
	{bodyStar, "POST /v1/items/7", ``, `Whole {"id":"7"}`},
	{bodyStar, "POST /v1/items/7", ` `, `Whole {"id":"7"}`},
	{bodyStar, "POST /v1/items/7?user_id=x", `{}`, `400 query: "user_id"`},
	{bodyStar, "POST /v1/items/7?nope=x", `{}`, `400 query: "nope"`},
	{bodyStar, "POST /v1/items/7?id=7", `{}`, `400 query: "id"`},
	{bodyStar, "POST /v1/items/7?", `{}`, `Whole {"id":"7"}`},
	{own, "POST /v1/items/7", `{"id":"7"}`, `Whole {"id":"7"}`},
	{own, "POST /v1/items/7", `{"id":""}`, `Whole {"id":"7"}`},
	{own, "POST /v1/items/7", `{"id":"8"}`, `400 body: "id"`},
	{own, "PUT /v1/inner/x", `{"inner":{"name":"x","n":1}}`, `Whole {"inner":{"name":"x","n":1}}`},
	{own, "PUT /v1/inner/x", `{"inner":{"name":"y"}}`, `400 body: "inner.name"`},
	{own, "PUT /v1/maybe/x", `{"maybe":""}`, `400 body: "maybe"`},
	{own, "PUT /v1/at/2024-01-01T00:00:00Z", `{"ts":"2024-01-01T01:00:00+01:00"}`, `Whole {"ts":"2024-01-01T00:00:00Z"}`},
	{own, "PUT /v1/at/2024-01-01T00:00:00Z", `{"ts":"2024-01-01T00:00:01Z"}`, `400 body: "ts"`},
	{jsonOne, "PUT /v1/pick/x", `{"pickI":5}`, `400 body: "pick_i"`},
	{jsonOne, "PUT /v1/pick/x", `{"pickS":"x"}`, `Whole {"pickS":"x"}`},
	{jsonOne, "POST /v1/items/7", `{"pickI":5,"pickS":"x"}`, `400 body: `},
	{jsonNames, "POST /v1/items/7", `{"user_id":"x"}`, `Whole {"id":"7","userId":"x"}`},
	{jsonNames, "POST /v1/items/7", `{"user_id":"x","userId":"x"}`, `400 body: `},
	{params, "POST /v1/items/7", `{"nope":1}`, `400 body: `},
	{jsonNull, "POST /v1/items/7", `{"userId":null,"ts":null,"tags":null}`, `Whole {"id":"7"}`},
	{jsonNull, "POST /v1/items/7", `null`, `400 body: `},
	{bodyStar, "POST /v1/items/7", `[]`, `400 body: `},
	{bodyStar, "POST /v1/items/7", `{} {}`, `400 body: `},
	{bodyStar, "POST /v1/items/7", `{`, `400 body: `},
	{jsonNum, "POST /v1/items/7", `{"i32":"5","i64":5}`, `Whole {"id":"7","i32":5,"i64":"5"}`},
	{jsonNum, "POST /v1/items/7", `{"i32":1.5}`, `400 body: `},
	{jsonText, "POST /v1/items/7", "{\"userId\":\"\xff\"}", `400 body: `},
	// Bodies that are one field.
	{bodyField, "PATCH /v1/items/7", `{"name":"x"}`, `Field {"id":"7","inner":{"name":"x"}}`},
	{bodyField, "PATCH /v1/items/7?user_id=u", `{"name":"x"}`, `Field {"id":"7","userId":"u","inner":{"name":"x"}}`},
	{bodyField, "PATCH /v1/items/7?inner.name=y", `{"name":"x"}`, `400 query: "inner.name"`},
	{bodyField, "PATCH /v1/items/7?inner.n=1", ``, `400 query: "inner.n"`},
	{bodyField, "PATCH /v1/items/7", ``, `Field {"id":"7"}`},
	{bodyField, "PATCH /v1/items/7", `{}`, `Field {"id":"7","inner":{}}`},
	{jsonNull, "PATCH /v1/items/7", `null`, `Field {"id":"7"}`},
	{bodyField, "PATCH /v1/items/7", `{"id":"x"}`, `400 body: "inner"`},
	{bodyField, "PATCH /v1/items/7", `{}},"userId":{"x":1`, `400 body: "inner"`},
	{own, "PATCH /v1/in/x", `{"n":1}`, `Field {"inner":{"name":"x","n":1}}`},
	{own, "PATCH /v1/in/x", `{"name":"y"}`, `400 body: "inner.name"`},
	{bodyField, "POST /v1/body/user_id", `"x"`, `Field {"userId":"x"}`},
	{bodyField, "POST /v1/body/user_id", ``, `Field {}`},
	{bodyField, "POST /v1/body/user_id", `x`, `400 body: "user_id"`},
	{bodyField, "POST /v1/body/user_id", `"x","i32":5`, `400 body: "user_id"`},
	{bodyField, "POST /v1/body/user_id", `"x"}`, `400 body: "user_id"`},
	{bodyField, "POST /v1/body/user_id", `"x" "y"`, `400 body: "user_id"`},
	{bodyField, "POST /v1/body/user_id", `5`, `400 body: "user_id"`},
	{bodyField, "POST /v1/body/user_id?user_id=y", `"x"`, `400 query: "user_id"`},
	{bodyField, "POST /v1/body/user_id?userId=y", ``, `400 query: "userId"`},
	{jsonNull, "POST /v1/body/user_id", `null`, `Field {}`},
	{bodyField, "POST /v1/body/i32", ` 5 `, `Field {"i32":5}`},
	{bodyField, "POST /v1/body/tags", `["a","b"]`, `Field {"tags":["a","b"]}`},
	{bodyField, "POST /v1/body/tags", `[]`, `Field {}`},
	{bodyField, "POST /v1/body/tags", `"a"`, `400 body: "tags"`},
	{bodyField, "POST /v1/body/tags?tags=c", `["a"]`, `400 query: "tags"`},
	{jsonNull, "POST /v1/body/tags", `[null]`, `400 body: "tags"`},
	{bodyField, "POST /v1/body/inners", `[{"name":"x"},{}]`, `Field {"inners":[{"name":"x"},{}]}`},
	{bodyField, "POST /v1/body/labels", `{"a":"b"}`, `Field {"labels":{"a":"b"}}`},
	{bodyField, "POST /v1/body/labels", `{"a":"b","a":"c"}`, `400 body: "labels"`},
	{bodyField, "POST /v1/body/ts", `"2024-01-01T00:00:00Z"`, `Field {"ts":"2024-01-01T00:00:00Z"}`},
	{bodyField, "POST /v1/body/ts", ``, `Field {}`},
	{jsonNull, "POST /v1/body/ts", ` null`, `Field {}`},
	{bodyField, "POST /v1/body/ts?ts=2023-01-01T00:00:00Z", `"2024-01-01T00:00:00Z"`, `400 query: "ts"`},
	{jsonNull, "POST /v1/body/val", `null`, `Field {"val":null}`},
	{bodyField, "POST /v1/body/val", ``, `Field {}`},
	{bodyField, "POST /v1/body/val", `{"a":[1]}`, `Field {"val":{"a":[1]}}`},
	{bodyField, "POST /v1/body/ws", `""`, `Field {"ws":""}`},
	{jsonEnum, "POST /v1/body/color", `"BLUE"`, `Field {"color":"BLUE"}`},
	{jsonEnum, "POST /v1/body/color", `5`, `Field {"color":"BLUE"}`},
	{jsonEnum, "POST /v1/body/color", `"blue"`, `400 body: "color"`},
	{jsonOne, "POST /v1/body/pick_s?pick_i=1", `"x"`, `400 query: "pick_i"`},
	{jsonOne, "POST /v1/body/pick_s?pick_i=1", ``, `Field {"pickI":1}`},
	{jsonKnown, "POST /v1/body/mask", `"userId"`, `Field {"mask":"userId"}`},
	{jsonKnown, "POST /v1/body/mask", `"user_id"`, `400 body: "mask"`},
	{bodyField, "POST /v1/body/file", `any text`, `Field {"file":{"contentType":"text/csv","data":"YW55IHRleHQ="}}`},
	// No bodies.
	{bodyNone, "GET /v1/items/7", `{"userId":"x"}`, `400 body: `},
	{bodyNone, "DELETE /v1/items/7", `x`, `400 body: `},
	{bodyNone, "DELETE /v1/items/7", `null`, `400 body: `},
	{bodyNone, "POST /v1/files/a:undo", `{"id":"a"}`, `400 body: `},
	{own, "GET /v1/items/7", `{}`, `Get {"id":"7"}`},
	{own, "DELETE /v1/items/7", " { \n } ", `Custom {"id":"7"}`},
	{own, "POST /v1/files/a:undo", ` `, `Verb {"id":"a"}`},
}

func TestTable(t *testing.T) {
	if len(table) < 200 {
		t.Fatalf("the table has %d rows", len(table))
	}
	service := compileSchema(t, schema)
	router := routerOf(t, service)
	input := service.Methods().Get(0).Input()
	for i, r := range table {
		t.Run(fmt.Sprintf("%d %s", i, strings.TrimSpace(r.request)), func(t *testing.T) {
			got := bindRow(router, r)
			name, text, _ := strings.Cut(r.want, " ")
			if !strings.HasPrefix(text, "{") {
				if !strings.HasPrefix(got.said, r.want) || name != "400" && got.said != r.want {
					t.Errorf("%s\n%q: %s, want %s", r.section, r.body, got, r.want)
				}
				return
			}
			want := dynamicpb.NewMessage(input)
			if err := protojson.Unmarshal([]byte(text), want); err != nil {
				t.Fatal(err)
			}
			if got.msg == nil || got.said != name || !proto.Equal(got.msg.Interface(), want) {
				t.Errorf("%s\n%q: %s, want %s", r.section, r.body, got, r.want)
			}
		})
	}
}

// bound is what became of a request: a method and its message, or a status and a reason.
type bound struct {
	said string
	msg  protoreflect.Message
}

func (b bound) String() string {
	if b.msg == nil {
		return b.said
	}
	return fmt.Sprintf("%s %v", b.said, b.msg.Interface())
}

func bindRow(router *httprule.Router, r row) bound {
	method, target, _ := strings.Cut(r.request, " ")
	path, query, _ := strings.Cut(target, "?")
	return bind(router, method, path, query, []byte(r.body))
}

// bind binds a request as the gateway does.
func bind(router *httprule.Router, method, path, query string, body []byte) bound {
	refused := func(err error) bound {
		if _, isError := errors.AsType[*httprule.Error](err); !isError {
			return bound{said: fmt.Sprintf("an error that is no *Error: %v", err)}
		}
		return bound{said: "400 " + err.Error()}
	}
	match, allowed, err := router.Match(method, path)
	switch {
	case err != nil:
		return refused(err)
	case match.Rule == nil && len(allowed) == 0:
		return bound{said: "404"}
	case match.Rule == nil:
		return bound{said: "405 " + strings.Join(allowed, ", ")}
	}
	msg, err := match.Bind(query, "text/csv", body)
	if err != nil {
		return refused(err)
	}
	return bound{said: string(match.Method.Name()), msg: msg}
}

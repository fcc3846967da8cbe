// Package httprule maps HTTP requests to messages, and replies to JSON, by google.api.http rules,
// as the comments of google/api/http.proto and the JSON mapping of protobuf describe it. It has one
// router and one binding, and depends on nothing but descriptors.
//
// # Which rule serves a request
//
// A path is split at its slashes before it is decoded. An empty segment matches nothing, so that
// /v1/carts/ is not /v1/carts/{id} with an empty id. Segment by segment, from the left, a literal
// comes before *, and * before **, among the rules that serve the HTTP method; at the same place a
// rule of the method comes before one of any method (custom kind "*"). HEAD is served by a rule of
// its own or by the GET rule. If rules match the path, but none has the method, the request is
// refused with the methods that are served. Two rules with the same method, segments and verb are
// refused when the router is made.
//
// A raw colon in the last segment begins a verb if a rule with this verb matches the path before
// it, of whichever HTTP method; otherwise the colon is part of the segment. An encoded colon (%3A)
// is always part of the segment.
//
// # Which place binds a field
//
// A field is bound by the path, by the body, or by the query, and never by two of them:
//
//   - A variable of one segment is decoded whole; in one of several segments %2F stays as it is.
//   - With body "*" every other field is in the body, and a query is refused. With body "f" the
//     body is the JSON of the field f. Without body, a body may be blank or {}.
//   - All other fields may be query parameters, with the names of the proto file or of JSON. Fields
//     of messages are written as a.b; repeated fields are given several times.
//   - A body may repeat what the path says, and may not contradict it.
//
// What cannot be bound exactly is an Error with the place and the field: unknown parameters, a
// field given twice, under two names or beside another member of its oneof, and text that is not a
// value of the field's type. Text is not JSON: quotes belong to strings, and null or blanks around
// a number are refused.
//
// # Text of values
//
// Numbers are as in JSON, without quotes; bool is true or false; enums are names or numbers; bytes
// are base64 of either alphabet; Timestamp, Duration and the wrappers are as in JSON, without
// quotes; paths of a FieldMask are in lowerCamelCase or snake_case. Other messages, maps, and
// fields inside of messages that have a JSON form of their own, are no parameters.
package httprule

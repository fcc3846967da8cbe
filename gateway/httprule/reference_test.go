package httprule_test

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// reference binds requests slowly and in another way: it matches regular expressions, tries all
// rules, and puts path, query and body together as one JSON document, which protojson decodes.
type reference struct{ rules []refRule }

type refRule struct {
	method    protoreflect.MethodDescriptor
	http      string
	verb      string
	rank      []int // 0 literal, 1 *, 2 **, and -1 at the end
	pattern   *regexp.Regexp
	variables []string
	multi     []bool
	body      string
}

func newReference(service protoreflect.ServiceDescriptor) *reference {
	ref := &reference{}
	for i := range service.Methods().Len() {
		m := service.Methods().Get(i)
		rule, _ := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
		for _, r := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
			ref.rules = append(ref.rules, newRefRule(m, r))
		}
	}
	return ref
}

var refVariable = regexp.MustCompile(`\{([a-z0-9_.]+)(?:=([^}]*))?\}`)

func newRefRule(m protoreflect.MethodDescriptor, rule *annotations.HttpRule) refRule {
	r := refRule{method: m, body: rule.GetBody()}
	path := ""
	for name, text := range map[string]string{
		"GET": rule.GetGet(), "PUT": rule.GetPut(), "POST": rule.GetPost(), "DELETE": rule.GetDelete(),
		"PATCH": rule.GetPatch(), rule.GetCustom().GetKind(): rule.GetCustom().GetPath(),
	} {
		if text != "" {
			r.http, path = name, text
		}
	}
	if colon := strings.LastIndex(path, ":"); colon > strings.LastIndex(path, "/") {
		path, r.verb = path[:colon], path[colon+1:]
	}
	plain := refVariable.ReplaceAllStringFunc(path, func(v string) string {
		match := refVariable.FindStringSubmatch(v)
		pattern := cmp.Or(match[2], "*")
		r.variables = append(r.variables, match[1])
		r.multi = append(r.multi, pattern == "**" || strings.Contains(pattern, "/"))
		return "(" + pattern + ")"
	})
	for _, s := range strings.Split(strings.NewReplacer("(", "", ")", "").Replace(plain), "/")[1:] {
		r.rank = append(r.rank, map[string]int{"*": 1, "**": 2}[s])
	}
	r.rank = append(r.rank, -1)
	// A ** takes the slash before it along, since it may be nothing.
	const segment, anything = `[^/]+`, `(?:/[^/]+)*`
	pattern := strings.NewReplacer(`/(**)`, "("+anything+")", `/**`, anything, `*`, segment).Replace(plain)
	r.pattern = regexp.MustCompile(`^(?s:` + pattern + `)$`)
	return r
}

// decodeLetters spells literals in one way, as the patterns have them: letters are not encoded.
func decodeLetters(path string) string {
	return regexp.MustCompile(`%[46][1-9A-Fa-f]|%[57][0-9Aa]|%5[fF]`).ReplaceAllStringFunc(path, func(s string) string {
		decoded, err := url.PathUnescape(s)
		if err != nil || !regexp.MustCompile(`^[a-zA-Z_]$`).MatchString(decoded) {
			return s
		}
		return decoded
	})
}

var errRefused = errors.New("refused")

// bind returns the status and, if it is 200, the method and the message.
func (ref *reference) bind(method, path, query string, body []byte) bound {
	for s := range strings.SplitSeq(path, "/") {
		if _, err := url.PathUnescape(s); err != nil {
			return bound{said: "400"}
		}
	}
	path = decodeLetters(path)
	type candidate struct {
		rule refRule
		path string
	}
	var found []candidate
	try := func(path, verb string) {
		for _, r := range ref.rules {
			if r.verb == verb && r.pattern.MatchString(path) {
				found = append(found, candidate{r, path})
			}
		}
	}
	if colon := strings.LastIndex(path, ":"); colon > strings.LastIndex(path, "/")+1 && colon < len(path)-1 {
		verb, err := url.PathUnescape(path[colon+1:])
		if err != nil {
			return bound{said: "400"}
		}
		try(path[:colon], verb)
	}
	if len(found) == 0 {
		try(path, "")
	}
	if len(found) == 0 {
		return bound{said: "404"}
	}
	served := map[string]bool{}
	preference := []string{method, "*"}
	if method == "HEAD" {
		preference = []string{"HEAD", "GET", "*"}
	}
	var best *candidate
	order := func(c *candidate) []int {
		return append(slices.Clone(c.rule.rank), slices.Index(preference, c.rule.http))
	}
	for i := range found {
		c := &found[i]
		served[c.rule.http] = true
		if slices.Contains(preference, c.rule.http) && (best == nil || slices.Compare(order(c), order(best)) < 0) {
			best = c
		}
	}
	if served["GET"] {
		served["HEAD"] = true
	}
	if best == nil {
		return bound{said: "405 " + strings.Join(slices.Sorted(maps.Keys(served)), ", ")}
	}
	msg, err := best.rule.message(best.path, query, body)
	if err != nil {
		return bound{said: "400"}
	}
	return bound{said: string(best.rule.method.Name()), msg: msg}
}

// document is a JSON document in the making, and what cannot be said in JSON.
type document struct {
	tree  map[string]any
	masks map[string][]string // by the name of the field
	input protoreflect.MessageDescriptor
}

func (r refRule) message(path, query string, body []byte) (protoreflect.Message, error) {
	input := r.method.Input()
	d := &document{tree: map[string]any{}, masks: map[string][]string{}, input: input}
	if err := r.fromBody(d, body); err != nil {
		return nil, err
	}
	fromPath := map[string]bool{}
	for i, text := range r.pattern.FindStringSubmatch(path)[1:] {
		text = strings.TrimPrefix(text, "/")
		value, err := url.PathUnescape(text)
		if r.multi[i] {
			value = ""
			for j, part := range regexp.MustCompile(`%2[fF]`).Split(text, -1) {
				if j > 0 {
					value += regexp.MustCompile(`%2[fF]`).FindAllString(text, -1)[j-1]
				}
				decoded, partErr := url.PathUnescape(part)
				err = errors.Join(err, partErr)
				value += decoded
			}
		}
		if err != nil {
			return nil, err
		}
		names, fd, err := resolve(input, r.variables[i])
		if err != nil {
			return nil, err
		}
		fromPath[strings.Join(names, ".")] = true
		if err := d.put(names, fd, value, true); err != nil {
			return nil, err
		}
	}
	if err := r.fromQuery(d, query, fromPath); err != nil {
		return nil, err
	}
	return d.decode()
}

func (r refRule) fromBody(d *document, body []byte) error {
	text := strings.Trim(string(body), " \t\r\n")
	switch {
	case r.body == "":
		var empty struct{}
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.DisallowUnknownFields()
		if text != "" && (text[0] != '{' || decoder.Decode(&empty) != nil || decoder.More() ||
			strings.Trim(text[1:len(text)-1], " \t\r\n") != "") {
			return errRefused
		}
		return nil
	case r.body == "file":
		d.tree["file"] = map[string]any{"contentType": "text/csv", "data": base64.StdEncoding.EncodeToString(body)}
		return nil
	case text == "":
		return nil
	}
	if r.body != "*" {
		if !json.Valid(body) {
			return errRefused
		}
		text = `{"` + d.input.Fields().ByName(protoreflect.Name(r.body)).JSONName() + `":` + text + `}`
	}
	msg := dynamicpb.NewMessage(d.input)
	if err := (protojson.UnmarshalOptions{RecursionLimit: 64}).Unmarshal([]byte(text), msg); err != nil {
		return err
	}
	printed, err := protojson.Marshal(msg)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(printed))
	decoder.UseNumber()
	return decoder.Decode(&d.tree)
}

func (r refRule) fromQuery(d *document, query string, fromPath map[string]bool) error {
	spelt := map[string]string{}
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		key, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(key)
		text, err2 := url.QueryUnescape(value)
		if err != nil || err2 != nil || strings.Contains(pair, ";") || r.body == "*" {
			return errRefused
		}
		names, fd, err := resolve(d.input, name)
		if err != nil {
			return err
		}
		path := strings.Join(names, ".")
		bodyName := ""
		if r.body != "" {
			bodyName = d.input.Fields().ByName(protoreflect.Name(r.body)).JSONName()
		}
		if before, again := spelt[path]; again && (before != name || !fd.IsList()) || fromPath[path] || names[0] == bodyName {
			return errRefused
		}
		spelt[path] = name
		if err := d.put(names, fd, text, false); err != nil {
			return err
		}
	}
	return nil
}

// resolve returns the names of a field path in JSON, and its last field.
func resolve(md protoreflect.MessageDescriptor, path string) ([]string, protoreflect.FieldDescriptor, error) {
	var names []string
	parts := strings.Split(path, ".")
	if len(parts) > 64 {
		return nil, nil, errRefused
	}
	for i, part := range parts {
		var fd protoreflect.FieldDescriptor
		for j := range md.Fields().Len() {
			if f := md.Fields().Get(j); f.JSONName() == part || fd == nil && string(f.Name()) == part {
				fd = f
			}
		}
		if fd == nil {
			return nil, nil, errRefused
		}
		names = append(names, fd.JSONName())
		if i == len(parts)-1 {
			return names, fd, nil
		}
		own := fd.Message() != nil && strings.HasPrefix(string(fd.Message().FullName()), "google.protobuf.") &&
			fd.Message().Name() != "Empty"
		if fd.Message() == nil || fd.IsList() || fd.IsMap() || own {
			return nil, nil, errRefused
		}
		md = fd.Message()
	}
	return nil, nil, errRefused
}

// put puts a text into the document. repeats: it may be there already, if it is the same.
func (d *document) put(names []string, fd protoreflect.FieldDescriptor, text string, repeats bool) error {
	if fd.IsMap() {
		return errRefused
	}
	if fd.Message() != nil && fd.Message().Name() == "FieldMask" {
		return d.putMask(names[0], text)
	}
	value, err := jsonValue(fd, text)
	if err != nil {
		return err
	}
	at := d.tree
	for _, name := range names[:len(names)-1] {
		if at[name] == nil {
			at[name] = map[string]any{}
		}
		at, _ = at[name].(map[string]any)
	}
	last := names[len(names)-1]
	switch before, there := at[last]; {
	case fd.IsList():
		list, _ := before.([]any)
		at[last] = append(list, value)
	case there && !repeats:
		return errRefused
	case there && !sameJSON(fd, before, value):
		return errRefused
	default:
		at[last] = value
	}
	return nil
}

// sameJSON compares two JSON values of a field as the messages that they make.
func sameJSON(fd protoreflect.FieldDescriptor, a, b any) bool {
	var messages [2]*dynamicpb.Message
	for i, v := range []any{a, b} {
		messages[i] = dynamicpb.NewMessage(fd.ContainingMessage())
		text, err := json.Marshal(map[string]any{fd.JSONName(): v})
		if err != nil || protojson.Unmarshal(text, messages[i]) != nil {
			return false
		}
	}
	return proto.Equal(messages[0], messages[1])
}

func (d *document) putMask(name, text string) error {
	d.masks[name] = []string{}
	if text == "" {
		return nil
	}
	for path := range strings.SplitSeq(text, ",") {
		for part := range strings.SplitSeq(path, ".") {
			camel := regexp.MustCompile(`^[a-z][a-zA-Z0-9]*$`).MatchString(part)
			snake := regexp.MustCompile(`^[a-z][a-z0-9_]*$`).MatchString(part)
			if !camel && !snake {
				return errRefused
			}
		}
		path = regexp.MustCompile(`[A-Z]`).ReplaceAllStringFunc(path, func(s string) string {
			return "_" + strings.ToLower(s)
		})
		d.masks[name] = append(d.masks[name], path)
	}
	return nil
}

func (d *document) decode() (protoreflect.Message, error) {
	text, err := json.Marshal(d.tree)
	if err != nil {
		return nil, err
	}
	msg := dynamicpb.NewMessage(d.input)
	if err := protojson.Unmarshal(text, msg); err != nil {
		return nil, err
	}
	for name, paths := range d.masks {
		mask := msg.Mutable(d.input.Fields().ByJSONName(name)).Message()
		list := mask.Mutable(mask.Descriptor().Fields().ByName("paths")).List()
		for _, path := range paths {
			list.Append(protoreflect.ValueOfString(path))
		}
	}
	return msg, nil
}

var (
	refInteger = regexp.MustCompile(`^-?(0|[1-9]\d*)$`)
	refNumber  = regexp.MustCompile(`^-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?$`)
	refTime    = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[-+]\d{2}:\d{2})$`)
	refBase64  = regexp.MustCompile(`^([A-Za-z0-9+/]*|[A-Za-z0-9_-]*)={0,2}$`)
)

// jsonValue is the JSON of a text.
func jsonValue(fd protoreflect.FieldDescriptor, text string) (any, error) {
	number := func(valid *regexp.Regexp) (any, error) {
		if !valid.MatchString(text) {
			return nil, errRefused
		}
		return json.Number(text), nil
	}
	str := func(valid bool) (any, error) {
		if !valid || !utf8.ValidString(text) {
			return nil, errRefused
		}
		return text, nil
	}
	switch kind := fd.Kind(); kind {
	case protoreflect.BoolKind:
		if text != "true" && text != "false" {
			return nil, errRefused
		}
		return text == "true", nil
	case protoreflect.StringKind:
		return str(true)
	case protoreflect.BytesKind:
		return refBytes(text)
	case protoreflect.EnumKind:
		if fd.Enum().Values().ByName(protoreflect.Name(text)) != nil {
			return text, nil
		}
		return number(refInteger)
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		if text == "NaN" || text == "Infinity" || text == "-Infinity" {
			return text, nil
		}
		return number(refNumber)
	case protoreflect.MessageKind:
		switch name := fd.Message().FullName(); name {
		case "google.protobuf.Timestamp":
			return str(refTime.MatchString(text))
		case "google.protobuf.Duration":
			return str(true)
		default:
			if fd.Message().Fields().Len() != 1 || !strings.HasPrefix(string(name), "google.protobuf.") ||
				!strings.HasSuffix(string(name), "Value") || name == "google.protobuf.ListValue" {
				return nil, errRefused
			}
			return jsonValue(fd.Message().Fields().Get(0), text)
		}
	default:
		return number(refInteger)
	}
}

// refBytes decodes base64 of one alphabet, with nothing but zeros after its end.
func refBytes(text string) (any, error) {
	if !refBase64.MatchString(text) {
		return nil, errRefused
	}
	bare := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
	decoded, err := base64.RawStdEncoding.DecodeString(bare)
	padded := base64.StdEncoding.EncodeToString(decoded)
	if err != nil || strings.TrimRight(padded, "=") != bare || strings.Contains(text, "=") && len(text) != len(padded) {
		return nil, errRefused
	}
	return padded, nil
}

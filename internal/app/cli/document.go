package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// marshalJSON returns v as JSON on one line. A message of the admin service has lowerCamelCase
// names as in protobuf's JSON, but its whole numbers are numbers (see appendNumber), and stored
// messages are JSON, not text. rawJSON is taken as it is, anything else as by encoding/json.
func marshalJSON(v any) ([]byte, error) {
	var text []byte
	switch v := v.(type) {
	case rawJSON:
		text = v
	case proto.Message:
		text = appendMessage(nil, v.ProtoReflect())
	default:
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			return nil, err
		}
		text = b.Bytes()
	}
	text, err := compact(text)
	return visibleJSON(text), err
}

// compact removes white space from JSON; protobuf's own is random.
func compact(b []byte) ([]byte, error) {
	var out bytes.Buffer
	err := json.Compact(&out, b)
	return out.Bytes(), err
}

func indentJSON(b []byte) ([]byte, error) {
	var out bytes.Buffer
	err := json.Indent(&out, b, "", "  ")
	return out.Bytes(), err
}

// visibleJSON escapes hidden runes, which JSON may have only in its strings.
func visibleJSON(b []byte) []byte {
	if !bytes.ContainsFunc(b, hidden) {
		return b
	}
	out := make([]byte, 0, len(b)+16)
	for _, r := range string(b) {
		if hidden(r) {
			out = fmt.Appendf(out, `\u%04x`, r)
		} else {
			out = utf8.AppendRune(out, r)
		}
	}
	return out
}

// appendMessage appends a message of the admin service as JSON. Fields without presence are there
// with their defaults.
func appendMessage(b []byte, m protoreflect.Message) []byte {
	switch v := m.Interface().(type) {
	case *timestamppb.Timestamp:
		return appendText(b, v.AsTime().Format(time.RFC3339Nano))
	case *adminv1.Content:
		return appendStored(b, v)
	}
	b = append(b, '{')
	fields, first := m.Descriptor().Fields(), true
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.HasPresence() && !m.Has(f) {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(appendText(b, f.JSONName()), ':')
		b = appendField(b, f, m.Get(f))
	}
	return append(b, '}')
}

func appendField(b []byte, f protoreflect.FieldDescriptor, v protoreflect.Value) []byte {
	if !f.IsList() {
		return appendValue(b, f, v)
	}
	b = append(b, '[')
	for i := range v.List().Len() {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendValue(b, f, v.List().Get(i))
	}
	return append(b, ']')
}

func appendValue(b []byte, f protoreflect.FieldDescriptor, v protoreflect.Value) []byte {
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return appendMessage(b, v.Message())
	case protoreflect.EnumKind:
		if value := f.Enum().Values().ByNumber(v.Enum()); value != nil {
			return appendText(b, string(value.Name()))
		}
		return strconv.AppendInt(b, int64(v.Enum()), 10)
	case protoreflect.StringKind:
		return appendText(b, v.String())
	case protoreflect.BytesKind:
		return appendText(b, base64.StdEncoding.EncodeToString(v.Bytes()))
	case protoreflect.BoolKind:
		return strconv.AppendBool(b, v.Bool())
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return appendFloat(b, v.Float())
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind, protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return appendNumber(b, v.Uint() <= maxSafe, strconv.FormatUint(v.Uint(), 10))
	default:
		n := v.Int()
		return appendNumber(b, -maxSafe <= n && n <= maxSafe, strconv.FormatInt(n, 10))
	}
}

// maxSafe is the largest whole number that every JSON reader takes exactly.
const maxSafe = 1<<53 - 1

// appendNumber appends a whole number; as text where a reader that knows only doubles would change
// it.
func appendNumber(b []byte, safe bool, digits string) []byte {
	if safe {
		return append(b, digits...)
	}
	return appendText(b, digits)
}

func appendFloat(b []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(b, "null"...)
	}
	return strconv.AppendFloat(b, f, 'g', -1, 64)
}

func appendText(b []byte, text string) []byte {
	var quoted bytes.Buffer
	e := json.NewEncoder(&quoted)
	e.SetEscapeHTML(false)
	_ = e.Encode(text) // a string has a JSON form, and a buffer takes all
	return append(b, trimNewline(quoted.Bytes())...)
}

func trimNewline(b []byte) []byte { return bytes.TrimSuffix(b, []byte("\n")) }

// appendStored appends a stored message: its type, and its content as JSON; one of an unknown type
// as bytes.
func appendStored(b []byte, c *adminv1.Content) []byte {
	b = append(appendText(append(b, `{"typeUrl":`...), c.GetTypeUrl()), ',')
	if json.Valid([]byte(c.GetJson())) {
		return append(append(append(b, `"json":`...), c.GetJson()...), '}')
	}
	return append(appendText(append(b, `"value":`...), base64.StdEncoding.EncodeToString(c.GetValue())), '}')
}

// marshalYAML returns v as YAML: what marshalJSON makes of it, in block style. Texts that could be
// read as anything else, or contain more than letters, are quoted as in JSON.
func marshalYAML(v any) ([]byte, error) {
	var text []byte
	var err error
	if items, is := v.([]any); is {
		text = []byte("[")
		for i, item := range items {
			one, err := marshalJSON(item)
			if err != nil {
				return nil, err
			}
			if i > 0 {
				text = append(text, ',')
			}
			text = append(text, one...)
		}
		text = append(text, ']')
	} else if text, err = marshalJSON(v); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	y := &yaml{from: d}
	if err := y.value(""); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return bytes.TrimLeft(y.out.Bytes(), " \n"), nil
}

// yaml turns tokens of JSON into YAML.
type yaml struct {
	from *json.Decoder
	out  bytes.Buffer
}

// value writes the next value behind a key or a dash, or at the very start. Lines of its own are
// indented.
func (y *yaml) value(indent string) error {
	t, err := y.from.Token()
	if err != nil {
		return err
	}
	switch t := t.(type) {
	case json.Delim:
		if !y.from.More() {
			fmt.Fprintf(&y.out, " %s\n", map[json.Delim]string{'{': "{}", '[': "[]"}[t])
		} else if err := y.items(t == '[', indent); err != nil {
			return err
		}
		_, err = y.from.Token() // the closing one
		return err
	case string:
		fmt.Fprintf(&y.out, " %s\n", yamlText(t))
	case nil:
		y.out.WriteString(" null\n")
	default:
		fmt.Fprintf(&y.out, " %v\n", t)
	}
	return nil
}

// items writes the items of a sequence, or the entries of a mapping.
func (y *yaml) items(sequence bool, indent string) error {
	// The first entry of a mapping in a sequence stands behind the dash.
	first := bytes.HasSuffix(y.out.Bytes(), []byte("-"))
	if !first {
		y.out.WriteByte('\n')
	}
	for y.from.More() {
		if first && !sequence {
			y.out.WriteByte(' ')
		} else {
			if first {
				y.out.WriteByte('\n')
			}
			y.out.WriteString(indent)
		}
		first = false
		if sequence {
			y.out.WriteByte('-')
		} else {
			key, err := y.from.Token()
			if err != nil {
				return err
			}
			text, _ := key.(string)
			y.out.WriteString(yamlText(text) + ":")
		}
		if err := y.value(indent + "  "); err != nil {
			return err
		}
	}
	return nil
}

// plainYAML are texts that need no quotes, but for the words of notYAML.
var (
	plainYAML = regexp.MustCompile(`^[A-Za-z_/][A-Za-z0-9_./-]*$`)
	notYAML   = []string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"} //nolint:gochecknoglobals // a constant table
)

func yamlText(text string) string {
	if plainYAML.MatchString(text) && !slices.Contains(notYAML, strings.ToLower(text)) {
		return text
	}
	return string(visibleJSON(appendText(nil, text)))
}

package httprule

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// jsonForm is how a message is written in JSON that is not written as an object with its fields.
type jsonForm byte

const (
	ordinary  jsonForm = iota // an object with its fields
	otherJSON                 // a form that has no text outside of JSON
	wrapper                   // the text of its only field
	timestamp
	duration
	fieldMask
)

// jsonForms are the messages with a JSON form of their own.
//
//nolint:gochecknoglobals // a constant table
var jsonForms = map[protoreflect.FullName]jsonForm{
	"google.protobuf.Any":         otherJSON,
	"google.protobuf.Struct":      otherJSON,
	"google.protobuf.Value":       otherJSON,
	"google.protobuf.ListValue":   otherJSON,
	"google.protobuf.BoolValue":   wrapper,
	"google.protobuf.Int32Value":  wrapper,
	"google.protobuf.Int64Value":  wrapper,
	"google.protobuf.UInt32Value": wrapper,
	"google.protobuf.UInt64Value": wrapper,
	"google.protobuf.FloatValue":  wrapper,
	"google.protobuf.DoubleValue": wrapper,
	"google.protobuf.StringValue": wrapper,
	"google.protobuf.BytesValue":  wrapper,
	"google.protobuf.Timestamp":   timestamp,
	"google.protobuf.Duration":    duration,
	"google.protobuf.FieldMask":   fieldMask,
}

// hasOwnJSON reports whether a message is not written as an object with its fields.
func hasOwnJSON(md protoreflect.MessageDescriptor) bool { return jsonForms[md.FullName()] != ordinary }

// hasText reports whether a message can be written as one text in a path or query.
func hasText(md protoreflect.MessageDescriptor) bool { return jsonForms[md.FullName()] > otherJSON }

// setText sets a field, or appends to a repeated one, what a path or query says. The error is a
// reason for the caller.
func setText(m protoreflect.Message, fd protoreflect.FieldDescriptor, text string) error {
	if fd.IsList() {
		list := m.Mutable(fd).List()
		v, err := parseText(fd, text, list.NewElement)
		if err == nil {
			list.Append(v)
		}
		return err
	}
	v, err := parseText(fd, text, func() protoreflect.Value { return m.NewField(fd) })
	if err == nil {
		m.Set(fd, v)
	}
	return err
}

// parseText parses one value of a field. empty returns a new message, if the field has messages.
func parseText(fd protoreflect.FieldDescriptor, text string,
	empty func() protoreflect.Value,
) (protoreflect.Value, error) {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		switch text {
		case "true":
			return protoreflect.ValueOfBool(true), nil
		case "false":
			return protoreflect.ValueOfBool(false), nil
		}
		return unreadable(text, "write true or false")
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		n, err := parseInt(text, 32)
		return protoreflect.ValueOfInt32(int32(n)), err //nolint:gosec // ParseInt has checked it
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		n, err := parseInt(text, 64)
		return protoreflect.ValueOfInt64(n), err
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		n, err := parseUint(text, 32)
		return protoreflect.ValueOfUint32(uint32(n)), err //nolint:gosec // ParseUint has checked it
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		n, err := parseUint(text, 64)
		return protoreflect.ValueOfUint64(n), err
	case protoreflect.FloatKind:
		f, err := parseFloat(text, 32)
		return protoreflect.ValueOfFloat32(float32(f)), err
	case protoreflect.DoubleKind:
		f, err := parseFloat(text, 64)
		return protoreflect.ValueOfFloat64(f), err
	case protoreflect.StringKind:
		if !utf8.ValidString(text) {
			return unreadable(text, "it is not UTF-8")
		}
		return protoreflect.ValueOfString(text), nil
	case protoreflect.BytesKind:
		return parseBytes(text)
	case protoreflect.EnumKind:
		return parseEnum(fd.Enum(), text)
	default:
		return parseMessage(fd.Message(), text, empty)
	}
}

// unreadable is the error for a text that is no value of its field.
func unreadable(text, advice string) (protoreflect.Value, error) {
	return protoreflect.Value{}, fmt.Errorf("%s: %s", shown(text), advice)
}

// number is the grammar of JSON's numbers. Text is parsed only in this form: there is one way to
// write a number.
var number = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)

// isPlain reports whether an integer is written as in JSON, without a plus or leading zeros.
func isPlain(text string) bool {
	digits := strings.TrimPrefix(text, "-")
	return digits == "0" || digits != "" && '1' <= digits[0] && digits[0] <= '9'
}

// parseInt parses a signed integer in its only form.
func parseInt(text string, bits int) (int64, error) {
	n, err := strconv.ParseInt(text, 10, bits)
	if err != nil || !isPlain(text) {
		return 0, fmt.Errorf("%s: write an integer of %d bits", shown(text), bits)
	}
	return n, nil
}

// parseUint parses an unsigned integer in its only form. ParseUint takes no sign, so that -0 is
// none.
func parseUint(text string, bits int) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, bits)
	if err != nil || !isPlain(text) {
		return 0, fmt.Errorf("%s: write an integer of %d bits that is not negative", shown(text), bits)
	}
	return n, nil
}

// parseFloat parses a number, and the three values that JSON writes as strings. Numbers beyond the
// range are refused rather than taken for infinity.
func parseFloat(text string, bits int) (float64, error) {
	switch text {
	case "NaN":
		return math.NaN(), nil
	case "Infinity":
		return math.Inf(1), nil
	case "-Infinity":
		return math.Inf(-1), nil
	}
	f, err := strconv.ParseFloat(text, bits)
	if err != nil || !number.MatchString(text) {
		return 0, fmt.Errorf("%s: write a number of %d bits, NaN, Infinity or -Infinity", shown(text), bits)
	}
	return f, nil
}

// parseBytes takes both alphabets of base64, with or without padding.
func parseBytes(text string) (protoreflect.Value, error) {
	encoding := base64.StdEncoding
	if strings.ContainsAny(text, "-_") {
		encoding = base64.URLEncoding
	}
	if !strings.Contains(text, "=") {
		encoding = encoding.WithPadding(base64.NoPadding)
	}
	decoded, err := encoding.Strict().DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") { // which Go's decoder skips
		return unreadable(text, "write base64, with %2B for + in a query")
	}
	return protoreflect.ValueOfBytes(decoded), nil
}

// parseEnum takes names and numbers. An open enum may have values that this descriptor does not
// name, sent by a client with a newer one.
func parseEnum(ed protoreflect.EnumDescriptor, text string) (protoreflect.Value, error) {
	if v := ed.Values().ByName(protoreflect.Name(text)); v != nil {
		return protoreflect.ValueOfEnum(v.Number()), nil
	}
	n, err := parseInt(text, 32)
	if err != nil {
		return unreadable(text, "write the name or the number of a value of "+string(ed.FullName()))
	}
	v := protoreflect.EnumNumber(n) //nolint:gosec // parseInt has checked it
	if ed.IsClosed() && ed.Values().ByNumber(v) == nil {
		return unreadable(text, string(ed.FullName())+" has no value with this number")
	}
	return protoreflect.ValueOfEnum(v), nil
}

// rfc3339 is the form of a Timestamp. Go's parser also takes a comma for the point, and hours of
// one digit.
var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[-+]\d\d:\d\d)$`)

// parseMessage parses the text of a message that has one. Of others the fields are parameters, or
// they need a body.
func parseMessage(md protoreflect.MessageDescriptor, text string,
	empty func() protoreflect.Value,
) (protoreflect.Value, error) {
	form := jsonForms[md.FullName()]
	if form <= otherJSON {
		return protoreflect.Value{}, fmt.Errorf("%s has no text: set its fields, as in a.b=, or use a body", md.FullName())
	}
	v := empty()
	switch form {
	case wrapper:
		return v, setText(v.Message(), md.Fields().ByNumber(1), text)
	case fieldMask:
		return v, setPaths(v.Message(), md.Fields().ByNumber(1), text)
	case timestamp:
		const advice = "write a time as in 2026-01-31T12:00:00Z, with %2B for + in a query"
		if !rfc3339.MatchString(text) {
			return unreadable(text, advice)
		}
		return v, setJSON(v, text, advice)
	default:
		return v, setJSON(v, text, "write a duration in seconds, as in 1.5s")
	}
}

// setJSON sets a message whose JSON is a string, by the parser of JSON, so that a path and a body
// take the same text.
func setJSON(v protoreflect.Value, text, advice string) error {
	if !utf8.ValidString(text) {
		return fmt.Errorf("%s: %s", shown(text), advice)
	}
	quoted, err := json.Marshal(text)
	if err == nil {
		err = protojson.Unmarshal(quoted, v.Message().Interface())
	}
	if err != nil {
		return fmt.Errorf("%s: %s", shown(text), advice)
	}
	return nil
}

// maskSegment is a segment of a FieldMask's path in lowerCamelCase or snake_case. What has both is
// neither.
var maskSegment = regexp.MustCompile(`^([a-z][a-z0-9]*([A-Z][a-z0-9]*)*|[a-z][a-z0-9_]*)$`)

// setPaths sets the paths of a FieldMask.
func setPaths(mask protoreflect.Message, paths protoreflect.FieldDescriptor, text string) error {
	if text == "" {
		return nil
	}
	list := mask.Mutable(paths).List()
	for path := range strings.SplitSeq(text, ",") {
		var snake strings.Builder
		for i, s := range strings.Split(path, ".") {
			if !maskSegment.MatchString(s) {
				return fmt.Errorf("%s: write names of fields with commas between them, as in displayName,address.city",
					shown(text))
			}
			if i > 0 {
				snake.WriteByte('.')
			}
			for _, c := range []byte(s) {
				if 'A' <= c && c <= 'Z' {
					snake.WriteByte('_')
					c += 'a' - 'A'
				}
				snake.WriteByte(c)
			}
		}
		list.Append(protoreflect.ValueOfString(snake.String()))
	}
	return nil
}

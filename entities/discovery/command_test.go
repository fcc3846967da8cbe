package discovery_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

// keysSource has one method for each way to build a key. The file without a syntax line of its own
// is proto3.
const keysSource = `
syntax = "proto3";
package keys;
import "cloudstate/entity_key.proto";
import "cloudstate/legacy_entity_key.proto";
import "old.proto";
service Keys {
  rpc One(Text) returns (Text);
  rpc Parts(PartsKey) returns (Text);
  rpc Every(EveryKey) returns (Text);
  rpc Old(old.Old) returns (Text);
}
message Text {
  string id = 1 [(cloudstate.entity_key) = true];
  Text child = 2;
  repeated int32 numbers = 3;
  map<string, Text> texts = 4;
  repeated fixed64 wide = 5;
  old.Old old = 6;
  bytes raw = 7;
}
// Declared last to first: the order of the declaration counts, not that of the numbers.
message PartsKey {
  string user = 2 [(cloudstate.legacy_entity_key) = true];
  int32 shop = 1 [(cloudstate.entity_key) = true];
}
enum Color { RED = 0; GREEN = 1; }
message EveryKey {
  string s = 1 [(cloudstate.entity_key) = true];
  int32 i32 = 2 [(cloudstate.entity_key) = true];
  int64 i64 = 3 [(cloudstate.entity_key) = true];
  uint32 u32 = 4 [(cloudstate.entity_key) = true];
  uint64 u64 = 5 [(cloudstate.entity_key) = true];
  sint32 s32 = 6 [(cloudstate.entity_key) = true];
  sint64 s64 = 7 [(cloudstate.entity_key) = true];
  fixed32 f32 = 8 [(cloudstate.entity_key) = true];
  fixed64 f64 = 9 [(cloudstate.entity_key) = true];
  sfixed32 sf32 = 10 [(cloudstate.entity_key) = true];
  sfixed64 sf64 = 11 [(cloudstate.entity_key) = true];
  bool b = 12 [(cloudstate.entity_key) = true];
  Color color = 13 [(cloudstate.entity_key) = true];
  optional string o = 14 [(cloudstate.entity_key) = true];
}
`

const oldSource = `
syntax = "proto2";
package old;
import "cloudstate/entity_key.proto";
message Old {
  optional string id = 1 [default = "someone", (cloudstate.entity_key) = true];
  optional sint32 n = 2 [default = -3, (cloudstate.entity_key) = true];
  optional bool b = 5 [default = true, (cloudstate.entity_key) = true];
  optional group Part = 3 { optional string text = 1; optional Old old = 2; }
  repeated sint32 packed = 4 [packed = true];
}
`

func keysCatalog(t testing.TB) *discovery.Catalog {
	t.Helper()
	c, err := discovery.NewCatalog(&cloudstate.EntitySpec{
		Proto:    marshal(t, compile(t, map[string]string{"keys.proto": keysSource, "old.proto": oldSource})),
		Entities: []*cloudstate.Entity{{EntityType: entities.Value.Spec().Protocol, ServiceName: "keys.Keys", PersistenceId: "k"}},
	}, discovery.Options{Settings: discovery.Settings{MaxKey: 200}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func text(field protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, field, protowire.BytesType), value)
}

func number(field protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, field, protowire.VarintType), value)
}

func join(parts ...[]byte) []byte {
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func TestKeys(t *testing.T) {
	c := keysCatalog(t)
	for _, tc := range []struct {
		name, method string
		payload      []byte
		id           string
		reason       entities.Reason
		message      string
	}{
		{"one field", "One", text(1, "c1"), "c1", 0, ""},
		{"the last occurrence wins", "One", join(text(1, "c1"), text(1, "c2")), "c2", 0, ""},
		{"a value of another wire type is another field", "One", join(text(1, "c1"), number(1, 7)), "c1", 0, ""},
		{"fields in the order of their declaration", "Parts", join(number(1, 7), text(2, "anna")), "anna-7", 0, ""},
		{"an unset part is its default", "Parts", text(2, "anna"), "anna-0", 0, ""},
		{"every kind", "Every", nil, "-0-0-0-0-0-0-0-0-0-0-false-RED-", 0, ""},
		{"an unknown enum value", "Every", number(13, 5), "-0-0-0-0-0-0-0-0-0-0-false-5-", 0, ""},
		{"defaults of proto2", "Old", nil, "someone--3-true", 0, ""},
		{"no key", "One", nil, "", entities.InvalidCommand, "/keys.Keys/One: the entity key id of keys.Text is empty: set it"},
		{"an empty key", "One", text(1, ""), "", entities.InvalidCommand, "/keys.Keys/One: the entity key id of keys.Text is empty: set it"},
		{"no text", "One", text(1, "\xff"), "", entities.InvalidCommand, "/keys.Keys/One: the request is not a valid keys.Text: a string is not valid UTF-8"},
		{"no text in proto2", "Old", text(1, "\xff"), "", entities.InvalidCommand, "/keys.Keys/Old: the entity key id of old.Old is not valid UTF-8"},
		{"the longest key", "One", text(1, strings.Repeat("x", 200)), strings.Repeat("x", 200), 0, ""},
		{"a key too long", "One", text(1, strings.Repeat("x", 201)), "", entities.TooLarge, "/keys.Keys/One: the entity key id of keys.Text has 201 bytes, and the limit is 200: use a shorter one"},
		{"parts too long together", "Parts", text(2, strings.Repeat("x", 199)), "", entities.TooLarge, "/keys.Keys/Parts: the entity key user, shop of keys.PartsKey has 201 bytes, and the limit is 200: use a shorter one"},
		{"cut short", "One", text(1, "c1")[:3], "", entities.InvalidCommand, "/keys.Keys/One: the request is not a valid keys.Text: unexpected EOF"},
		{"cut short in the depth", "One", join(text(1, "c1"), text(2, "\x0a\x05c")), "", entities.InvalidCommand, "/keys.Keys/One: the request is not a valid keys.Text: unexpected EOF"},
		{"cut short in a packed run", "One", join(text(1, "c1"), text(3, "\x80")), "", entities.InvalidCommand, "/keys.Keys/One: the request is not a valid keys.Text: unexpected EOF"},
		{"too deep", "One", join(text(1, "c1"), nested(100)), "", entities.InvalidCommand, "/keys.Keys/One: the request is not a valid keys.Text: messages are nested more than 100 deep"},
		{"deep enough", "One", join(text(1, "c1"), nested(99)), "c1", 0, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := c.Method("/keys.Keys/" + tc.method)
			md := entities.Metadata{{Key: "a", Text: "b"}}
			cmd, err := m.Command(tc.payload, md)
			if tc.message != "" {
				e, ok := errors.AsType[*entities.Error](err)
				if !ok || e.Reason != tc.reason || e.Outcome != entities.NotApplied ||
					strings.ReplaceAll(e.Message, "\u00a0", " ") != tc.message {
					t.Fatalf("got %#v, want reason %d and %q", err, tc.reason, tc.message)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if cmd.Key != (entities.Key{Type: "k", ID: tc.id}) || cmd.Service != "keys.Keys" || cmd.Method != tc.method ||
				cmd.Payload.TypeURL != m.InputType || string(cmd.Payload.Value) != string(tc.payload) || cmd.Metadata.Get("a") != "b" {
				t.Errorf("got %+v", cmd)
			}
		})
	}
}

// nested is a field of keys.Text with this many levels of messages in it.
func nested(levels int) []byte {
	var b []byte
	for range levels {
		b = text(2, string(b))
	}
	return b
}

// A function's own payload is passed on as it is, with its own type; the key is found as if it were
// the input's.
func TestRetarget(t *testing.T) {
	m := keysCatalog(t).Method("/keys.Keys/One")
	for _, typeURL := range []string{"", m.InputType, "json.cloudstate.io/thing"} {
		cmd, err := m.Retarget(entities.Target{Payload: entities.Payload{TypeURL: typeURL, Value: text(1, "c1")}})
		if err != nil {
			t.Fatal(err)
		}
		want := typeURL
		if want == "" {
			want = m.InputType
		}
		if cmd.Key.ID != "c1" || cmd.Payload.TypeURL != want {
			t.Errorf("%q: got %+v", typeURL, cmd)
		}
	}
	_, err := m.Retarget(entities.Target{Payload: entities.Payload{Value: []byte{8}}})
	if entities.AsError(err).Reason != entities.InvalidCommand {
		t.Errorf("a payload that is no message: %v", err)
	}
	_, err = m.Retarget(entities.Target{Payload: entities.Payload{TypeURL: "x/y", Value: []byte{8}}})
	if entities.AsError(err).Reason != entities.InvalidCommand {
		t.Errorf("a payload of another type that has no fields: %v", err)
	}
}

// A command costs its key and itself.
func TestCommandAllocations(t *testing.T) {
	m := keysCatalog(t).Method("/keys.Keys/Parts")
	payload := join(number(1, 7), text(2, "anna"))
	allocs := testing.AllocsPerRun(100, func() {
		if _, err := m.Command(payload, nil); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 2 {
		t.Errorf("%v allocations, want 2", allocs)
	}
}

// FuzzKey compares the scan with decoding: bytes are refused exactly when they do not decode, and
// the key is the one that the decoded message has.
func FuzzKey(f *testing.F) {
	c := keysCatalog(f)
	methods := c.Service("keys.Keys").Methods
	f.Add(uint8(0), text(1, "c1"))
	f.Add(uint8(0), join(text(1, "c1"), text(2, string(text(1, "c2"))), text(3, "\x01\x02"),
		text(4, string(text(1, "k"))), text(6, "")))
	f.Add(uint8(0), join(text(1, "c1"), text(6, "\x1b\x0a\x01x\x1c")))
	f.Add(uint8(1), join(number(1, 7), text(2, "anna")))
	f.Add(uint8(2), join(text(1, "s"), number(2, 1<<63), number(4, 1<<40), number(6, 1<<34+1), number(7, 3),
		number(12, 2), number(13, 1)))
	f.Add(uint8(2), join(protowire.AppendFixed32(protowire.AppendTag(nil, 10, protowire.Fixed32Type), 1<<31),
		text(14, "o")))
	f.Add(uint8(3), join(text(1, "x"), text(4, "\x01\x02"), number(4, 3)))
	f.Fuzz(func(t *testing.T, which uint8, payload []byte) {
		m := methods[int(which)%len(methods)]
		decoded := dynamicpb.NewMessage(m.Input)
		decodeErr := proto.UnmarshalOptions{AllowPartial: true, RecursionLimit: 100}.Unmarshal(payload, decoded)
		cmd, err := m.Command(payload, nil)
		if err == nil {
			if decodeErr != nil {
				t.Fatalf("%x was admitted, and does not decode: %v", payload, decodeErr)
			}
			if want := printedKey(decoded); cmd.Key.ID != want {
				t.Fatalf("%x: key %q, decoded %q", payload, cmd.Key.ID, want)
			}
			return
		}
		if decodeErr != nil {
			return
		}
		want := printedKey(decoded)
		e := entities.AsError(err)
		isEmpty := want == "" && e.Reason == entities.InvalidCommand
		isLong := len(want) > 200 && e.Reason == entities.TooLarge
		if !isEmpty && !isLong && utf8.ValidString(want) {
			t.Fatalf("%x decodes with the key %q, and was refused: %v", payload, want, err)
		}
	})
}

// printedKey is the key through decoding.
func printedKey(m protoreflect.Message) string {
	var parts []string
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		isKey := proto.GetExtension(fd.Options(), cloudstate.E_EntityKey).(bool) ||
			proto.GetExtension(fd.Options(), cloudstate.E_LegacyEntityKey).(bool)
		if !isKey {
			continue
		}
		value := m.Get(fd)
		if fd.Kind() == protoreflect.EnumKind {
			if v := fd.Enum().Values().ByNumber(value.Enum()); v != nil {
				parts = append(parts, string(v.Name()))
				continue
			}
		}
		parts = append(parts, value.String())
	}
	return strings.Join(parts, "-")
}

package peer

import (
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/fields"
	peerv1 "github.com/millrace-io/millrace/proto/gen/millrace/peer/v1"
)

// text is a string of any length up to one that needs three bytes for it.
func text(t *rapid.T, name string) string {
	s := rapid.String().Draw(t, name)
	if rapid.IntRange(0, 30).Draw(t, name+" is long") == 0 {
		s = strings.Repeat(s+".", 9000)
	}
	return s
}

func metadataOf(t *rapid.T) (entities.Metadata, []*peerv1.MetadataEntry) {
	var md entities.Metadata
	var wire []*peerv1.MetadataEntry
	for range rapid.IntRange(0, 3).Draw(t, "entries") {
		e := entities.MetadataEntry{Key: text(t, "key"), IsBinary: rapid.Bool().Draw(t, "binary")}
		w := &peerv1.MetadataEntry{Key: e.Key}
		if e.IsBinary {
			e.Binary = append([]byte(nil), text(t, "value")...)
			w.Value = &peerv1.MetadataEntry_Binary{Binary: e.Binary}
		} else {
			e.Text = text(t, "value")
			w.Value = &peerv1.MetadataEntry_Text{Text: e.Text}
		}
		md, wire = append(md, e), append(wire, w)
	}
	return md, wire
}

// payloadBytes is nil when it is empty, as a message without the field reads.
func payloadBytes(t *rapid.T) []byte { return append([]byte(nil), text(t, "payload")...) }

// TestCallsAreProtobuf writes calls as protobuf does, byte for byte, and reads them back.
func TestCallsAreProtobuf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		md, wireMD := metadataOf(t)
		cmd := &entities.Command{
			Service: text(t, "service"), Method: text(t, "method"), Key: entities.Key{Type: text(t, "type"), ID: text(t, "id")},
			Payload: entities.Payload{TypeURL: text(t, "type url"), Value: payloadBytes(t)}, Metadata: md, ID: text(t, "command id"),
			Principal: text(t, "principal"), TraceParent: text(t, "trace"),
			Consistency: entities.Consistency(rapid.Uint8Range(0, uint8(entities.AtLeast)).Draw(t, "consistency")),
		}
		want := &peerv1.Call{
			Id: rapid.Uint64Min(1).Draw(t, "call"), Service: cmd.Service, Method: cmd.Method,
			EntityType: cmd.Key.Type, EntityId: cmd.Key.ID, TypeUrl: cmd.Payload.TypeURL, Payload: cmd.Payload.Value,
			Metadata: wireMD, CommandId: cmd.ID, Principal: cmd.Principal,
			Consistency: uint32(cmd.Consistency), TraceParent: cmd.TraceParent, Hops: rapid.Uint32Range(0, 100).Draw(t, "hops"),
			TimeoutNanos: uint64(rapid.Int64Min(0).Draw(t, "timeout")),
		}
		cmd.Bound = time.Duration(rapid.Int64Min(0).Draw(t, "bound"))
		want.BoundNanos = uint64(cmd.Bound)
		for range rapid.IntRange(0, 3).Draw(t, "positions") {
			p := entities.Position{Partition: rapid.Int32Min(0).Draw(t, "partition"), Next: rapid.Int64().Draw(t, "next")}
			cmd.After, want.After = append(cmd.After, p), append(want.After, &peerv1.Position{
				Partition: uint32(p.Partition), Next: p.Next,
			})
		}
		if rapid.Bool().Draw(t, "has a source") {
			cmd.Source = &entities.Source{
				Generation: rapid.Uint16().Draw(t, "generation"), Partition: rapid.Uint16().Draw(t, "partition"),
				Offset: rapid.Int64().Draw(t, "offset"), Index: rapid.Uint32().Draw(t, "index"),
				Settled: rapid.Int64().Draw(t, "settled"),
			}
			s := cmd.Source
			want.Source = &peerv1.Source{
				Generation: uint32(s.Generation), Partition: uint32(s.Partition), Offset: s.Offset, Index: s.Index,
				Settled: s.Settled,
			}
			for offset := int64(0); len(s.Open) < entities.MaxOpen && rapid.IntRange(0, 8).Draw(t, "another open one") > 0; {
				offset += rapid.Int64Range(1, 1<<40).Draw(t, "to the next open one")
				s.Open, want.Source.Open = append(s.Open, offset), append(want.Source.Open, offset)
			}
		}
		got := appendCall([]byte{}, fieldCalls, want.GetId(), cmd, int(want.GetHops()), time.Duration(want.GetTimeoutNanos()))
		compare(t, got, &peerv1.LinkRequest{Calls: []*peerv1.Call{want}})

		f := fields.Of(got, errWire)
		var back received
		if !f.Next() || f.Number != fieldCalls {
			t.Fatalf("no call: %v", f.Err)
		}
		if err := back.parse(f.B, names{}); err != nil {
			t.Fatal(err)
		}
		again := &entities.Command{
			Service: back.target.Service, Method: back.target.Method, Key: back.key, Payload: back.target.Payload,
			Metadata: back.target.Metadata,
		}
		back.complete(again)
		same := reflect.DeepEqual(again, cmd) //nolint:govet // the error of a timer is not sent, and nil here
		if !same || back.id != want.GetId() || back.hops != int(want.GetHops()) ||
			back.timeout != time.Duration(want.GetTimeoutNanos()) {
			t.Fatalf("read back %+v (%+v), want %+v", again, back, cmd)
		}
	})
}

// TestAnswersAreProtobuf does the same with answers.
func TestAnswersAreProtobuf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		md, wireMD := metadataOf(t)
		reply := &entities.Reply{
			Payload: entities.Payload{TypeURL: text(t, "type url"), Value: payloadBytes(t)}, Metadata: md, Token: text(t, "token"), NoPayload: rapid.Bool().Draw(t, "no payload"),
		}
		want := &peerv1.Answer{
			Id: rapid.Uint64Min(1).Draw(t, "call"), TypeUrl: reply.Payload.TypeURL, Payload: reply.Payload.Value,
			Metadata: wireMD, Token: reply.Token, NoPayload: reply.NoPayload,
		}
		var failure *entities.Error
		if rapid.Bool().Draw(t, "failed") {
			failure = &entities.Error{
				Reason:     entities.Reason(rapid.Uint8Range(0, uint8(entities.Internal)).Draw(t, "reason")),
				Code:       rapid.Uint32().Draw(t, "code"),
				Message:    text(t, "message"),
				Outcome:    entities.OutcomeClass(rapid.Uint8Range(0, 3).Draw(t, "outcome")),
				RetryAfter: time.Duration(rapid.Int64Min(0).Draw(t, "retry")),
				Checked:    rapid.Bool().Draw(t, "checked"),
			}
			want = &peerv1.Answer{Id: want.GetId(), Failure: &peerv1.Failure{
				Reason: uint32(failure.Reason), Code: failure.Code, Message: failure.Message, Outcome: uint32(failure.Outcome),
				RetryAfterNanos: uint64(failure.RetryAfter), Checked: failure.Checked,
			}}
			reply = &entities.Reply{}
		}
		got := appendAnswer([]byte{}, fieldAnswers, want.GetId(), reply, failure)
		compare(t, got, &peerv1.LinkResponse{Answers: []*peerv1.Answer{want}})

		f := fields.Of(got, errWire)
		if !f.Next() || f.Number != fieldAnswers {
			t.Fatalf("no answer: %v", f.Err)
		}
		back := &entities.Reply{}
		said, err := parseAnswer(f.B, names{}, back)
		if err != nil || (said == nil) != (failure == nil) || (said != nil && *said != *failure) ||
			!reflect.DeepEqual(back, reply) {
			t.Fatalf("read back %+v, %+v, %v, want %+v, %+v", back, said, err, reply, failure)
		}
		if id, err := idOf(f.B); id != want.GetId() || err != nil {
			t.Fatalf("id %d, %v, want %d", id, err, want.GetId())
		}
	})
}

func compare(t *rapid.T, got []byte, want proto.Message) {
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(encoded) {
		t.Fatalf("bytes\n%x, protobuf writes\n%x", got, encoded)
	}
}

// TestOpenEffectsAreChecked: too many exceptions, or exceptions out of order, could make a target
// forget effects that are sent again.
func TestOpenEffectsAreChecked(t *testing.T) {
	many := make([]int64, entities.MaxOpen+1)
	for i := range many {
		many[i] = int64(i + 1)
	}
	for name, test := range map[string]struct {
		open []int64
		ok   bool
	}{
		"none": {nil, true}, "some": {[]int64{1, 5, 9}, true}, "as many as may be": {many[:entities.MaxOpen], true},
		"too many": {many, false}, "twice the same": {[]int64{4, 4}, false}, "in no order": {[]int64{4, 3}, false},
	} {
		s := &entities.Source{}
		var packed []byte
		for _, offset := range test.open {
			packed = protowire.AppendVarint(packed, uint64(offset))
		}
		if err := parseOpen(s, packed); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestGoldenFrames holds the bytes of frames: workers of different builds may connect.
func TestGoldenFrames(t *testing.T) {
	cmd := &entities.Command{
		Service: "s", Method: "m", Key: entities.Key{Type: "t", ID: "i"},
		Payload:  entities.Payload{TypeURL: "u", Value: []byte{1}},
		Metadata: entities.Metadata{{Key: "k", Text: "v"}, {Key: "b", IsBinary: true}}, ID: "c", Principal: "p",
		Consistency: entities.Local, TraceParent: "w",
		Source: &entities.Source{Generation: 1, Partition: 2, Offset: 3, Index: 4, Settled: 5},
	}
	failure := &entities.Error{Reason: entities.Moved, Code: 2, Message: "x", Outcome: entities.Unknown, RetryAfter: 3}
	for name, test := range map[string]struct {
		got  []byte
		want string
	}{
		"call":    {appendCall(nil, fieldCalls, 300, cmd, 6, 7), "123f08ac02120173" + "1a016d" + "220174" + "2a0169" + "320175" + "3a0101" + "42060a016b120176" + "42050a01621a00" + "4a0163" + "520170" + "5801" + "620177" + "6a0a08011002180320042805" + "7006" + "7807"},
		"cancel":  {appendCancel(nil, 300), "1a0308ac02"},
		"reply":   {appendAnswer(nil, fieldAnswers, 1, &entities.Reply{Payload: cmd.Payload, Token: "t", NoPayload: true}, nil), "120d0801" + "120175" + "1a0101" + "2a0174" + "3001"},
		"failure": {appendAnswer(nil, fieldAnswers, 1, nil, failure), "120f0801" + "3a0b08081002" + "1a0178" + "20022803"},
		"leave":   {fields.AppendBool(nil, fieldLeave, true), "1801"},
	} {
		if got := hex.EncodeToString(test.got); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

// TestReasonsKeepTheirNumbers: they are on the wire.
func TestReasonsKeepTheirNumbers(t *testing.T) {
	for number, reason := range []entities.Reason{
		entities.FunctionRefused, entities.FunctionFailed, entities.InvalidCommand, entities.UnknownMethod,
		entities.NotSupported, entities.TooLarge, entities.Overloaded,
		entities.Unavailable, entities.Moved, entities.LostOutcome, entities.IDReused, entities.Cancelled,
		entities.Deadline, entities.Halted, entities.Internal,
	} {
		if int(reason) != number {
			t.Errorf("reason %d was %d", reason, number)
		}
	}
	e := &entities.Error{}
	if setReason(e, 200, 200); e.Reason != entities.Internal || e.Outcome != entities.Unknown {
		t.Errorf("an unknown reason and outcome read as %d and %v", e.Reason, e.Outcome)
	}
}

// FuzzFrames reads anything without a panic, and reads again what it wrote of it.
func FuzzFrames(f *testing.F) {
	f.Add(appendCall(
		nil, fieldCalls, 1,
		&entities.Command{Service: "s", Source: &entities.Source{Offset: 1}, Metadata: entities.Metadata{{Key: "k"}}}, 1,
		time.Second,
	))
	f.Add(appendAnswer(nil, fieldAnswers, 1, &entities.Reply{Token: "t"}, nil))
	f.Add(appendAnswer(nil, fieldAnswers, 1, nil, &entities.Error{Message: "m"}))
	f.Add([]byte{0x12, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		known := names{}
		outer := fields.Of(b, errWire)
		for outer.Next() {
			var c received
			if err := c.parse(outer.B, known); err == nil {
				cmd := &entities.Command{
					Service: c.target.Service, Method: c.target.Method, Key: c.key, Payload: c.target.Payload,
					Metadata: c.target.Metadata,
				}
				c.complete(cmd)
				inner := fields.Of(appendCall(nil, fieldCalls, c.id, cmd, c.hops, c.timeout), errWire)
				inner.Next()
				var again received
				if err := again.parse(inner.B, known); err != nil || !reflect.DeepEqual(again, c) { //nolint:govet // the error of a timer is not sent, and nil here
					t.Errorf("wrote and read again %+v (%v), want %+v", again, err, c)
				}
			} else if !errors.Is(err, errWire) {
				t.Errorf("%v is not an error of the wire", err)
			}
			if _, err := parseAnswer(outer.B, known, &entities.Reply{}); err != nil && !errors.Is(err, errWire) {
				t.Errorf("%v is not an error of the wire", err)
			}
			_, _ = idOf(outer.B)
			_ = new(opening).parse(outer.B)
			_, _ = parseMessage(outer.B, known)
		}
	})
}

package sdktest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/millrace-io/millrace/sdk"
)

// ThenEvents says that the last command emitted exactly these events, in this order; none given: it
// emitted none.
func (s *Scenario) ThenEvents(want ...proto.Message) *Scenario {
	s.t.Helper()
	var got []sdk.Payload
	for i := range s.mustHaveDecided("ThenEvents") {
		got = append(got, s.decisions[i].Events...)
	}
	s.mustList("ThenEvents", "event", got, want)
	return s
}

// ThenReply says that the caller of the last command gets exactly this message; nil stands for no
// message.
func (s *Scenario) ThenReply(want proto.Message) *Scenario {
	s.t.Helper()
	if want == nil {
		return s.ThenReplies()
	}
	return s.ThenReplies(want)
}

// ThenReplies says that the caller gets exactly these messages, in this order.
func (s *Scenario) ThenReplies(want ...proto.Message) *Scenario {
	s.t.Helper()
	var got []sdk.Payload
	for _, d := range s.mustHaveDecided("ThenReply") {
		switch {
		case d.Refusal != nil:
			s.t.Fatalf("ThenReply: %s was refused: %v: %s", s.method, d.Refusal.Code, d.Refusal.Message)
		case d.Forward != nil:
			s.t.Fatalf("ThenReply: %s was forwarded to %s/%s", s.method, d.Forward.Service, d.Forward.Method)
		case d.Reply != nil:
			got = append(got, *d.Reply)
		}
	}
	s.mustList("ThenReply", "reply", got, want)
	return s
}

// ThenRefused says that the last command was refused with this code and a message that contains
// text; and that it changed nothing, which the sdk guarantees.
func (s *Scenario) ThenRefused(code codes.Code, text string) *Scenario {
	s.t.Helper()
	d := s.lastOf("ThenRefused")
	if d.Refusal == nil {
		s.t.Fatalf("ThenRefused: %s was not refused, it decided: %s", s.method, describe(d))
	}
	if d.Refusal.Code != code || !strings.Contains(d.Refusal.Message, text) {
		s.t.Fatalf("ThenRefused: %s was refused with %v %q, want %v and a message with %q", s.method, d.Refusal.Code,
			d.Refusal.Message, code, text)
	}
	return s
}

// ThenForward says that the last command was handed on to this method with this message.
func (s *Scenario) ThenForward(method string, want proto.Message) *Scenario {
	s.t.Helper()
	d := s.lastOf("ThenForward")
	if d.Forward == nil {
		s.t.Fatalf("ThenForward: %s was not forwarded, it decided: %s", s.method, describe(d))
	}
	if d.Forward.FullMethod() != method {
		s.t.Fatalf("ThenForward: %s was forwarded to %s, want %s", s.method, d.Forward.FullMethod(), method)
	}
	s.mustList("ThenForward", "message", []sdk.Payload{d.Forward.Payload}, []proto.Message{want})
	return s
}

// ThenEffect says that one of the effects of the last command sends this message to this method.
func (s *Scenario) ThenEffect(method string, want proto.Message) *Scenario {
	s.t.Helper()
	var seen []string
	for _, d := range s.mustHaveDecided("ThenEffect") {
		for _, effect := range d.Effects {
			if effect.FullMethod() == method && proto.Equal(s.decode(effect.Payload), want) {
				return s
			}
			seen = append(seen, effect.FullMethod()+" "+show(s.decode(effect.Payload)))
		}
	}
	s.t.Fatalf("ThenEffect: %s has no effect %s %s; it has: %s", s.method, method, show(want), strings.Join(seen, ", "))
	return s
}

// ThenState says that the stored form of the state, the value or the snapshot, is this message; nil
// stands for no value.
func (s *Scenario) ThenState(want proto.Message) *Scenario {
	s.t.Helper()
	if s.entity == nil {
		s.t.Fatalf("ThenState: %s has no state", s.service)
	}
	got := s.snapshot(s.entity)
	switch {
	case got == nil && s.spec.Kind.HasEvents():
		s.t.Fatalf("ThenState: %s takes no snapshots: add sdk.SnapshotEvery, or look at replies and events", s.service)
	case got == nil && want != nil:
		s.t.Fatalf("ThenState: there is no value, want %s", show(want))
	case got != nil && want == nil:
		s.t.Fatalf("ThenState: the value is %s, want none", show(s.decode(*got)))
	case got != nil && !proto.Equal(s.decode(*got), want):
		s.t.Fatalf("ThenState:\n got %s\nwant %s", show(s.decode(*got)), show(want))
	}
	return s
}

// mustHaveDecided returns the decisions about the last command.
func (s *Scenario) mustHaveDecided(step string) []sdk.Decision {
	s.t.Helper()
	if s.method == "" {
		s.t.Fatalf("%s: there was no When before", step)
	}
	return s.decisions
}

// lastOf returns the last decision about the last command: a refusal ends a streamed answer.
func (s *Scenario) lastOf(step string) sdk.Decision {
	s.t.Helper()
	decisions := s.mustHaveDecided(step)
	if len(decisions) == 0 {
		return sdk.Decision{}
	}
	return decisions[len(decisions)-1]
}

func (s *Scenario) mustList(step, noun string, got []sdk.Payload, want []proto.Message) {
	s.t.Helper()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			s.t.Fatalf("%s: %s %d is missing, want %s", step, noun, i+1, show(want[i]))
		case i >= len(want):
			s.t.Fatalf("%s: %s %d is one too many: %s", step, noun, i+1, show(s.decode(got[i])))
		case !proto.Equal(s.decode(got[i]), want[i]):
			s.t.Fatalf("%s: %s %d\n got %s\nwant %s", step, noun, i+1, show(s.decode(got[i])), show(want[i]))
		}
	}
}

// encode encodes a message and reads it back, as everything that is stored or sent.
func (s *Scenario) encode(m proto.Message) sdk.Payload {
	s.t.Helper()
	if m == nil || !m.ProtoReflect().IsValid() {
		s.t.Fatalf("a message of the test is nil")
	}
	packed, err := anypb.New(m)
	if err != nil {
		s.t.Fatalf("encode a %s of the test: %v", m.ProtoReflect().Descriptor().FullName(), err)
	}
	payload := sdk.Payload{TypeURL: packed.GetTypeUrl(), Value: packed.GetValue()}
	if !proto.Equal(s.decode(payload), m) {
		s.t.Fatalf("%s does not survive its encoding: %s", m.ProtoReflect().Descriptor().FullName(), show(m))
	}
	return payload
}

func (s *Scenario) decode(p sdk.Payload) proto.Message {
	s.t.Helper()
	m, err := (&anypb.Any{TypeUrl: p.TypeURL, Value: p.Value}).UnmarshalNew()
	if err != nil {
		s.t.Fatalf("decode %s: %v", p.TypeURL, err)
	}
	return m
}

// show prints a message as its type and JSON, always in the same way: protojson alone adds spaces
// at random.
func show(m proto.Message) string {
	if m == nil {
		return "nothing"
	}
	var compact bytes.Buffer
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err == nil {
		err = json.Compact(&compact, text)
	}
	if err != nil {
		return fmt.Sprintf("%s (%v)", m.ProtoReflect().Descriptor().FullName(), err)
	}
	return string(m.ProtoReflect().Descriptor().FullName()) + compact.String()
}

// describe names what the caller gets.
func describe(d sdk.Decision) string {
	switch {
	case d.Reply != nil:
		return "a reply"
	case d.Forward != nil:
		return "a forward to " + d.Forward.FullMethod()
	case d.Refusal != nil:
		return fmt.Sprintf("a refusal: %v: %s", d.Refusal.Code, d.Refusal.Message)
	default:
		return "no message"
	}
}

package sdk_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/sdk"
	scriptv1 "github.com/millrace-io/millrace/sdk/internal/script/v1"
)

// open returns a new entity of a service.
func open(t *testing.T, service *sdk.Service) sdk.Entity {
	t.Helper()
	entity, err := service.NewEntity(entityID)
	if err != nil {
		t.Fatal(err)
	}
	return entity
}

// decide lets an entity run a script that must not crash.
func decide(t *testing.T, entity sdk.Entity, steps ...*scriptv1.Step) sdk.Decision {
	t.Helper()
	decision, err := entity.Handle(t.Context(), sdk.Invocation{Method: "Run", Payload: payload(t, run(steps...))})
	if err != nil {
		t.Fatal(err)
	}
	return decision
}

// mustCrash lets an entity run a script that ends without a decision.
func mustCrash(t *testing.T, entity sdk.Entity, want string, steps ...*scriptv1.Step) *sdk.CrashError {
	t.Helper()
	decision, err := entity.Handle(t.Context(), sdk.Invocation{Method: "Run", Payload: payload(t, run(steps...))})
	crash, ok := errors.AsType[*sdk.CrashError](err)
	if !ok || !strings.Contains(crash.Error(), want) {
		t.Fatalf("want a crash with %q, got %v", want, err)
	}
	equal(t, "decision of a crash", decision, sdk.Decision{})
	return crash
}

func replies(t *testing.T, text string) *sdk.Payload {
	t.Helper()
	p := payload(t, response(text))
	return &p
}

func stored(t *testing.T, text string) *sdk.Payload {
	t.Helper()
	p := payload(t, &scriptv1.Stored{Text: text})
	return &p
}

func TestEmitAppliesAtOnce(t *testing.T) {
	entity := open(t, journalService())
	equal(t, "first", decide(t, entity, emits("A", "B")...),
		sdk.Decision{Events: payloads(t, appended("A", "B")...), Reply: replies(t, "AB")})
	equal(t, "second", decide(t, entity, emit("C")),
		sdk.Decision{Events: payloads(t, appended("C")...), Reply: replies(t, "ABC")})
	equal(t, "third", decide(t, entity), sdk.Decision{Reply: replies(t, "ABC")})
}

// A snapshot is due when a multiple of the interval is among the events of the command, and shows
// the state after all of them.
func TestSnapshotsAreTakenWhenDueAlsoWithinABatch(t *testing.T) {
	entity := open(t, journalService())
	for i, batch := range []struct{ texts, snapshot string }{
		{"ABCD", ""}, {"E", "ABCDE"}, {"", ""}, {"FGHIJKL", "ABCDEFGHIJKL"}, {"MNO", "ABCDEFGHIJKLMNO"}, {"P", ""},
	} {
		decision := decide(t, entity, emits(strings.Split(batch.texts, "")...)...)
		want := (*sdk.Payload)(nil)
		if batch.snapshot != "" {
			want = stored(t, batch.snapshot)
		}
		if !equalPayloads(decision.Snapshot, want) {
			t.Errorf("batch %d (%s): snapshot %v, want %v", i, batch.texts, decision.Snapshot, want)
		}
	}
}

func equalPayloads(a, b *sdk.Payload) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.TypeURL == b.TypeURL && string(a.Value) == string(b.Value)
}

func TestRefuseWritesNothingAndKeepsTheImage(t *testing.T) {
	entity := open(t, journalService())
	decide(t, entity, emit("A"))
	equal(t, "refusal", decide(t, entity, effect("x"), notFound("no such thing")),
		sdk.Decision{Refusal: &sdk.Refusal{Code: codes.NotFound, Message: "no such thing"}})
	equal(t, "next", decide(t, entity), sdk.Decision{Reply: replies(t, "A")})
}

func TestRefuseAfterEmitAsksForARestart(t *testing.T) {
	entity := open(t, journalService())
	decide(t, entity, emit("A"))
	equal(t, "refusal", decide(t, entity, emit("B"), refuse("no"), emit("C")),
		sdk.Decision{Refusal: &sdk.Refusal{Code: codes.Unknown, Message: "no"}, Restart: true})
	mustCrash(t, entity, "the image is ahead of what is stored")
}

func TestRefuseWithOKIsStillARefusal(t *testing.T) {
	refusal, ok := errors.AsType[*sdk.Refusal](sdk.Refuse(codes.OK, "no"))
	if !ok || refusal.Code != codes.Unknown {
		t.Errorf("got %+v", refusal)
	}
}

func TestForwardKeepsEventsAndEffects(t *testing.T) {
	entity := open(t, journalService())
	decide(t, entity, emits("A", "B", "C")...)
	want := sdk.Target{Service: "script.v1.FlowService", Method: "Unary", Payload: payload(t, request("f"))}
	effectTo := func(text string, synchronous bool) sdk.Effect {
		return sdk.Effect{
			Target:      sdk.Target{Service: "script.v1.FlowService", Method: "Unary", Payload: payload(t, request(text))},
			Synchronous: synchronous,
		}
	}
	equal(t, "forward", decide(t, entity, emit("D"), emit("E"), effect("1"), awaited("2"), forward("f")), sdk.Decision{
		Events:   payloads(t, appended("D", "E")...),
		Snapshot: stored(t, "ABCDE"),
		Forward:  &want,
		Effects:  []sdk.Effect{effectTo("1", false), effectTo("2", true)},
	})
	equal(t, "full method", want.FullMethod(), flowUnary)
}

// Errors that are no decision, panics and misuse crash the command; the image must not be used any
// more.
func TestCrashes(t *testing.T) {
	for name, c := range map[string]struct {
		want  string
		steps []*scriptv1.Step
		stack bool
	}{
		"error":            {"script.v1.JournalService/Run of journal/e1: disk on fire (to say no to a command, return sdk.Refuse)", []*scriptv1.Step{emit("A"), crash("disk on fire")}, false},
		"panic":            {"script.v1.JournalService/Run of journal/e1: panic: boom", []*scriptv1.Step{emit("A"), panics("boom")}, true},
		"event without On": {"cmd.Emit: event script.v1.Forgotten has no function: add sdk.On(func(*sdk_test.journal, *Forgotten))", []*scriptv1.Step{update("")}, true},
		"not UTF-8":        {"encode script.v1.Appended", []*scriptv1.Step{emit("\xff")}, true},
	} {
		t.Run(name, func(t *testing.T) {
			entity := open(t, scripted(c.steps))
			got := mustCrash(t, entity, c.want)
			equal(t, "has a stack", got.Stack != nil, c.stack)
			mustCrash(t, entity, "the image is ahead of what is stored")
		})
	}
}

// scripted is a journal that takes the given steps at its first command, whatever the request says:
// they may be such that no request could carry them.
func scripted(steps []*scriptv1.Step) *sdk.Service {
	return sdk.EventSourced("journal", newJournal,
		sdk.Handle(journalRun, func(j *journal, cmd *sdk.Command, _ *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
			return j.run(cmd, run(steps...))
		}),
		sdk.Handle(journalRead, (*journal).read),
		sdk.On((*journal).appended),
	)
}

func TestAnUnknownMethodIsACrash(t *testing.T) {
	_, err := open(t, journalService()).Handle(t.Context(), sdk.Invocation{Method: "Walk"})
	if err == nil || !strings.Contains(err.Error(), "service script.v1.JournalService has no method Walk") {
		t.Errorf("got %v", err)
	}
}

// Bytes that are not the request's type are the caller's mistake: refused, and the entity stays
// usable.
func TestAnUndecodableRequestIsRefused(t *testing.T) {
	entity := open(t, journalService())
	decision, err := entity.Handle(t.Context(), sdk.Invocation{Method: "Run", Payload: sdk.Payload{Value: []byte{0xff}}})
	if err != nil || decision.Refusal == nil || decision.Refusal.Code != codes.InvalidArgument {
		t.Fatalf("got %+v, %v", decision, err)
	}
	equal(t, "next", decide(t, entity), sdk.Decision{Reply: replies(t, "")})
}

func TestLoadAndApplyRebuildTheImage(t *testing.T) {
	entity := open(t, journalService())
	if err := entity.Load(stored(t, "ABCDE"), 5); err != nil {
		t.Fatal(err)
	}
	for i, event := range payloads(t, appended("F", "G")...) {
		if err := entity.Apply(uint64(6+i), event); err != nil {
			t.Fatal(err)
		}
	}
	equal(t, "image", entity.Image(), any(&journal{text: "ABCDEFG"}))
	equal(t, "events go on counting", decide(t, entity, emits("H", "I", "J")...).Snapshot, stored(t, "ABCDEFGHIJ"))
}

func TestReplayErrorsNameWhatIsWrong(t *testing.T) {
	event := payload(t, appended("A")[0])
	noSnapshots := scripted(nil)
	panicking := sdk.EventSourced("journal", newJournal,
		append(journalOptions()[:2], sdk.On(func(*journal, *scriptv1.Appended) { panic("on") }))...)
	for name, c := range map[string]struct {
		service *sdk.Service
		replay  func(sdk.Entity) error
		want    string
	}{
		"gap":            {journalService(), func(e sdk.Entity) error { return e.Apply(2, event) }, "replay journal/e1: event 2 came after event 0"},
		"unknown event":  {journalService(), func(e sdk.Entity) error { return e.Apply(1, payload(t, &scriptv1.Forgotten{})) }, "event 1 is a script.v1.Forgotten, which has no function: add sdk.On"},
		"bad event":      {journalService(), func(e sdk.Entity) error { return e.Apply(1, sdk.Payload{TypeURL: event.TypeURL, Value: []byte{0xff}}) }, "event 1: decode script.v1.Appended"},
		"panic":          {panicking, func(e sdk.Entity) error { return e.Apply(1, event) }, "panic: on"},
		"wrong snapshot": {journalService(), func(e sdk.Entity) error { return e.Load(&event, 1) }, "the stored snapshot is a script.v1.Appended, but sdk.SnapshotEvery restores a script.v1.Stored"},
		"bad snapshot": {journalService(), func(e sdk.Entity) error {
			return e.Load(&sdk.Payload{TypeURL: stored(t, "").TypeURL, Value: []byte{0xff}}, 1)
		}, "snapshot at 1: decode script.v1.Stored"},
		"no snapshots":   {noSnapshots, func(e sdk.Entity) error { return e.Load(stored(t, "A"), 1) }, "the service has no sdk.SnapshotEvery to restore it: put it back"},
		"event of value": {cellService(), func(e sdk.Entity) error { return e.Apply(1, event) }, "replay cell/e1: event 1 for a value entity"},
		"wrong value":    {cellService(), func(e sdk.Entity) error { return e.Load(&event, 0) }, "the stored value is a script.v1.Appended, but the state of the service is a script.v1.Stored"},
		"bad value": {cellService(), func(e sdk.Entity) error {
			return e.Load(&sdk.Payload{TypeURL: stored(t, "").TypeURL, Value: []byte{0xff}}, 0)
		}, "load cell/e1: decode script.v1.Stored"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := c.replay(open(t, c.service)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want %q, got %v", c.want, err)
			}
		})
	}
}

func TestANewStateMustBeOne(t *testing.T) {
	none := sdk.EventSourced("journal", func(string) *journal { return nil }, journalOptions()...)
	if _, err := none.NewEntity(entityID); err == nil || !strings.Contains(err.Error(), "journal/e1: the function for a new state returned nil") {
		t.Errorf("got %v", err)
	}
	panics := sdk.EventSourced("journal", func(string) *journal { panic("new") }, journalOptions()...)
	if _, err := panics.NewEntity(entityID); err == nil || !strings.Contains(err.Error(), "panic: new") {
		t.Errorf("got %v", err)
	}
}

func TestACommandKnowsWhoWhatAndWhen(t *testing.T) {
	entity := open(t, journalService())
	now := time.Date(2026, 5, 1, 12, 0, 0, 7, time.UTC)
	decision, err := entity.Handle(t.Context(), sdk.Invocation{
		Method: "Read", Payload: payload(t, &scriptv1.ReadRequest{Id: entityID}), ID: "c-1", Principal: "ada", Time: now,
		Metadata: sdk.Metadata{{Key: "user-agent", Binary: []byte{1}, IsBinary: true}, {Key: "user-agent", Text: "curl"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got scriptv1.ReadResponse
	if err := proto.Unmarshal(decision.Reply.Value, &got); err != nil {
		t.Fatal(err)
	}
	want := &scriptv1.ReadResponse{
		EntityId: entityID, CommandId: "c-1", Principal: "ada", Agent: "curl",
		TimeUnixNanos: now.UnixNano(),
	}
	if !proto.Equal(&got, want) {
		t.Errorf("got %v, want %v", &got, want)
	}
}

// What a handler does with a command after it returned cannot count, so it is stopped.
func TestACommandEndsWithItsHandler(t *testing.T) {
	var kept *sdk.Command
	service := sdk.EventSourced("journal", newJournal,
		sdk.Handle(journalRun, func(_ *journal, cmd *sdk.Command, _ *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
			kept = cmd
			return nil, nil
		}),
		sdk.Handle(journalRead, func(*journal, *sdk.Command, *scriptv1.ReadRequest) (*scriptv1.ReadResponse, error) {
			kept.Emit(&scriptv1.Appended{})
			return nil, nil
		}),
		sdk.On((*journal).appended),
	)
	entity := open(t, service)
	equal(t, "a nil message says nothing", decide(t, entity), sdk.Decision{})
	_, err := entity.Handle(t.Context(), sdk.Invocation{Method: "Read"})
	if err == nil || !strings.Contains(err.Error(), "cmd.Emit after the handler of Run returned") {
		t.Errorf("got %v", err)
	}
}

// The target of an effect or a forward is compared with the message.
func TestTargetsAreChecked(t *testing.T) {
	for want, in := range map[string]struct {
		method  string
		message proto.Message
	}{
		"the message is a script.v1.Stored, but the method takes a script.v1.FlowRequest": {flowUnary, &scriptv1.Stored{}},
		"the message is nil: give a *FlowRequest":                                         {flowUnary, nil},
		"the program knows no service no.Service":                                         {"/no.Service/X", &scriptv1.Stored{}},
		"encode script.v1.ReadRequest":                                                    {journalRead, &scriptv1.ReadRequest{Id: "\xff"}},
	} {
		if _, err := sdk.Forward[*scriptv1.RunResponse](in.method, in.message); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("Forward: want %q, got %v", want, err)
		}
		service := sdk.Value("cell", sdk.HandleValue(cellRun,
			func(cmd *sdk.ValueCommand[*scriptv1.Stored], _ *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
				cmd.Effect(in.method, in.message)
				return nil, nil
			}))
		mustCrash(t, open(t, service), "panic: cmd.Effect: ")
		mustCrash(t, open(t, service), want)
	}
}

// The estimate grows with events and starts anew with a snapshot.
func TestSizeFollowsTheState(t *testing.T) {
	entity := open(t, journalService())
	empty := entity.Size()
	decide(t, entity, emits("AAAA", "BBBB")...)
	two := entity.Size()
	if two <= empty {
		t.Errorf("two events: %d, empty: %d", two, empty)
	}
	decide(t, entity, emits("C", "D", "E")...)
	if got, want := entity.Size(), empty+len(stored(t, "AAAABBBBCDE").Value); got != want {
		t.Errorf("after a snapshot: %d, want %d", got, want)
	}
}

func TestTheContextReachesTheHandler(t *testing.T) {
	type key struct{}
	service := sdk.Value("cell", sdk.HandleValue(cellRun,
		func(cmd *sdk.ValueCommand[*scriptv1.Stored], _ *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
			cmd.Logger().InfoContext(cmd.Context(), "handled")
			text, _ := cmd.Context().Value(key{}).(string)
			return response(text), nil
		}))
	decision, err := open(t, service).Handle(context.WithValue(t.Context(), key{}, "seen"), sdk.Invocation{Method: "Run"})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "decision", decision, sdk.Decision{Reply: replies(t, "seen")})
}

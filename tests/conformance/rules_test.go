package conformance_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/millrace-io/millrace/proto/gen/cloudstate/action"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/eventsourced"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/valueentity"
	"github.com/millrace-io/millrace/tests/conformance/proto/actionmodel"
	"github.com/millrace-io/millrace/tests/conformance/proto/crdtmodel"
	"github.com/millrace-io/millrace/tests/conformance/proto/esmodel"
	"github.com/millrace-io/millrace/tests/conformance/proto/vemodel"
	"github.com/millrace-io/millrace/tests/kit"
)

// ruleCases are rules for a proxy, tested separately. Retries of discovery, ephemeral state and
// passivation need a start of their own: see startup_test.go.
func ruleCases() []conformanceCase {
	return []conformanceCase{
		{"rules/one port serves HTTP 1.1 and HTTP 2 with prior knowledge", onePort},
		{"rules/an entity command carries id, name and the payload as sent, and nothing else", commandAsSent},
		{"rules/JSON reaches the function in the canonical encoding", canonicalEncoding},
		{"rules/init has an empty state for a new value and no snapshot for a new journal", initOfNewEntities},
		{"rules/command ids count from 1 in every stream", commandIDs},
		{"rules/changes are not echoed to who made them", noEcho},
		{"rules/a passive entity comes back on a new stream", passiveEntityComesBack},
		{"rules/an action stream begins before the caller's first message", actionBeginsAtOnce},
		{"rules/the caller's cancel reaches the function", cancelIsRelayed},
		{"rules/the caller's metadata reaches actions", metadataReachesActions},
		{"rules/a failure is its description and nothing else", failureIsDescription},
		{"rules/JSON answers are application/json with default values", jsonAnswers},
		{"rules/replicated entities are refused and the rest works", replicatedRefused},
	}
}

func onePort(t *testing.T, s *subject) {
	get, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.public+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := fetch(t, s.web, get); got.status != http.StatusNotFound {
		t.Errorf("GET / over HTTP/1.1: %+v, want 404", got)
	}
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols}
	defer transport.CloseIdleConnections()
	post, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		"http://"+s.public+"/"+actionTwoService+"/Call", strings.NewReader(`{"id":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	post.Header.Set("Content-Type", "application/json")
	if got := fetch(t, &http.Client{Transport: transport, Timeout: kit.Patience},
		post); got != (page{http.StatusOK, "application/json", `{"message":""}`}) {
		t.Errorf("POST over HTTP/2 with prior knowledge: %+v", got)
	}
	s.actionTwo(t, "x")
}

// commandAsSent sends bytes that our encoder would not make, with headers, and expects exactly
// these bytes at the function.
func commandAsSent(t *testing.T, s *subject) {
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-demo", "1", "x-demo-bin", "\x00\x01")
	id := s.entity()
	payload := []byte{}
	payload = protowire.AppendTag(payload, 1000, protowire.BytesType) // an unknown field
	payload = protowire.AppendString(payload, "unknown")
	payload = protowire.AppendTag(payload, 1, protowire.BytesType) // the key, twice: the last one counts
	payload = protowire.AppendString(payload, "not-"+id)
	payload = protowire.AppendTag(payload, 1, protowire.BytesType)
	payload = protowire.AppendString(payload, id)

	request := &emptypb.Empty{}
	request.ProtoReflect().SetUnknown(payload)
	got := &esmodel.Response{}
	answered(t, got, s.conn.Invoke(ctx, esmodel.EventSourcedTckModel_Process_FullMethodName, request, got),
		&esmodel.Response{})

	x := s.next(t, eventsourced.EventSourced_Handle_FullMethodName)
	command := esCommand(1, id, "Process", &esmodel.Request{})
	command.GetCommand().Payload = &anypb.Any{TypeUrl: "type.googleapis.com/cloudstate.tck.model.Request", Value: payload}
	x.in(t, esInit(esService, id), command)
	x.out(t, esReplied(1, ""))
	x.silent(t)
}

func canonicalEncoding(t *testing.T, s *subject) {
	id := s.entity()
	s.answersJSON(t, "/"+esService+"/Process", `{"actions":[{"emit":{"value":"x"}}],"id":"`+id+`"}`, `{"message":"x"}`)
	x := s.next(t, eventsourced.EventSourced_Handle_FullMethodName)
	x.in(t, esInit(esService, id), esProcess(1, id, emits("x")...))
	x.out(t, esEmitted(1, "x", "x"))
	x.silent(t)
}

func initOfNewEntities(t *testing.T, s *subject) {
	id := s.entity()
	s.process(t, id, "")
	s.change(t, id, "")
	journal := s.next(t, eventsourced.EventSourced_Handle_FullMethodName)
	in, _ := journal.message(t, &journal.In).(*eventsourced.EventSourcedStreamIn)
	if init := in.GetInit(); init == nil || init.GetSnapshot() != nil {
		t.Errorf("the stream of a new journal begins with %v, want an init without snapshot", in)
	}
	value := s.next(t, valueentity.ValueEntity_Handle_FullMethodName)
	first, _ := value.message(t, &value.In).(*valueentity.ValueEntityStreamIn)
	if init := first.GetInit(); init.GetState() == nil || init.GetState().GetValue() != nil {
		t.Errorf("the stream of a new value begins with %v, want an init with an empty state", first)
	}
	journal.in(t, esProcess(1, id))
	value.in(t, veProcess(1, id))
}

func commandIDs(t *testing.T, s *subject) {
	for range 2 { // two entities, two streams
		id := s.entity()
		var x *exchange
		for command := int64(1); command <= 3; command++ {
			s.process(t, id, "")
			if x == nil {
				x = s.next(t, eventsourced.EventSourced_Handle_FullMethodName)
				x.in(t, esInit(esService, id))
			}
			x.in(t, esProcess(command, id))
		}
	}
}

func noEcho(t *testing.T, s *subject) {
	id := s.entity()
	s.process(t, id, "AB", emits("A", "B")...)
	s.change(t, id, "A", updates("A")...)
	journal := s.next(t, eventsourced.EventSourced_Handle_FullMethodName)
	journal.in(t, esInit(esService, id), esProcess(1, id, emits("A", "B")...))
	journal.out(t, esEmitted(1, "AB", "A", "B"))
	journal.silent(t)
	value := s.next(t, valueentity.ValueEntity_Handle_FullMethodName)
	value.in(t, veInit(veService, id), veProcess(1, id, updates("A")...))
	value.out(t, veReplied(1, "A", updated("A")))
	value.silent(t)
}

func passiveEntityComesBack(t *testing.T, s *subject) {
	id := s.entity()
	for range 2 {
		got, err := vemodel.NewValueEntityConfiguredClient(s.conn).Call(t.Context(), &vemodel.Request{Id: id})
		answered(t, got, err, &vemodel.Response{})
		x := s.next(t, valueentity.ValueEntity_Handle_FullMethodName)
		x.in(t, veInit(veConfigured, id), veCommand(1, id, "Call", &vemodel.Request{Id: id}))
		x.out(t, veReplied(1, "", nil))
		x.ends(t)
	}
}

func actionBeginsAtOnce(t *testing.T, s *subject) {
	in, err := s.actions().ProcessStreamedIn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	call := s.next(t, action.ActionProtocol_HandleStreamedIn_FullMethodName)
	call.in(t, actionNames("ProcessStreamedIn")) // before anything was sent
	send(t, in, groups(steps(actionReply("one"))))
	send(t, in, groups(steps(actionReply("two"))))
	got, err := in.CloseAndRecv()
	answered(t, got, err, &actionmodel.Response{Message: "two"})
	call.in(t, actionPayload(groups(steps(actionReply("one")))), actionPayload(groups(steps(actionReply("two")))))
	call.inEnds(t)
	call.out(t, actionReplied("two"))
	call.outEnds(t)
}

func cancelIsRelayed(t *testing.T, s *subject) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := s.actions().ProcessStreamed(ctx)
	if err != nil {
		t.Fatal(err)
	}
	call := s.next(t, action.ActionProtocol_HandleStreamed_FullMethodName)
	request := groups(steps(actionReply("A")))
	send(t, stream, request)
	got, err := stream.Recv()
	answered(t, got, err, &actionmodel.Response{Message: "A"})
	call.in(t, actionNames("ProcessStreamed"), actionPayload(request))
	call.out(t, actionReplied("A"))
	cancel()
	call.isReset(t)
}

func metadataReachesActions(t *testing.T, s *subject) {
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-demo", "1")
	request := groups(steps(actionReply("A")))
	got, err := s.actions().ProcessUnary(ctx, request)
	answered(t, got, err, &actionmodel.Response{Message: "A"})
	call := s.next(t, action.ActionProtocol_HandleUnary_FullMethodName)
	command, _ := call.message(t, &call.In).(*action.ActionCommand)
	for _, e := range command.GetMetadata().GetEntries() {
		if e.GetKey() == "x-demo" && e.GetStringValue() == "1" {
			return
		}
	}
	t.Errorf("x-demo: 1 did not reach the function, but %v", command.GetMetadata())
}

func failureIsDescription(t *testing.T, s *subject) {
	const description = "no \"way\": 100 % ausgebucht – sorry"
	id := s.entity()
	s.refuses(t, id, description, esFail(description))
	s.refusesJSON(t, "/tck/model/eventsourced/"+id,
		`{"actions":[{"fail":{"message":"no \"way\": 100 % ausgebucht – sorry"}}]}`, description)
	x := s.next(t, eventsourced.EventSourced_Handle_FullMethodName)
	x.in(t, esInit(esService, id), esProcess(1, id, esFail(description)), esProcess(2, id, esFail(description)))
	x.out(t, esRefused(1, description, false), esRefused(2, description, false))
	x.silent(t)
}

func jsonAnswers(t *testing.T, s *subject) {
	id := s.entity()
	s.answersJSON(t, "/tck/model/entity/"+id, "{}", `{"message":""}`) // the content type is compared as well
	x := s.next(t, valueentity.ValueEntity_Handle_FullMethodName)
	x.in(t, veInit(veService, id), veProcess(1, id))
}

func replicatedRefused(t *testing.T, s *subject) {
	if !s.replicated {
		return // nothing declared, nothing to refuse
	}
	_, err := crdtmodel.NewCrdtTckModelClient(s.conn).Process(t.Context(), &crdtmodel.Request{Id: "GCounter-1"})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("a call of a replicated entity: %v, want UNIMPLEMENTED", err)
	}
	id := s.entity()
	s.process(t, id, "")
	s.next(t, eventsourced.EventSourced_Handle_FullMethodName).in(t, esInit(esService, id), esProcess(1, id))
}

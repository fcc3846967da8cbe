package sdk_test

import (
	"iter"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/millrace-io/millrace/sdk"
	scriptv1 "github.com/millrace-io/millrace/sdk/internal/script/v1"
)

func newJournal(string) *journal { return &journal{} }

// handlerOf returns a handler that is never called.
func handlerOf[In, Out proto.Message]() func(*journal, *sdk.Command, In) (Out, error) {
	return func(*journal, *sdk.Command, In) (Out, error) {
		var none Out
		return none, nil
	}
}

// Each mistake that can be seen when a service is built is reported, with the method and the fix.
func TestCheckNamesTheMistakeAndTheFix(t *testing.T) {
	with := func(options ...sdk.Option[journal]) *sdk.Service {
		return sdk.EventSourced("journal", newJournal, append(journalOptions(), options...)...)
	}
	cases := map[string]struct {
		service *sdk.Service
		want    string
	}{
		"no problem":         {journalService(), ""},
		"no problem, value":  {cellService(), ""},
		"no problem, action": {flowService(), ""},
		"nil":                {nil, `sdk: service 1 of 1 is nil: is its package-level variable initialized?`},
		"empty name":         {sdk.EventSourced("", newJournal, journalOptions()...), `the first argument of sdk.EventSourced is empty`},
		"slash in name":      {sdk.EventSourced("a/b", newJournal, journalOptions()...), `persistence id "a/b" contains a slash`},
		"no new state":       {sdk.EventSourced("journal", nil, journalOptions()...), `the second argument of sdk.EventSourced is nil`},
		"no handlers":        {sdk.EventSourced("journal", newJournal), `event-sourced service "journal": no handlers are given`},
		"nil option":         {with(nil), `option 5 of sdk.EventSourced is nil`},
		"nil value option":   {sdk.Value[*scriptv1.Stored]("cell", nil), `option 1 of sdk.Value is nil`},
		"nil action option":  {sdk.Action(nil), `option 1 of sdk.Action is nil`},
		"method left out":    {sdk.EventSourced("journal", newJournal, sdk.Handle(journalRun, (*journal).run)), `method Read has no handler: add sdk.Handle(JournalService_Read_FullMethodName, …)`},
		"value left out":     {sdk.Value("cell", sdk.HandleValue[*scriptv1.Stored, *scriptv1.RunRequest, *scriptv1.RunResponse](cellRun, nil)), `sdk.HandleValue("/script.v1.CellService/Run"): the handler is nil`},
		"action left out":    {sdk.Action(sdk.Unary(flowUnary, runUnary)), `method Out has no handler: add sdk.ServerStream(FlowService_Out_FullMethodName, …)`},
		"bidi left out":      {sdk.Action(sdk.Unary(flowUnary, runUnary)), `method Both has no handler: add sdk.Bidi(FlowService_Both_FullMethodName, …)`},
		"in left out":        {sdk.Action(sdk.Unary(flowUnary, runUnary)), `method In has no handler: add sdk.ClientStream(FlowService_In_FullMethodName, …)`},
		"handled twice":      {with(sdk.Handle(journalRun, (*journal).run)), `sdk.Handle("/script.v1.JournalService/Run"): the method has a handler already: remove one`},
		"not a method name":  {with(sdk.Handle("Run", (*journal).run)), `"Run" is not a full method name: use the generated constant`},
		"unknown service":    {with(sdk.Handle("/no.v1.Service/Run", (*journal).run)), `the program knows no service no.v1.Service: import the package`},
		"not a service":      {with(sdk.Handle("/script.v1.Stored/Run", (*journal).run)), `script.v1.Stored is not a service`},
		"unknown method":     {with(sdk.Handle("/script.v1.JournalService/Walk", (*journal).run)), `service script.v1.JournalService has no method Walk`},
		"other service":      {with(sdk.Handle(cellRun, (*journal).run)), `the other handlers are of script.v1.JournalService: give script.v1.CellService an sdk.EventSourced of its own`},
		"wrong request":      {sdk.EventSourced("journal", newJournal, sdk.Handle(journalRun, handlerOf[*scriptv1.ReadRequest, *scriptv1.RunResponse]())), `the handler takes script.v1.ReadRequest, but the method takes script.v1.RunRequest: change the handler's parameter`},
		"wrong reply":        {sdk.EventSourced("journal", newJournal, sdk.Handle(journalRun, handlerOf[*scriptv1.RunRequest, *scriptv1.ReadResponse]())), `the handler returns script.v1.ReadResponse, but the method returns script.v1.RunResponse: change the handler's result`},
		"interface request":  {sdk.EventSourced("journal", newJournal, sdk.Handle(journalRun, handlerOf[proto.Message, *scriptv1.RunResponse]())), `the handler takes protoreflect.ProtoMessage, which is not a generated message: take *RunRequest`},
		"dynamic reply":      {sdk.EventSourced("journal", newJournal, sdk.Handle(journalRun, handlerOf[*scriptv1.RunRequest, *dynamicpb.Message]())), `the handler returns *dynamicpb.Message, which is not a generated message: return *RunResponse`},
		"event twice":        {with(sdk.On((*journal).appended)), `sdk.On for script.v1.Appended: the event has a function already: remove one`},
		"event nil":          {with(sdk.On[journal, *emptypb.Empty](nil)), `sdk.On for google.protobuf.Empty: the function is nil`},
		"event interface":    {with(sdk.On(func(*journal, proto.Message) {})), `sdk.On: protoreflect.ProtoMessage is not a generated message`},
		"snapshot twice":     {with(sdk.SnapshotEvery(7, (*journal).snapshot, (*journal).restore)), `sdk.SnapshotEvery is given twice`},
		"snapshot never":     {sdk.EventSourced("journal", newJournal, sdk.SnapshotEvery(0, (*journal).snapshot, (*journal).restore)), `sdk.SnapshotEvery(0, …): must be at least 1`},
		"snapshot halved":    {sdk.EventSourced("journal", newJournal, sdk.SnapshotEvery(5, (*journal).snapshot, nil)), `sdk.SnapshotEvery: both functions are needed`},
		"snapshot interface": {sdk.EventSourced("journal", newJournal, sdk.SnapshotEvery(5, func(*journal) proto.Message { return nil }, func(*journal, proto.Message) {})), `sdk.SnapshotEvery: protoreflect.ProtoMessage is not a generated message`},
		"value interface":    {sdk.Value[proto.Message]("cell"), `the state protoreflect.ProtoMessage is not a generated message`},
		"no entity key":      {sdk.EventSourced("keyless", newJournal, sdk.Handle(scriptv1.KeylessService_Run_FullMethodName, handlerOf[*scriptv1.FlowRequest, *scriptv1.RunResponse]())), `method Run: no field of script.v1.FlowRequest says which entity is meant: mark one with [(cloudstate.entity_key) = true]`},
		"streamed entity":    {sdk.EventSourced("streamed", newJournal, sdk.Handle(scriptv1.StreamedService_Run_FullMethodName, (*journal).run)), `method Run streams, which entities of this kind cannot: make it unary, or move it to a service for sdk.Action`},
		"wrong shape":        {sdk.Action(sdk.Unary(flowOut, runUnary)), `sdk.Unary("/script.v1.FlowService/Out"): the method streams otherwise: handle it with sdk.ServerStream`},
		"nil client stream":  {sdk.Action(sdk.ClientStream[*scriptv1.FlowRequest, *scriptv1.RunResponse](flowIn, nil)), `sdk.ClientStream("/script.v1.FlowService/In"): the handler is nil`},
		"short passivation":  {journalService().PassivateAfter(time.Microsecond), `PassivateAfter(1µs): must be at least 1ms`},
		"action passivation": {flowService().PassivateAfter(time.Minute), `PassivateAfter(1m0s): actions have no state`},
		"wrong bidi messages": {sdk.Action(sdk.Bidi(flowBoth, func(*sdk.StreamCommand, iter.Seq2[*scriptv1.Stored, error], func(*scriptv1.RunResponse) error) error {
			return nil
		})), `the handler takes script.v1.Stored, but the method takes script.v1.FlowRequest`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			err := sdk.Check(c.service)
			if c.want == "" {
				if err != nil {
					t.Fatalf("want no problem, got:\n%v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("want a problem with\n%s\ngot\n%v", c.want, err)
			}
			for line := range strings.Lines(err.Error()) {
				if !strings.HasPrefix(line, "sdk: ") {
					t.Errorf("line without its prefix: %s", line)
				}
			}
		})
	}
}

func TestCheckReportsEverythingAtOnce(t *testing.T) {
	err := sdk.Check(sdk.EventSourced[journal]("", nil,
		sdk.Handle(journalRun, handlerOf[*scriptv1.ReadRequest, *scriptv1.RunResponse]())), sdk.Action())
	if got := len(strings.Split(err.Error(), "\n")); got != 5 {
		t.Errorf("want 5 problems, got %d:\n%v", got, err)
	}
}

func TestCheckComparesServicesWithEachOther(t *testing.T) {
	if err := sdk.Check(); err == nil || !strings.Contains(err.Error(), "no services") {
		t.Errorf("no services: got %v", err)
	}
	if err := sdk.Check(journalService(), journalService()); err == nil || !strings.Contains(err.Error(), "is given twice: remove one") {
		t.Errorf("the same service twice: got %v", err)
	}
	sameID := sdk.Value("journal", sdk.HandleValue(cellRun, runCell))
	if err := sdk.Check(journalService(), sameID); err == nil || !strings.Contains(err.Error(), "have the same persistence id") {
		t.Errorf("the same persistence id: got %v", err)
	}
	if err := sdk.Check(journalService(), cellService(), flowService()); err != nil {
		t.Errorf("three good services: got %v", err)
	}
}

// A service that did not pass Check is refused by everything that runs services.
func TestAServiceWithProblemsDoesNotRun(t *testing.T) {
	bad := sdk.EventSourced[journal]("journal", nil)
	if _, err := bad.NewEntity(entityID); err == nil {
		t.Error("NewEntity: want an error")
	}
	if _, err := sdk.NewServer(bad); err == nil {
		t.Error("NewServer: want an error")
	}
	if err := sdk.Serve(t.Context(), "127.0.0.1:0", bad); err == nil {
		t.Error("Serve: want an error")
	}
	if err := sdk.Action().Call(t.Context(), sdk.Invocation{}, nil, nil); err == nil {
		t.Error("Call: want an error")
	}
	if _, err := flowService().NewEntity(entityID); err == nil || !strings.Contains(err.Error(), "has no entities") {
		t.Errorf("NewEntity of an action: got %v", err)
	}
}

func TestPassivateAfterLeavesTheOriginalAlone(t *testing.T) {
	original := journalService()
	changed := original.PassivateAfter(time.Minute)
	equal(t, "original", original.Spec().PassivateAfter, time.Duration(0))
	equal(t, "changed", changed.Spec().PassivateAfter, time.Minute)
	if _, err := changed.NewEntity(entityID); err != nil {
		t.Error(err)
	}
}

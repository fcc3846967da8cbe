package host_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/host"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/eventsourced"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/valueentity"
)

// Each transcript is a row of conversations between the proxy and a user function, word for word.
// "engine" is what the engine sees, "function" what the function receives, "operator" what the
// hooks receive.
//
//	function [extensions]              start a function that announces optional parts of the protocol
//	open <service> <id> [snapshot=<sequence>:<text>] [events=<text>,...] [value=<text>]
//	call <method> <text>               the engine gives the session a command
//	answer <id> [text=] [none] [events=,] [snapshot=] [update=] [delete] [fail= restart code=] [forward=]
//	    [effect= sync] [type=]
//	    timer=(<name>,<after>,<method>,<text>[,<type>]) every=(<name>,<schedule>,<method>,<text>) cancel=<name>
//	give-up <command id> <description> the function sends a Failure
//	nonsense                           the function sends an empty message
//	end [status]                       the function ends the stream
//	close [stubborn]                   the engine closes the session; a stubborn function does not agree
//	stats
func TestConversations(t *testing.T) {
	datadriven.Walk(t, "testdata/conversations", func(t *testing.T, path string) {
		c := &conversation{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			c.t = t
			c.step(d)
			return c.take()
		})
		if c.stop != nil {
			c.stop()
		}
	})
}

type conversation struct {
	t        *testing.T
	function *fakeFunction
	host     *host.Host
	remote   *host.Remote
	stop     func()

	service string
	key     entities.Key
	session entities.Session
	stream  *fakeStream
	// result has the end of the running call, nil when none runs.
	result chan string
	// over is set when the engine knows that the session has ended.
	over bool

	mu   sync.Mutex
	said []string
}

func (c *conversation) sayf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.said = append(c.said, fmt.Sprintf(format, args...)+"\n")
}

func (c *conversation) take() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := strings.Join(c.said, "")
	c.said = nil
	return all
}

func (c *conversation) step(d *datadriven.TestData) {
	switch d.Cmd {
	case "function":
		c.start(d)
	case "open":
		c.open(d)
	case "call":
		c.call(d)
	case "answer":
		c.move(func() error { return c.stream.send(c.answer(d)) })
	case "give-up":
		c.move(func() error { return c.stream.send(c.giveUp(d)) })
	case "nonsense":
		c.move(func() error { return c.stream.send(c.empty()) })
	case "end":
		c.move(func() error { c.stream.end <- endStatus(d); return nil })
	case "close":
		c.close(d.HasArg("stubborn"))
	case "stats":
		c.sayf("%+v", c.remote.Stats())
	default:
		d.Fatalf(c.t, "unknown step %s", d.Cmd)
	}
}

func (c *conversation) start(d *datadriven.TestData) {
	var extensions []cloudstate.MillraceExtension
	if d.HasArg("extensions") {
		extensions = []cloudstate.MillraceExtension{
			cloudstate.MillraceExtension_MILLRACE_COMMAND_CONTEXT,
			cloudstate.MillraceExtension_MILLRACE_FAILURE_CODE,
		}
	}
	c.function = newFake(newSpec(c.t, extensions...))
	address, stop := serve(c.t, c.function, "127.0.0.1:0")
	c.host, c.remote = connect(c.t, address, host.Options{MaxCommitRecords: 3, Hooks: host.Hooks{
		OnWarning: func(message string) { c.sayf("operator: %s", message) },
		OnSessionFault: func(key entities.Key, err *entities.Error) {
			c.sayf("operator: session of %s ended: %s%s", key, plainSpaces(err.Message), because(err.Cause))
		},
	}})
	c.stop = stop
}

func because(cause error) string {
	if cause == nil {
		return ""
	}
	return ", because " + plainSpaces(cause.Error())
}

// plainSpaces replaces the random spaces that protobuf puts into its error texts.
func plainSpaces(s string) string { return strings.ReplaceAll(s, "\u00a0", " ") }

func (c *conversation) open(d *datadriven.TestData) {
	c.service, c.over = d.CmdArgs[0].Key, false
	c.key = entities.Key{Type: c.host.Catalog().Service(c.service).EntityType.Name, ID: d.CmdArgs[1].Key}
	loaded, messages := readLoaded(c.t, d)
	var err error
	c.session, err = c.host.Open(c.t.Context(), c.service, c.key, func(context.Context) (entities.Loaded, error) {
		return loaded, nil
	})
	if err != nil {
		c.sayf("engine: %s", describeError(err))
		return
	}
	c.stream = take(c.t, "a stream", c.function.streams)
	for range messages {
		c.hear()
	}
}

// readLoaded returns what is stored, and the number of messages in which the function gets it.
func readLoaded(t *testing.T, d *datadriven.TestData) (entities.Loaded, int) {
	t.Helper()
	loaded, messages := entities.Loaded{}, 1
	var events []string
	for _, arg := range d.CmdArgs[2:] {
		switch arg.Key {
		case "snapshot":
			number, text, _ := strings.Cut(arg.Vals[0], ":")
			if _, err := fmt.Sscan(number, &loaded.StateSequence); err != nil {
				d.Fatalf(t, "%v", err)
			}
			snapshot := textPayload(text)
			loaded.State = &snapshot
		case "events":
			events = strings.Split(arg.Vals[0], "+")
			messages += len(events)
		case "value":
			value := textPayload(arg.Vals[0])
			loaded.State = &value
		}
	}
	if len(events) > 0 {
		loaded.Events = func(yield func(entities.Event) error) error {
			next := loaded.StateSequence + 1
			for i, e := range events {
				if err := yield(entities.Event{Sequence: next + uint64(i), Payload: textPayload(e)}); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return loaded, messages
}

// hear prints the next message that the function receives.
func (c *conversation) hear() {
	m, err := c.stream.recv()
	switch {
	case errors.Is(err, io.EOF):
		c.sayf("function: half-close")
	case status.Code(err) == codes.Canceled:
		c.sayf("function: cancelled")
	case err != nil:
		c.sayf("function: %v", err)
	default:
		c.sayf("function: %s", oneLine(m))
	}
}

func oneLine(m proto.Message) string {
	return strings.Join(strings.Fields(prototext.MarshalOptions{}.Format(m)), " ")
}

func (c *conversation) call(d *datadriven.TestData) {
	inv := invocation(c.service, d.CmdArgs[0].Key, c.key, d.CmdArgs[1].Key)
	result := make(chan string, 1)
	c.result = result
	// Ends with the command, whose result the conversation waits for.
	go func() {
		out, err := c.session.Handle(context.WithoutCancel(c.t.Context()), inv)
		if err != nil {
			result <- describeError(err)
			return
		}
		result <- describeOutcome(out)
	}()
	if c.over {
		c.awaitEnd()
		return
	}
	c.hear()
}

// move makes the function act, and waits for what the engine sees of it.
func (c *conversation) move(do func() error) {
	if err := do(); err != nil {
		c.t.Fatalf("the function's move: %v", err)
	}
	c.awaitEnd()
}

func (c *conversation) awaitEnd() {
	if c.result == nil {
		take(c.t, "the end of the session", c.session.Ended())
		c.sayf("engine: the session has ended")
		c.over = true
		return
	}
	result := take(c.t, "the end of the call", c.result)
	c.sayf("engine: %s", result)
	c.result, c.over = nil, strings.HasPrefix(result, "error ")
}

func (c *conversation) close(stubborn bool) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.t.Context()))
	defer cancel()
	closed := make(chan struct{})
	// Ends with Close, which the conversation waits for.
	go func() {
		defer close(closed)
		c.session.Close(ctx)
	}()
	c.hear()
	if stubborn {
		cancel()
		<-c.stream.ctx.Done()
		c.sayf("function: cancelled")
	} else {
		c.stream.end <- nil
	}
	take(c.t, "the end of Close", closed)
	c.sayf("engine: closed")
}

func endStatus(d *datadriven.TestData) error {
	if len(d.CmdArgs) == 0 {
		return nil
	}
	return status.Error(codes.Internal, "it broke")
}

// answer builds the reply of either kind.
func (c *conversation) answer(d *datadriven.TestData) proto.Message {
	var id int64
	if _, err := fmt.Sscan(d.CmdArgs[0].Key, &id); err != nil {
		d.Fatalf(c.t, "%v", err)
	}
	es := &eventsourced.EventSourcedReply{CommandId: id}
	value := &valueentity.ValueEntityReply{CommandId: id}
	reply := &cloudstate.Reply{Payload: &anypb.Any{TypeUrl: textURL}}
	client := &cloudstate.ClientAction{Action: &cloudstate.ClientAction_Reply{Reply: reply}}
	failure := &cloudstate.Failure{CommandId: id}
	var (
		effects []*cloudstate.SideEffect
		timers  []*cloudstate.MillraceTimer
	)
	for _, arg := range d.CmdArgs[1:] {
		text := ""
		if len(arg.Vals) > 0 {
			text = arg.Vals[0]
		}
		switch arg.Key {
		case "text":
			reply.Payload.Value = textValue(text)
		case "type":
			reply.Payload.TypeUrl = text
		case "metadata":
			reply.Metadata = &cloudstate.Metadata{Entries: []*cloudstate.MetadataEntry{
				{Key: text, Value: &cloudstate.MetadataEntry_StringValue{StringValue: "s"}},
				{Key: text, Value: &cloudstate.MetadataEntry_BytesValue{BytesValue: []byte("b")}},
			}}
		case "no-payload":
			reply.Payload = nil
		case "none":
			client = nil
		case "fail":
			failure.Description = text
			client.Action = &cloudstate.ClientAction_Failure{Failure: failure}
		case "restart":
			failure.Restart = true
		case "code":
			failure.GrpcCode = int32(codes.FailedPrecondition)
		case "forward":
			client.Action = &cloudstate.ClientAction_Forward{Forward: &cloudstate.Forward{
				ServiceName: "t.Acts",
				CommandName: text, Payload: textAny("f"),
			}}
		case "effect", "sync-effect":
			effects = append(effects, &cloudstate.SideEffect{
				ServiceName: "t.Acts", CommandName: text, Payload: textAny("e"),
				Synchronous: arg.Key != "effect",
			})
		case "timer", "every":
			timers = append(timers, timerOf(c.t, arg))
		case "cancel":
			timers = append(timers, &cloudstate.MillraceTimer{Name: text, Cancel: true})
		case "events":
			for e := range strings.SplitSeq(text, "+") {
				es.Events = append(es.Events, textAny(e))
			}
		case "event-type":
			es.Events = append(es.Events, &anypb.Any{TypeUrl: text})
		case "event-cut-short":
			es.Events = append(es.Events, &anypb.Any{TypeUrl: textURL, Value: textValue("cut")[:2]})
		case "snapshot":
			es.Snapshot = textAny(text)
		case "update":
			value.StateAction = &valueentity.ValueEntityAction{
				Action: &valueentity.ValueEntityAction_Update{Update: &valueentity.ValueEntityUpdate{Value: textAny(text)}},
			}
		case "update-nothing":
			value.StateAction = &valueentity.ValueEntityAction{Action: &valueentity.ValueEntityAction_Update{}}
		case "delete":
			value.StateAction = &valueentity.ValueEntityAction{
				Action: &valueentity.ValueEntityAction_Delete{Delete: &valueentity.ValueEntityDelete{}},
			}
		default:
			d.Fatalf(c.t, "unknown part %s", arg.Key)
		}
	}
	if c.service == "t.Prices" {
		value.ClientAction, value.SideEffects, value.MillraceTimers = client, effects, timers
		return &valueentity.ValueEntityStreamOut{Message: &valueentity.ValueEntityStreamOut_Reply{Reply: value}}
	}
	es.ClientAction, es.SideEffects, es.MillraceTimers = client, effects, timers
	return &eventsourced.EventSourcedStreamOut{Message: &eventsourced.EventSourcedStreamOut_Reply{Reply: es}}
}

// timerOf builds a timer that is set.
func timerOf(t *testing.T, arg datadriven.CmdArg) *cloudstate.MillraceTimer {
	t.Helper()
	timer := &cloudstate.MillraceTimer{Name: arg.Vals[0], CommandName: arg.Vals[2], Payload: textAny(arg.Vals[3])}
	if len(arg.Vals) > 4 {
		timer.Payload.TypeUrl = arg.Vals[4]
	}
	if arg.Key == "every" {
		timer.Schedule = arg.Vals[1]
		return timer
	}
	after, err := time.ParseDuration(arg.Vals[1])
	if err != nil {
		t.Fatal(err)
	}
	timer.AfterNanos = int64(after)
	return timer
}

func (c *conversation) giveUp(d *datadriven.TestData) proto.Message {
	failure := &cloudstate.Failure{Description: d.CmdArgs[1].Key}
	if _, err := fmt.Sscan(d.CmdArgs[0].Key, &failure.CommandId); err != nil {
		d.Fatalf(c.t, "%v", err)
	}
	if c.service == "t.Prices" {
		return &valueentity.ValueEntityStreamOut{Message: &valueentity.ValueEntityStreamOut_Failure{Failure: failure}}
	}
	return &eventsourced.EventSourcedStreamOut{Message: &eventsourced.EventSourcedStreamOut_Failure{Failure: failure}}
}

func (c *conversation) empty() proto.Message {
	if c.service == "t.Prices" {
		return &valueentity.ValueEntityStreamOut{}
	}
	return &eventsourced.EventSourcedStreamOut{}
}

func describeError(err error) string {
	e, ok := errors.AsType[*entities.Error](err)
	if !ok {
		return "no *entities.Error: " + err.Error()
	}
	return fmt.Sprintf("error %s, reason %d, %s", plainSpaces(e.Message), e.Reason, e.Outcome)
}

func describeOutcome(out *entities.Outcome) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	switch {
	case out.Reply != nil && out.Reply.NoPayload:
		add("reply without payload")
	case out.Reply != nil:
		add("reply %q", valueText(out.Reply.Payload.Value))
	case out.Forward != nil:
		add("forward to %s/%s %q", out.Forward.Service, out.Forward.Method, valueText(out.Forward.Payload.Value))
	case out.Failure != nil:
		add("failure %q, code %d, %s", out.Failure.Message, out.Failure.Code, out.Failure.Outcome)
	default:
		add("nothing for the caller")
	}
	if out.Reply != nil && len(out.Reply.Metadata) > 0 {
		add("metadata %+v", out.Reply.Metadata)
	}
	for _, e := range out.Events {
		add("event %q", valueText(e.Value))
	}
	if out.Snapshot != nil {
		add("snapshot %q", valueText(out.Snapshot.Value))
	}
	switch out.StateAction {
	case entities.StateUpdated:
		add("update %q", valueText(out.State.Value))
	case entities.StateDeleted:
		add("delete")
	case entities.StateKept:
	}
	for _, e := range out.Effects {
		add("effect on %s/%s %q, synchronous %v", e.Service, e.Method, valueText(e.Payload.Value), e.Synchronous)
	}
	for i := range out.Timers {
		t := &out.Timers[i]
		switch {
		case t.Cancel:
			add("timer %s cancelled", t.Name)
		case t.Schedule != "":
			add("timer %s every %q on %s/%s %q", t.Name, t.Schedule, t.Target.Service, t.Target.Method,
				valueText(t.Target.Payload.Value))
		default:
			add("timer %s after %v on %s/%s %q", t.Name, t.After, t.Target.Service, t.Target.Method,
				valueText(t.Target.Payload.Value))
		}
	}
	if out.Restart {
		add("restart")
	}
	return strings.Join(parts, "; ")
}

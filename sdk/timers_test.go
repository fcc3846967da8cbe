package sdk_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/eventsourced"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/valueentity"
	"github.com/millrace-io/millrace/sdk"
	scriptv1 "github.com/millrace-io/millrace/sdk/internal/script/v1"
)

// timing is what the commands of entities can do with timers.
type timing interface {
	EntityID() string
	After(d time.Duration, name, method string, in proto.Message)
	Every(schedule, name, method string, in proto.Message)
	Cancel(name string)
}

// timingCell does with its timers as a test says, and then what the request says.
func timingCell(do func(timing)) *sdk.Service {
	return sdk.Value("cell", sdk.HandleValue(cellRun,
		func(cmd *sdk.ValueCommand[*scriptv1.Stored], in *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
			do(cmd)
			return runCell(cmd, in)
		}))
}

// timingJournal is the same for an event-sourced entity.
func timingJournal(do func(timing)) *sdk.Service {
	return sdk.EventSourced("journal", func(string) *journal { return &journal{} },
		sdk.Handle(journalRun, func(j *journal, cmd *sdk.Command, in *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
			do(cmd)
			return j.run(cmd, in)
		}),
		sdk.Handle(journalRead, (*journal).read),
		sdk.On((*journal).appended))
}

// setAll sets one timer of each sort, for a method whose request is a RunRequest.
func setAll(method string) func(timing) {
	return func(cmd timing) {
		cmd.After(time.Minute, "soon", method, &scriptv1.RunRequest{Id: cmd.EntityID()})
		cmd.Every("@hourly", "hourly", method, &scriptv1.RunRequest{Id: cmd.EntityID()})
		cmd.Cancel("old")
	}
}

func setTimers(t *testing.T, service string) []sdk.Timer {
	t.Helper()
	target := sdk.Target{Service: service, Method: "Run", Payload: payload(t, run())}
	return []sdk.Timer{
		{Name: "soon", After: time.Minute, Target: target},
		{Name: "hourly", Schedule: "@hourly", Target: target},
		{Name: "old", Cancel: true},
	}
}

func TestTimersArePartOfTheDecision(t *testing.T) {
	want := updated(t, "A")
	want.Timers = setTimers(t, "script.v1.CellService")
	equal(t, "of a value", decide(t, open(t, timingCell(setAll(cellRun))), update("A")), want)

	equal(t, "of a journal", decide(t, open(t, timingJournal(setAll(journalRun))), emit("A")), sdk.Decision{
		Events: payloads(t, appended("A")...), Reply: replies(t, "A"), Timers: setTimers(t, "script.v1.JournalService"),
	})
}

func TestARefusedCommandSetsNoTimers(t *testing.T) {
	for _, entity := range []sdk.Entity{open(t, timingCell(setAll(cellRun))), open(t, timingJournal(setAll(journalRun)))} {
		if d := decide(t, entity, refuse("no")); d.Refusal == nil || len(d.Timers) != 0 {
			t.Errorf("decided %+v, want a refusal without timers", d)
		}
	}
}

func TestMistakesWithTimersCrash(t *testing.T) {
	me := &scriptv1.RunRequest{Id: entityID}
	for want, do := range map[string]func(timing){
		"cmd.After: a timer needs a name":                                      func(cmd timing) { cmd.After(0, "", cellRun, me) },
		"cmd.After: the name of the timer has 129 bytes, and the limit is 128": func(cmd timing) { cmd.After(0, strings.Repeat("t", 129), cellRun, me) },
		`cmd.After: the name of the timer, "\xff", is not valid UTF-8`:         func(cmd timing) { cmd.After(0, "\xff", cellRun, me) },
		`cmd.After: timer "t": -1s is before the command itself`:               func(cmd timing) { cmd.After(-time.Second, "t", cellRun, me) },
		`cmd.After: timer "t": 900000h0m0s is too far ahead`:                   func(cmd timing) { cmd.After(900000*time.Hour, "t", cellRun, me) },
		`cmd.After: timer "t": "Run" is not a full method name`:                func(cmd timing) { cmd.After(0, "t", "Run", me) },
		"service script.v1.CellService has no method Walk":                     func(cmd timing) { cmd.After(0, "t", "/script.v1.CellService/Walk", me) },
		`cmd.After: timer "t": /script.v1.CellService/Run: the message is nil`: func(cmd timing) { cmd.After(0, "t", cellRun, nil) },
		"the message is a script.v1.Stored, but the method takes a script.v1.RunRequest": func(cmd timing) {
			cmd.After(0, "t", cellRun, &scriptv1.Stored{})
		},
		"/script.v1.JournalService/Run is not a method of script.v1.CellService: a timer is for the entity itself": func(cmd timing) {
			cmd.After(0, "t", journalRun, me)
		},
		`cmd.After: timer "t": the script.v1.RunRequest is for cell/e2, and this is cell/e1: a timer is for the entity itself`: func(cmd timing) {
			cmd.After(0, "t", cellRun, &scriptv1.RunRequest{Id: "e2"})
		},
		"is for cell/, and this is cell/e1":                                 func(cmd timing) { cmd.After(0, "t", cellRun, &scriptv1.RunRequest{}) },
		`cmd.Every: timer "t": schedule "@every -5s": give whole seconds`:   func(cmd timing) { cmd.Every("@every -5s", "t", cellRun, me) },
		`cmd.Every: timer "t": schedule "@every 1ms": give whole seconds`:   func(cmd timing) { cmd.Every("@every 1ms", "t", cellRun, me) },
		"cmd.Every: the schedule is empty: give five fields":                func(cmd timing) { cmd.Every("", "t", cellRun, me) },
		`cmd.Every: timer "t": schedule "daily": expected exactly 5 fields`: func(cmd timing) { cmd.Every("daily", "t", cellRun, me) },
		`cmd.Every: timer "t": schedule "0 0 30 2 *" never comes`:           func(cmd timing) { cmd.Every("0 0 30 2 *", "t", cellRun, me) },
		`cmd.Every: timer "t": schedule "TZ=UTC": schedules are in UTC`:     func(cmd timing) { cmd.Every("TZ=UTC", "t", cellRun, me) },
		"cmd.Every: a timer needs a name":                                   func(cmd timing) { cmd.Every("@daily", "", cellRun, me) },
		"cmd.Cancel: a timer needs a name":                                  func(cmd timing) { cmd.Cancel("") },
		`cmd.Cancel: timer "100": a command may change at most 100 timers`: func(cmd timing) {
			for i := range 101 {
				cmd.Cancel(strconv.Itoa(i))
			}
		},
	} {
		mustCrash(t, open(t, timingCell(do)), want, update("A"))
	}
}

func TestTimersAreNotSetAfterTheHandler(t *testing.T) {
	var kept timing
	decide(t, open(t, timingCell(func(cmd timing) { kept = cmd })))
	for name, late := range map[string]func(){
		"cmd.After":  func() { kept.After(0, "t", cellRun, &scriptv1.RunRequest{Id: entityID}) },
		"cmd.Every":  func() { kept.Every("@daily", "t", cellRun, &scriptv1.RunRequest{Id: entityID}) },
		"cmd.Cancel": func() { kept.Cancel("t") },
	} {
		func() {
			defer func() {
				if err, ok := recover().(error); !ok || !strings.Contains(err.Error(), name+" after the handler of Run returned") {
					t.Errorf("%s: %v", name, err)
				}
			}()
			late()
		}()
	}
}

// wireTimers are those of setAll, as a proxy gets them.
func wireTimers(t *testing.T) []*cloudstate.MillraceTimer {
	t.Helper()
	me := pack(t, run())
	return []*cloudstate.MillraceTimer{
		{Name: "soon", AfterNanos: int64(time.Minute), CommandName: "Run", Payload: me},
		{Name: "hourly", Schedule: "@hourly", CommandName: "Run", Payload: me},
		{Name: "old", Cancel: true},
	}
}

func TestTimersTravelToAProxyThatKeepsThem(t *testing.T) {
	f := start(t, timingCell(setAll(cellRun)), timingJournal(setAll(journalRun)))
	keeps := &cloudstate.CommandContext{Timers: true}

	toJournal := journalCommand(t, 1, emit("A"))
	toJournal.GetCommand().Context = keeps
	f.journal(t).send(journalInit(nil)).send(toJournal).
		expect(journalReply(&eventsourced.EventSourcedReply{
			CommandId: 1, ClientAction: replyAction(t, "A"), Events: anyEvents(t, "A"), MillraceTimers: wireTimers(t),
		})).passivate()

	toCell := cellCommand(t, 1, update("A"))
	toCell.GetCommand().Context = keeps
	f.cell(t).send(cellInit(nil)).send(toCell).
		expect(cellReply(&valueentity.ValueEntityReply{
			CommandId: 1, ClientAction: replyAction(t, "A"), StateAction: cellUpdate(t, "A"), MillraceTimers: wireTimers(t),
		})).passivate()
}

// A proxy that keeps no timers would lose them silently: the command fails, and nothing of it takes
// effect.
func TestTimersAreNotLostAtAProxyThatKeepsNone(t *testing.T) {
	f := start(t, timingCell(setAll(cellRun)), timingJournal(setAll(journalRun)))
	const why = `timer "soon": this proxy keeps no timers: nothing was applied; run the function beside a millrace worker`
	f.journal(t).send(journalInit(nil)).send(journalCommand(t, 1, emit("A"))).
		expect(journalFailure(1, "script.v1.JournalService/Run of journal/e1: "+why)).expectEnd()

	older := cellCommand(t, 1, update("A"))
	older.GetCommand().Context = &cloudstate.CommandContext{CommandId: "c-1"}
	f.cell(t).send(cellInit(nil)).send(older).
		expect(cellFailure(1, "script.v1.CellService/Run of cell/e1: "+why)).expectEnd()
}

package sim

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/entities"
)

// alarms is the memory image of an entity with timers. Its state lists the timers that it waits
// for, by name and the number of the command that set it, and with a "!" those that fired
// unexpectedly. Its commands are texts: "set name number ms", "cancel name", "fired name number",
// "get".
type alarms struct {
	function hosted
	key      entities.Key
	waits    map[string]string
	wrong    []string
}

func openAlarms(h hosted, key entities.Key, stored string) *alarms {
	a := &alarms{function: h, key: key, waits: map[string]string{}}
	for word := range strings.FieldsSeq(stored) {
		if name, number, ok := strings.Cut(word, "="); ok && word[0] != '!' {
			a.waits[name] = number
		} else {
			a.wrong = append(a.wrong, word)
		}
	}
	return a
}

func (a *alarms) String() string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(a.waits)) {
		words = append(words, name+"="+a.waits[name])
	}
	return strings.Join(append(words, a.wrong...), " ")
}

func (a *alarms) Handle(_ context.Context, inv entities.Invocation) (*entities.Outcome, error) {
	text := string(inv.Payload.Value)
	switch a.function.arrive(&gated{
		worker: a.function.worker, key: a.key.ID, text: text, id: inv.ID, verdict: make(chan verdict),
	}) {
	case crash:
		a.wrong = append(a.wrong, "!crashed") // this memory must not be seen again
		return nil, entities.Errorf(entities.FunctionFailed, entities.NotApplied, "crashed")
	case refuse:
		return refusal(noText), nil
	case decide:
	}
	return a.decide(text), nil
}

func (a *alarms) decide(text string) *entities.Outcome {
	words := strings.Fields(text)
	out := &entities.Outcome{StateAction: entities.StateUpdated}
	switch words[0] {
	case "set":
		ms, err := strconv.Atoi(words[3])
		if err != nil {
			panic(err)
		}
		a.waits[words[1]] = words[2]
		out.Timers = []entities.TimerChange{{
			Name: words[1], After: time.Duration(ms) * time.Millisecond,
			Target: entities.Target{
				Service: service, Method: a.key.ID,
				Payload: entities.Payload{Value: fmt.Appendf(nil, "fired %s %s", words[1], words[2])},
			},
		}}
	case "cancel":
		delete(a.waits, words[1])
		out.Timers = []entities.TimerChange{{Name: words[1], Cancel: true}}
	case "fired":
		if a.waits[words[1]] != words[2] {
			a.wrong = append(a.wrong, "!"+words[1]+"="+words[2])
			break
		}
		delete(a.waits, words[1])
	default:
		return &entities.Outcome{Reply: a.reply()}
	}
	out.State = entities.Payload{TypeURL: "sim/alarms", Value: []byte(a.String())}
	out.Reply = a.reply()
	return out
}

func (a *alarms) reply() *entities.Reply {
	return &entities.Reply{Payload: entities.Payload{TypeURL: "sim/reply", Value: []byte(a.String())}}
}

func (a *alarms) Close(context.Context)  {}
func (a *alarms) Ended() <-chan struct{} { return nil }
func (a *alarms) Size() int              { return 64 }

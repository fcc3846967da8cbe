package fire

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/millrace-io/millrace/tests/conformance/proto/vemodel"
)

const (
	// mirrored is what the ids of mirrors begin with.
	mirrored = "m-"
	// mirrorPause is the pause between two reads of a mirror.
	mirrorPause = 50 * time.Millisecond
)

// scripts are value entities that do what requests say; see worker/script.go. Each slot is a number
// that is kept. Every command that gives one sends it on to the entity's mirror, as an effect.
type scripts struct{}

func (scripts) kind() string { return "script" }
func (scripts) slots() int   { return mostCommands }

func (scripts) call(ctx context.Context, conn grpc.ClientConnInterface, id string, c *command,
	opts ...grpc.CallOption,
) (contents, error) {
	if c.kind == give {
		return perform(ctx, conn, task{id: id, slot: c.slot, gives: true, sleep: c.sleep, effects: []string{mirrored + id}},
			opts...)
	}
	return perform(ctx, conn, task{id: id}, opts...)
}

// task is a request to a script: to keep a slot, and to send it to others.
type task struct {
	id    string
	slot  int
	gives bool
	// padding is how many bytes are kept beside the slots, sleep and slow how many milliseconds the
	// entity and its targets take.
	padding, sleep, slow int
	effects              []string
	synchronous          bool
	forward              string
}

func (k task) request() *vemodel.Request {
	in := &vemodel.Request{Id: k.id}
	if k.gives {
		in.Actions = append(in.Actions, &vemodel.RequestAction{Action: &vemodel.RequestAction_Update{
			Update: &vemodel.Update{Value: fmt.Sprintf("%d %d %d %d", k.slot, k.padding, k.sleep, k.slow)},
		}})
	}
	for _, id := range k.effects {
		in.Actions = append(in.Actions, &vemodel.RequestAction{Action: &vemodel.RequestAction_Effect{
			Effect: &vemodel.Effect{Id: id, Synchronous: k.synchronous},
		}})
	}
	if k.forward != "" {
		in.Actions = append(in.Actions,
			&vemodel.RequestAction{Action: &vemodel.RequestAction_Forward{Forward: &vemodel.Forward{Id: k.forward}}})
	}
	return in
}

// perform sends a task and returns what the answer shows.
func perform(ctx context.Context, conn grpc.ClientConnInterface, k task, opts ...grpc.CallOption) (contents, error) {
	out, err := vemodel.NewValueEntityTckModelClient(conn).Process(ctx, k.request(), opts...)
	if err != nil {
		return contents{}, err
	}
	return scripted(out.GetMessage()), nil
}

// scripted reads the numbers that a script keeps.
func scripted(numbers string) contents {
	var saw contents
	times := map[int]int64{}
	for number := range strings.FieldsSeq(numbers) {
		slot, err := strconv.Atoi(number)
		if err != nil {
			slot = -1
		}
		times[slot]++
	}
	for _, slot := range slices.Sorted(maps.Keys(times)) {
		saw.add(strconv.Itoa(slot), times[slot])
	}
	return saw
}

// awaitMirror waits until the effects of an entity have arrived, and compares both: what it shows
// in the end was given to the mirror once, and nothing that was denied.
func (w *world) awaitMirror(e *entity, want remains) {
	mirror := &entity{thing: scripts{}, id: mirrored + e.id}
	rng := rand.New(rand.NewPCG(w.seed, uint64(len(e.history))))
	var found []violation
	for deadline := w.now() + int64(2*healing); w.ctx.Err() == nil; {
		c := &command{kind: look}
		w.gate.RLock()
		seen := w.call(mirror, c, rng)
		w.gate.RUnlock()
		if seen == done {
			if found = want.compare(mirror.name(), c.showed); len(found) == 0 {
				w.mu.Lock()
				w.finished[mirror.name()] = want
				w.mu.Unlock()
				return
			}
			if found[0].promise != lostWrite { // it may be under way
				break
			}
		}
		if w.now() > deadline {
			if len(found) == 0 {
				found = []violation{{unhealed, mirror.name(), "it cannot be looked at"}}
			}
			break
		}
		w.wait(mirrorPause)
	}
	for _, v := range found {
		w.broken(violation{v.promise, v.entity, "an effect: " + v.text})
	}
}

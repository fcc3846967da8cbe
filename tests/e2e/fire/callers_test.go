package fire

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/tests/conformance/proto/vemodel"
)

const (
	// soon bounds what takes no more than seconds while nothing fails.
	soon = 20 * time.Second
	// reachPause is how long a call of a scene is given to reach its entity.
	reachPause = 50 * time.Millisecond
	// longTask is how long the command takes for which others wait, in milliseconds.
	longTask = 500
	// floodCommands, each with floodEffects, are more than a partition holds in memory.
	floodCommands, floodEffects = 5, 900
	// slowTargets are more than a partition sends at a time; slowTask is how long each takes, in
	// milliseconds.
	slowTargets, slowTask = 80, 5_000
)

// callerFaults are what callers can do to each other, each a scene of its own on entities of its
// own.
func callerFaults() []fault {
	return []fault{
		{"both attempts leave", (*world).bothLeave},
		{"left and sent again", (*world).leaveAndRepeat},
		{"forwards repeated", (*world).repeatForwards},
		{"large values", (*world).largeValues},
		{"effects parked", (*world).parkEffects},
		{"target dead", (*world).deadTarget},
		{"targets slow", (*world).slowTarget},
	}
}

// scene makes the id of a script that no client works on; in names its partition, -1: any.
func (w *world) scene(in int32) string {
	for {
		w.scenes++
		id := fmt.Sprintf("%s-scene-%d", w.name, w.scenes)
		if in < 0 || entities.Partition(id, partitions) == in {
			return id
		}
	}
}

// attempt is one call of a scene and how it ended.
type attempt struct {
	saw     contents
	err     error
	outcome string
}

// try sends a task once.
func (w *world) try(ctx context.Context, k task, id string, rng *rand.Rand) attempt {
	if id != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "millrace-command-id", id)
	}
	var trailer metadata.MD
	saw, err := perform(ctx, w.door(rng).conn, k, grpc.WaitForReady(true), grpc.Trailer(&trailer))
	return attempt{saw, err, strings.Join(trailer.Get("millrace-outcome"), "")}
}

// insist sends a task again and again until it is answered, or its function or that of its forward
// refuses, within soon; a worker that ends by itself is started again.
func (w *world) insist(k task, id string) attempt {
	w.t.Helper()
	var a attempt
	for deadline := w.now() + int64(soon); w.now() < deadline && w.ctx.Err() == nil; w.wait(reachPause) {
		w.revive()
		ctx, cancel := context.WithTimeout(w.ctx, callTimeout)
		a = w.try(ctx, k, id, w.rng)
		cancel()
		if a.err == nil || a.outcome == "refused" || a.outcome == "applied" {
			break
		}
	}
	return a
}

// await looks at an entity until it shows something, within a time; it returns what it has seen
// last.
func (w *world) await(id string, within time.Duration, shows func(contents) bool) (contents, bool) {
	w.t.Helper()
	var a attempt
	for deadline := w.now() + int64(within); w.now() < deadline && w.ctx.Err() == nil; w.wait(reachPause) {
		if a = w.insist(task{id: id}, ""); a.err == nil && shows(a.saw) {
			return a.saw, true
		}
	}
	return a.saw, false
}

// bothLeave makes two calls with one id wait for a long one. Both leave, the later one first. The
// entity must go on serving.
func (w *world) bothLeave() bool {
	id := w.scene(-1)
	if a := w.insist(task{id: id}, ""); a.err != nil {
		return false
	}
	var calls sync.WaitGroup
	call := func(id string, k task) context.CancelFunc {
		ctx, cancel := context.WithTimeout(w.ctx, callTimeout)
		rng := rand.New(rand.NewPCG(w.rng.Uint64(), 0))
		calls.Go(func() { w.try(ctx, k, id, rng) }) // bounded by callTimeout
		w.wait(reachPause)
		return cancel
	}
	endLong := call("", task{id: id, slot: 0, gives: true, sleep: longTask})
	defer endLong()
	k := task{id: id, slot: 1, gives: true}
	endFirst := call(id+"-x", k)
	endAgain := call(id+"-x", k)
	endAgain()
	w.wait(reachPause)
	endFirst()
	calls.Wait()
	if a := w.insist(task{id: id}, ""); a.err != nil {
		w.broken(violation{unhealed, "script/" + id, fmt.Sprintf("two calls with one id waited, and left: nothing is answered for %v: %v", soon, a.err)})
	}
	return true
}

// leaveAndRepeat leaves a command while it runs, and sends it again with little time. If that is
// said to be not applied it must be so.
func (w *world) leaveAndRepeat() bool {
	id := w.scene(-1)
	if a := w.insist(task{id: id}, ""); a.err != nil {
		return false
	}
	p := w.worker()
	k := task{id: id, slot: 7, gives: true, sleep: 2 * longTask}
	short := longTask / 2 * time.Millisecond
	ctx, cancel := context.WithTimeout(w.ctx, short)
	w.post(ctx, p.Public(), k, id+"-x", 0)
	cancel()
	told := w.post(w.ctx, p.Public(), k, id+"-x", short)
	w.judgeDenial(id, 7, told)
	return told != ""
}

// judgeDenial: what was reported as not applied must not be there.
func (w *world) judgeDenial(id string, slot int, told string) {
	w.outcome("left and sent again: " + told)
	if told != "not_applied" {
		return
	}
	if saw, _ := w.await(id, 2*longTask*time.Millisecond, func(c contents) bool {
		return c.set.has(slot)
	}); saw.set.has(slot) {
		w.broken(violation{falseNever, "script/" + id, fmt.Sprintf("%d was sent, left and sent again: not_applied, and it is there", slot)})
	}
}

// post sends a task over HTTP, where the server's answer also arrives when its time is over, and
// returns its outcome: done, or that of the error; "" when there is no answer.
func (w *world) post(ctx context.Context, address string, k task, id string, timeout time.Duration) string {
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	body := fmt.Sprintf(`{"id":%q}`, k.id)
	if k.gives {
		body = fmt.Sprintf(`{"id":%q,"actions":[{"update":{"value":"%d %d %d %d"}}]}`, k.id, k.slot, k.padding,
			k.sleep, k.slow)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost,
		"http://"+address+vemodel.ValueEntityTckModel_Process_FullMethodName, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Close = true
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Connect-Protocol-Version", "1")
	if id != "" {
		req.Header.Set("Idempotency-Key", id)
	}
	if timeout > 0 {
		req.Header.Set("Connect-Timeout-Ms", fmt.Sprint(timeout.Milliseconds()))
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return ""
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusOK {
		return "done"
	}
	for _, name := range []string{"Millrace-Outcome", "Trailer-Millrace-Outcome"} {
		if outcome := res.Header.Get(name); outcome != "" {
			return outcome
		}
	}
	return "no outcome"
}

// repeatForwards sends commands again whose answers came from others: one that was answered, one
// that was refused.
func (w *world) repeatForwards() bool {
	from, to := w.scene(-1), w.scene(-1)
	// Progress is sent with what goes the same way.
	for entities.Partition("no-"+to, partitions) != entities.Partition(to, partitions) {
		to = w.scene(-1)
	}
	accepted := task{id: from, slot: 1, gives: true, forward: to}
	denied := task{id: from, slot: 2, gives: true, forward: "no-" + to}
	first, second := w.insist(accepted, from+"-x"), w.insist(denied, from+"-y")
	if first.err != nil || second.outcome != "applied" { // it stored its slot, and its forward was refused
		return false
	}
	for n := range 3 {
		w.insist(task{id: from, slot: 10 + n, gives: true, forward: to}, fmt.Sprintf("%s-z%d", from, n))
	}
	w.wait(2 * time.Second) // the target forgets what the source has settled
	for _, r := range []struct {
		task
		id   string
		want attempt
	}{{accepted, from + "-x", first}, {denied, from + "-y", second}} {
		got := w.insist(r.task, r.id)
		if got.saw != r.want.saw || got.outcome != r.want.outcome || status.Code(got.err) != status.Code(r.want.err) ||
			status.Convert(got.err).Message() != status.Convert(r.want.err).Message() {
			w.broken(violation{otherBytes, "script/" + from, fmt.Sprintf("the forward %s was answered with %v %s %v, and sent again with %v %s %v",
				r.id, r.want.saw.set, r.want.outcome, r.want.err, got.saw.set, got.outcome, got.err)})
		}
	}
	return true
}

// largeValues stores values near the limit of one command, many at a time, while nothing else
// happens: each is answered.
func (w *world) largeValues() bool {
	w.revive()
	happened := false
	w.quietly(func() {
		for id := range int32(partitions) { // so that every partition is served
			if a := w.insist(task{id: w.scene(id)}, ""); a.err != nil {
				return
			}
		}
		const some, each = 24, 3
		var calls sync.WaitGroup
		for n := range some {
			k := task{id: w.scene(0), gives: true, padding: 300_000}
			if n%4 == 0 {
				k.padding = 700_000
			}
			rng := rand.New(rand.NewPCG(w.rng.Uint64(), 0))
			calls.Go(func() { // bounded by soon
				for k.slot = range each {
					ctx, cancel := context.WithTimeout(w.ctx, soon)
					a := w.try(ctx, k, fmt.Sprintf("%s-%d", k.id, k.slot), rng)
					cancel()
					if a.err != nil {
						w.broken(violation{
							unexpected, "script/" + k.id,
							fmt.Sprintf("a value of %d bytes, while nothing fails: %s %v", k.padding, a.outcome, a.err),
						})
						return
					}
				}
			})
		}
		calls.Wait()
		happened = true
	})
	return happened
}

// passes sends one effect from an entity in a partition to one in another, and returns how long it
// took.
func (w *world) passes(from string, why string, within time.Duration) {
	to := w.scene((entities.Partition(from, partitions) + 1) % partitions)
	began := w.now()
	if a := w.insist(task{id: from, slot: 100, gives: true, effects: []string{to}}, from+"-good-"+to); a.err != nil {
		return // what keeps commands from being answered is found elsewhere
	}
	if _, ok := w.await(to, within, func(c contents) bool { return c.set.has(100) }); !ok {
		w.broken(violation{
			heldUp, "script/" + to,
			fmt.Sprintf("an effect of script/%s does not come for %v: %s", from, time.Duration(w.now()-began), why),
		})
	}
}

// parkEffects makes more effects that cannot be delivered, or are refused, than a partition holds
// in memory. Others pass.
func (w *world) parkEffects() bool {
	from := w.scene(1)
	if w.parked == "" { // they stay
		w.parked = from
		for n := range floodCommands {
			k := task{id: from, slot: n, gives: true, effects: slices.Repeat([]string{""}, floodEffects)}
			for i := range 50 {
				k.effects[i] = "no-" + from
			}
			if a := w.insist(k, fmt.Sprintf("%s-%d", from, n)); a.err != nil {
				w.parked = ""
				return false
			}
		}
	}
	w.passes(from, "many of its partition cannot be delivered", soon)
	return true
}

// deadTarget sends effects to an entity at whose commands the function exits each time. Others
// pass.
func (w *world) deadTarget() bool {
	from := w.scene(2)
	if w.dead == "" { // they are tried forever
		w.dead = from
		target := "dead-" + w.scene(-1)
		if a := w.insist(task{id: from, gives: true, effects: slices.Repeat([]string{target}, slowTargets)},
			from+"-x"); a.err != nil {
			w.dead = ""
			return false
		}
	}
	w.passes(from, "a target of its partition is dead", soon)
	return true
}

// slowTarget sends effects to more entities of one partition than are sent to at a time, each of
// which takes long. Effects for others pass before the first of those is over.
func (w *world) slowTarget() bool {
	from := w.scene(3)
	k := task{id: from, gives: true, slow: slowTask}
	for range slowTargets {
		k.effects = append(k.effects, w.scene(3))
	}
	if a := w.insist(k, from+"-x"); a.err != nil {
		return false
	}
	w.passes(from, "other targets of its partition are slow", slowTask*time.Millisecond*3/4)
	return true
}

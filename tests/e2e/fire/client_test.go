package fire

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	// callTimeout bounds one call. It is shorter than many faults, so that callers give up during
	// them.
	callTimeout = 3 * time.Second
	// stubborn is how long a caller retries with the same id.
	stubborn = 12 * time.Second
)

// Behaviours of callers, chosen by name as faults are.
const (
	hedging   = "callers hedge"
	leaving   = "callers leave"
	repeating = "callers repeat"
	// mostKept is how many acknowledged commands a client remembers, to send one of them again from
	// time to time, and how many whose outcome is unknown, to send them again in the end.
	mostKept = 32
	// shortest is the longest wait of a caller that leaves early.
	shortest = 40 * time.Millisecond
)

// client makes one call after the other.
type client struct {
	world *world
	name  string
	rng   *rand.Rand
	sent  int
	// kept are acknowledged commands, open those with an id whose outcome is unknown.
	kept, open []kept
}

// kept is a command that was sent.
type kept struct {
	entity  *entity
	command command
}

func newClient(w *world, i int) *client {
	return &client{world: w, name: fmt.Sprintf("%s-%d", w.name, i), rng: rand.New(rand.NewPCG(w.seed, uint64(i)+1))}
}

// run works until the world stops.
func (c *client) run() {
	for !c.world.stopping() {
		c.world.gate.RLock()
		over := c.step()
		c.world.gate.RUnlock()
		c.world.pool.hand(over) // not within the gate: the checkers pass it too, and would wait for this client
	}
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	c.world.kept = append(c.world.kept, c.kept...)
	c.world.open = append(c.world.open, c.open...)
}

// step makes one command. Two of three have an id. It returns the entity if that is over.
func (c *client) step() (over *entity) {
	c.sent++
	id := ""
	if c.rng.IntN(3) > 0 {
		id = fmt.Sprintf("%s-%d", c.name, c.sent)
	}
	e, cmd := c.world.pool.begin(c.rng, id)
	result := *cmd
	c.send(e, &result)
	c.world.count(&result)
	over = c.world.pool.end(e, cmd, result)
	switch {
	case result.id != "" && result.fate == done:
		c.kept = append(c.kept, kept{e, result})
		c.kept = c.kept[max(0, len(c.kept)-mostKept):]
	case result.id != "" && result.fate == unknown:
		c.open = append(c.open, kept{e, result})
		c.open = c.open[max(0, len(c.open)-mostKept):]
	default:
	}
	if len(c.kept) > 0 && c.rng.IntN(16) == 0 && c.world.chosen(repeating) {
		c.world.repeat(c.kept[c.rng.IntN(len(c.kept))], c.rng)
	}
	return over
}

// repeat sends an acknowledged command again: it gets the answer that it got before, or one that
// does not deny it.
func (w *world) repeat(k kept, rng *rand.Rand) {
	again := k.command
	switch f := w.call(k.entity, &again, rng); {
	case f == never || f == refused:
		w.broken(violation{falseNever, k.entity.name(), fmt.Sprintf("%v, and sent again: %v", &k.command, f)})
	case f == done && again.showed != k.command.showed:
		w.broken(violation{
			otherBytes, k.entity.name(),
			fmt.Sprintf("%v, and sent again it showed %v", &k.command, again.showed),
		})
	case f == done:
		w.outcome("acknowledged commands sent again")
	default:
	}
}

// send makes the calls of one command, and notes what came of it. A command with an id is mostly
// sent again until something definite is known; one without is sent once.
func (c *client) send(e *entity, cmd *command) {
	w := c.world
	cmd.called = w.now()
	defer func() { cmd.returned = w.now() }()
	denied := true // every attempt was answered not applied, or the last one where that speaks of all
	sure := true   // no earlier attempt can still be under way
	for began := cmd.called; ; {
		f := c.attempt(e, cmd)
		denied = f == never && (denied || w.strict())
		switch {
		case f == done || f == refused && (sure || w.strict()):
			cmd.fate = f
			return
		case f == refused: // it is about the state that the function saw then
			cmd.fate, cmd.missing = unknown, false
			return
		case denied && (cmd.id == "" || c.rng.IntN(2) == 0):
			cmd.fate = never
			return
		case cmd.id == "" || w.stopping() || w.now()-began > int64(stubborn) || c.rng.IntN(8) == 0:
			cmd.fate = unknown
			return
		}
		sure = sure && f == never
	}
}

// strict: not_applied speaks of all attempts that have ended. With one door no earlier attempt can
// still be under way.
func (w *world) strict() bool { return len(w.doors) == 1 && w.chosen(leaving) }

// attempt sends a command once, or twice at the same time, or leaves early. Only those with an id
// do that.
func (c *client) attempt(e *entity, cmd *command) fate {
	const one = 8
	switch w := c.world; {
	case cmd.id == "":
		return w.call(e, cmd, c.rng)
	case c.rng.IntN(one) == 0 && w.chosen(hedging):
		return c.hedge(e, cmd)
	case c.rng.IntN(one) == 0 && w.chosen(leaving):
		return w.callWithin(e, cmd, c.rng, time.Duration(1+c.rng.Int64N(int64(shortest))))
	default:
		return w.call(e, cmd, c.rng)
	}
}

// hedge sends a command twice at the same time, under one id: both get the same answer, or one gets
// it. The error of one attempt says nothing of the other one.
func (c *client) hedge(e *entity, cmd *command) fate {
	w := c.world
	copies, fates := [2]command{*cmd, *cmd}, [2]fate{}
	var both sync.WaitGroup
	for i := range copies {
		rng := rand.New(rand.NewPCG(c.rng.Uint64(), 0))
		both.Go(func() { fates[i] = w.call(e, &copies[i], rng) }) // bounded by callTimeout
	}
	both.Wait()
	w.outcome("calls hedged")
	if fates[0] != done {
		copies[0], copies[1], fates[0], fates[1] = copies[1], copies[0], fates[1], fates[0]
	}
	switch {
	case fates[0] == done && fates[1] == done && copies[0].showed != copies[1].showed:
		w.broken(violation{otherBytes, e.name(), fmt.Sprintf("%s %d id %s twice at once showed %v and %v", cmd.kind,
			cmd.slot, cmd.id, copies[0].showed, copies[1].showed)})
		return unknown
	case fates[0] == done, fates[0] == fates[1]:
		*cmd = copies[0]
		return fates[0]
	default:
		return unknown
	}
}

// call makes one call and returns what its answer means.
func (w *world) call(e *entity, cmd *command, rng *rand.Rand) fate {
	return w.callWithin(e, cmd, rng, callTimeout)
}

// callWithin is call with less time.
func (w *world) callWithin(e *entity, cmd *command, rng *rand.Rand, within time.Duration) fate {
	ctx, cancel := context.WithTimeout(w.ctx, within)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, cmd.headers()...)
	if cmd.id != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "millrace-command-id", cmd.id)
	}
	var header, trailer metadata.MD
	d := w.door(rng)
	from := w.now()
	saw, err := e.call(ctx, d.conn, e.id, cmd, grpc.WaitForReady(true), grpc.Header(&header), grpc.Trailer(&trailer))
	outcome, code := strings.Join(trailer.Get("millrace-outcome"), ""), status.Code(err)
	failed := ""
	if err != nil && outcome != "refused" {
		failed = strings.TrimSpace(code.String() + " " + outcome)
	}
	w.calls.note(d.gateway, from, w.now(), failed)
	if err == nil {
		cmd.showed = saw
		cmd.token = strings.Join(header.Get("millrace-token"), "")
		w.answers.Add(1)
		return done
	}
	if w.ctx.Err() != nil {
		return unknown // the test is over
	}
	w.note(code, outcome, err)
	switch {
	case outcome == "refused" && (code == codes.NotFound || code == codes.FailedPrecondition):
		cmd.missing = code == codes.NotFound
		w.answers.Add(1)
		return refused
	case !w.trouble().allows(cmd, code, outcome):
		w.broken(violation{unexpected, e.name(), fmt.Sprintf("%s %s: %v", cmd.kind, outcome, err)})
		return unknown
	case outcome == "not_applied":
		return never
	default:
		return unknown
	}
}

// door is a way to the entities.
type door struct {
	conn *grpc.ClientConn
	// gateway: it is one's, not a worker's.
	gateway bool
}

// door picks one at random, if there is a choice one whose process can be reached, as a client does
// that balances its load.
func (w *world) door(rng *rand.Rand) door {
	first := rng.IntN(len(w.doors))
	for i := range w.doors {
		d := w.doors[(first+i)%len(w.doors)]
		switch d.conn.GetState() {
		case connectivity.Ready:
			return d
		case connectivity.Idle:
			d.conn.Connect()
		default:
		}
	}
	return w.doors[first]
}

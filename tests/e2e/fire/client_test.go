package fire

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	// callTimeout bounds one call. It is shorter than many faults, so that callers give up in the midst of them.
	callTimeout = 3 * time.Second
	// stubborn is how long a caller goes on under the same id.
	stubborn = 12 * time.Second
)

// troubles are the codes that a caller may see while something fails.
var troubles = []codes.Code{
	codes.Unavailable,       // it is not known what happened, or the worker is gone
	codes.Aborted,           // the partition is on the move
	codes.DeadlineExceeded,  // nobody answered in time
	codes.ResourceExhausted, // too many wait
	codes.Unknown,           // the function died over the command, as Cloudstate has it
}

// client makes one call after the other.
type client struct {
	world *world
	name  string
	rng   *rand.Rand
	sent  int
}

func newClient(w *world, i int) *client {
	return &client{world: w, name: fmt.Sprintf("%s-%d", w.name, i), rng: rand.New(rand.NewPCG(w.seed, uint64(i)+1))}
}

// run works until the world stops.
func (c *client) run() {
	for !c.world.stopping() {
		c.world.gate.RLock()
		c.step()
		c.world.gate.RUnlock()
	}
}

// step makes one command. Two of three have an id.
func (c *client) step() {
	c.sent++
	id := ""
	if c.rng.IntN(3) > 0 {
		id = fmt.Sprintf("%s-%d", c.name, c.sent)
	}
	e, cmd := c.world.pool.begin(c.rng, id)
	result := *cmd
	c.send(e, &result)
	c.world.count(&result)
	c.world.pool.end(e, cmd, result)
}

// send makes the calls of one command, and notes what came of it. A command with an id is mostly sent again until something
// definite is known; one without is sent once.
func (c *client) send(e *entity, cmd *command) {
	w := c.world
	cmd.called = w.now()
	defer func() { cmd.returned = w.now() }()
	denied := true // every attempt was said to be not applied
	for began := cmd.called; ; {
		f := w.call(e, cmd, c.rng)
		denied = denied && f == never
		switch {
		case f == done || f == refused:
			cmd.fate = f
			return
		case denied && (cmd.id == "" || c.rng.IntN(2) == 0):
			cmd.fate = never
			return
		case cmd.id == "" || w.stopping() || w.now()-began > int64(stubborn) || c.rng.IntN(8) == 0:
			cmd.fate = unknown
			return
		}
	}
}

// call makes one call and says what its answer means.
func (w *world) call(e *entity, cmd *command, rng *rand.Rand) fate {
	ctx, cancel := context.WithTimeout(w.ctx, callTimeout)
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
	case !slices.Contains(troubles, code) || outcome == "refused":
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

// door picks one at random, if there is a choice one whose process can be reached, as a client does that balances its load.
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

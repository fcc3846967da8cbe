package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/millrace-io/millrace/entities"
)

const service = "sim.Cells"

// cells is a value entity that holds a number. Its commands are texts: "add n", "get", "cas a b",
// "send n id" (adds n here and, by an effect, to another cell).
var cellType = &entities.EntityType{Service: service, Name: "cell", Kind: entities.Value}

func command(id, text string) *entities.Command {
	of := cellType
	if id[0] == 'd' {
		of = remoteType
	}
	return &entities.Command{
		Service: of.Service, Method: id, Type: of, Key: entities.Key{Type: of.Name, ID: id},
		Payload: entities.Payload{TypeURL: "sim/command", Value: []byte(text)},
	}
}

// gated is a call of a function that waits for the scheduler.
type gated struct {
	worker  string
	key     string
	text    string
	id      string
	verdict chan verdict
}

type verdict uint8

const (
	decide verdict = iota
	crash
	refuse
)

// functions is the user function of all workers. Every call waits at a gate until the scheduler
// releases it.
type functions struct {
	mu      sync.Mutex
	waiting []*gated
	// open: the gate is open.
	open bool
	// trouble is that of the remote service's function.
	trouble trouble
	// ahead: sessions take commands before their turn. early is how many were decided by then.
	ahead bool
	early int
}

func (f *functions) arrive(g *gated) verdict {
	f.mu.Lock()
	if f.open && !f.holds(g) {
		f.mu.Unlock()
		return decide
	}
	f.waiting = append(f.waiting, g)
	f.mu.Unlock()
	return <-g.verdict
}

// holds reports whether a call gets no answer for now. The lock is held.
func (f *functions) holds(g *gated) bool { return f.trouble == slow && g.key[0] == 'd' }

// remoteTrouble returns what the remote service's function does.
func (f *functions) remoteTrouble() trouble {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.trouble
}

// answerable returns the waiting calls that may be answered now.
func (f *functions) answerable() []*gated {
	return slices.DeleteFunc(f.calls(), func(g *gated) bool { return g.key[0] == 'd' && f.remoteTrouble() == slow })
}

// calls returns the waiting calls in an order that does not depend on how goroutines were
// scheduled.
func (f *functions) calls() []*gated {
	f.mu.Lock()
	defer f.mu.Unlock()
	slices.SortFunc(f.waiting, func(a, b *gated) int {
		return cmp.Or(cmp.Compare(a.worker, b.worker), cmp.Compare(a.key, b.key), cmp.Compare(a.id, b.id),
			cmp.Compare(a.text, b.text))
	})
	return slices.Clone(f.waiting)
}

func (f *functions) release(g *gated, v verdict) {
	f.mu.Lock()
	f.waiting = slices.DeleteFunc(f.waiting, func(w *gated) bool { return w == g })
	f.mu.Unlock()
	g.verdict <- v
}

// hosted is the function of one worker.
type hosted struct {
	*functions
	worker string
}

func (h hosted) Open(ctx context.Context, _ string, key entities.Key, load entities.Loader) (entities.Session, error) {
	if key.Type == remoteType.Name && h.remoteTrouble() == down {
		return nil, errDown
	}
	loaded, err := load(ctx)
	if err != nil {
		return nil, err
	}
	stored := ""
	if loaded.State != nil {
		stored = string(loaded.State.Value)
	}
	session, err := openImage(h, key, stored)
	if err != nil || !h.ahead {
		return session, err
	}
	return &ahead{imagined: session, functions: h.functions}, nil
}

func openImage(h hosted, key entities.Key, stored string) (imagined, error) {
	if key.ID[0] == 't' {
		return openAlarms(h, key, stored), nil
	}
	c := &cell{function: h, key: key}
	var err error
	if stored != "" {
		c.value, err = strconv.Atoi(strings.TrimRight(stored, "."))
	}
	return c, err
}

func (h hosted) Act(context.Context, entities.Invocation) (*entities.Outcome, error) {
	return nil, errors.New("there are no actions")
}

func (h hosted) ActStream(context.Context, *entities.Stream, func(context.Context, *entities.Outcome) error) error {
	return errors.New("there are no actions")
}

func (h hosted) Resolve(t entities.Target) (*entities.Command, error) {
	if t.Method == unknownMethod {
		return nil, entities.Errorf(entities.UnknownMethod, entities.NotApplied, "there is no method %s", unknownMethod)
	}
	return command(t.Method, string(t.Payload.Value)), nil
}

// cell is the memory image of one entity.
type cell struct {
	function hosted
	key      entities.Key
	value    int
}

func (c *cell) Handle(_ context.Context, inv entities.Invocation) (*entities.Outcome, error) {
	if c.key.Type == remoteType.Name {
		switch c.function.remoteTrouble() {
		case down:
			return nil, errDown
		case fails:
			c.value = -1_000_000 // this memory must not be seen again
			return nil, entities.Errorf(entities.FunctionFailed, entities.NotApplied, "it fails on everything")
		case works, slow:
		}
	}
	text := string(inv.Payload.Value)
	id := inv.ID
	if inv.Source != nil {
		id = fmt.Sprint(*inv.Source)
	}
	switch c.function.arrive(&gated{
		worker: c.function.worker, key: c.key.ID, text: text, id: id, verdict: make(chan verdict),
	}) {
	case crash:
		c.value = -1_000_000 // this memory must not be seen again
		return nil, entities.Errorf(entities.FunctionFailed, entities.NotApplied, "crashed")
	case refuse:
		return refusal(noText), nil
	case decide:
	}
	return c.decide(text), nil
}

func (c *cell) decide(text string) *entities.Outcome {
	words := strings.Fields(text)
	number := func(i int) int {
		n, err := strconv.Atoi(words[i])
		if err != nil {
			panic(err)
		}
		return n
	}
	switch words[0] {
	case "add":
		return c.update(c.value + number(1))
	case "send":
		out := c.update(c.value + number(1))
		out.Effects = []entities.SideEffect{{Target: entities.Target{
			Service: service, Method: words[2],
			Payload: entities.Payload{Value: []byte("add " + words[1])},
		}}}
		return out
	case "post": // post n id times: adds n here, and, by effects, to another cell, so many times
		out := c.update(c.value + number(1)*number(3))
		for range number(3) {
			target := entities.Target{
				Service: service, Method: words[2], Payload: entities.Payload{Value: []byte("add " + words[1])},
			}
			if words[2] != unknownMethod {
				target.Service = remote
			}
			out.Effects = append(out.Effects, entities.SideEffect{Target: target})
		}
		return out
	case "big": // big n size: adds n, to a state of that size
		out := c.update(c.value + number(1))
		out.State.Value = []byte(pad(string(out.State.Value), number(2)))
		return out
	case "wide": // wide n size: adds n, and answers at that length
		out := c.update(c.value + number(1))
		out.Reply.Payload.Value = []byte(pad(string(out.Reply.Payload.Value), number(2)))
		return out
	case "fan": // fan n id times size more: adds n here and, by that many effects, to another cell of that state size
		out := c.update(c.value + number(1)*number(3))
		for range number(3) {
			payload := fmt.Appendf(nil, "big %d %d %s", number(1), number(4), pad("", number(5)))
			out.Effects = append(out.Effects,
				entities.SideEffect{Target: entities.Target{
					Service: service, Method: words[2],
					Payload: entities.Payload{Value: payload},
				}})
		}
		return out
	case "pass": // pass n id: adds n here, and its answer is that of another cell that adds n
		out := c.update(c.value + number(1))
		return forward(out, words[2], "add "+words[1])
	case "note": // note id command: stores its value, and its answer is that of another cell's command
		return forward(c.update(c.value), words[1], strings.Join(words[2:], " "))
	case "bare": // bare id command: the same, and nothing is stored
		return forward(&entities.Outcome{}, words[1], strings.Join(words[2:], " "))
	case "cas":
		if c.value != number(1) {
			return refusal("it is " + strconv.Itoa(c.value))
		}
		return c.update(number(2))
	default:
		return &entities.Outcome{Reply: c.reply()}
	}
}

func forward(out *entities.Outcome, id, text string) *entities.Outcome {
	out.Reply = nil
	out.Forward = &entities.Target{Service: service, Method: id, Payload: entities.Payload{Value: []byte(text)}}
	return out
}

func (c *cell) update(value int) *entities.Outcome {
	c.value = value
	return &entities.Outcome{
		StateAction: entities.StateUpdated,
		State:       entities.Payload{TypeURL: "sim/cell", Value: []byte(strconv.Itoa(value))}, Reply: c.reply(),
	}
}

func (c *cell) reply() *entities.Reply {
	return &entities.Reply{Payload: entities.Payload{TypeURL: "sim/reply", Value: []byte(strconv.Itoa(c.value))}}
}

// noText is the text of a refusal without a reason.
const noText = "no"

func refusal(text string) *entities.Outcome {
	return &entities.Outcome{Failure: &entities.Error{
		Reason: entities.FunctionRefused, Outcome: entities.Refused,
		Message: text,
	}}
}

func (c *cell) Close(context.Context)  {}
func (c *cell) Ended() <-chan struct{} { return nil }
func (c *cell) Size() int              { return 64 }

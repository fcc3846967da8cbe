package partitions

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/partitions/core"
	effectv1 "github.com/millrace-io/millrace/proto/gen/millrace/effect/v1"
)

// words is an event-sourced function for tests: its state is the list of words that were added. Its
// commands are texts: "add x" emits x, "read" answers with the state, "refuse", "crash", "restart",
// "snap x" emits x with a snapshot, "big n" emits n bytes, "wait" holds until the gate opens.
type words struct {
	mu      sync.Mutex
	opened  int
	closed  int
	entered chan string
	gate    chan struct{}
	// falters decides for each command "falter" whether it fails.
	falters chan bool
	// opening holds Open until it is closed; nil does not.
	opening chan struct{}
	// down is the error of Open; of the entity downFor only, if that is set.
	down    error
	downFor string
	// act runs actions: those of the service test.Acts. Nil: there are none.
	act func(inv entities.Invocation) (*entities.Outcome, error)
	// resolve replaces Resolve; it returns nil, nil for what it leaves to words. Nil: it leaves
	// everything.
	resolve func(t entities.Target) (*entities.Command, error)
	// ahead: sessions take commands before their turn, and report errors to the test; announced is how
	// many each time.
	ahead     *testing.T
	announced []int
}

// wordsBytes is the size of a session of words.
const wordsBytes = 100

type wordsSession struct {
	words *words
	state string
	ended chan struct{}
}

func newWords() *words {
	return &words{entered: make(chan string, 16), gate: make(chan struct{}), falters: make(chan bool)}
}

func (w *words) Open(ctx context.Context, _ string, key entities.Key, load entities.Loader) (entities.Session, error) {
	w.mu.Lock()
	down := w.down
	if w.downFor != "" && w.downFor != key.ID {
		down = nil
	}
	w.opened++
	w.mu.Unlock()
	if w.opening != nil {
		<-w.opening
	}
	if down != nil {
		return nil, down
	}
	loaded, err := load(ctx)
	if err != nil {
		return nil, err
	}
	s := &wordsSession{words: w, ended: make(chan struct{})}
	if loaded.State != nil {
		s.state = string(loaded.State.Value)
	}
	if loaded.Events != nil {
		err = loaded.Events(func(e entities.Event) error {
			s.state += string(e.Payload.Value) + " "
			return nil
		})
	}
	if w.ahead != nil {
		return &aheadSession{wordsSession: s, t: w.ahead}, err
	}
	return s, err
}

func (w *words) Act(_ context.Context, inv entities.Invocation) (*entities.Outcome, error) {
	if w.act == nil {
		return nil, errors.New("words has no actions")
	}
	return w.act(inv)
}

// ActStream lets act answer each message of the caller.
func (w *words) ActStream(
	ctx context.Context, s *entities.Stream, on func(context.Context, *entities.Outcome) error,
) error {
	if w.act == nil {
		return errors.New("words has no actions")
	}
	for {
		payload, err := s.Recv(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		cmd := *s.Command
		cmd.Payload = payload
		outcome, err := w.act(entities.Invocation{Command: &cmd, Time: s.Time})
		if err == nil {
			err = on(ctx, outcome)
		}
		if err != nil {
			return err
		}
	}
}

func (w *words) Resolve(t entities.Target) (*entities.Command, error) {
	w.mu.Lock()
	resolve := w.resolve
	w.mu.Unlock()
	if resolve != nil {
		if cmd, err := resolve(t); cmd != nil || err != nil {
			return cmd, err
		}
	}
	switch {
	case t.Method == "absent":
		return nil, entities.Errorf(entities.UnknownMethod, entities.NotApplied, "there is no %s", t.Method)
	case t.Service == actionService:
		return acting(string(t.Payload.Value)), nil
	}
	if t.Payload.TypeURL == core.RefusedType {
		m := &effectv1.Refused{}
		if err := proto.Unmarshal(t.Payload.Value, m); err != nil {
			return nil, err
		}
		return command(m.GetEntityId(), fmt.Sprintf("add %s/%s-said-%d-%s-to-%s",
			m.GetService(), m.GetMethod(), m.GetCode(), m.GetMessage(), m.GetPayload().GetValue())), nil
	}
	return command(t.Method, string(t.Payload.Value)), nil
}

// resolves replaces Resolve.
func (w *words) resolves(resolve func(t entities.Target) (*entities.Command, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.resolve = resolve
}

func (w *words) count() (opened, closed int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.opened, w.closed
}

func (s *wordsSession) Handle(ctx context.Context, inv entities.Invocation) (*entities.Outcome, error) {
	verb, rest, _ := strings.Cut(string(inv.Payload.Value), " ")
	emit := func(text string) *entities.Outcome {
		s.state += text + " "
		return &entities.Outcome{Events: []entities.Payload{{TypeURL: "t/word", Value: []byte(text)}}, Reply: reply(s.state)}
	}
	switch verb {
	case "add":
		return emit(rest), nil
	case "snap":
		out := emit(rest)
		out.Snapshot = &entities.Payload{TypeURL: "t/words", Value: []byte(s.state)}
		return out, nil
	case "two":
		out := emit(rest + "1")
		out.Events = append(out.Events, emit(rest+"2").Events...)
		out.Reply = reply(s.state)
		return out, nil
	case "big":
		return emit(strings.Repeat("x", number(rest))), nil
	case "falter": // falter x: holds until the test says whether it fails or emits x
		s.words.entered <- inv.Key.ID
		if <-s.words.falters {
			return nil, entities.Errorf(entities.FunctionFailed, entities.NotApplied, "it failed")
		}
		return emit(rest), nil
	case "wait":
		s.words.entered <- inv.Key.ID
		<-s.words.gate
		return emit(rest), nil
	case "patient": // patient x: like wait x, and gives up when its context ends
		s.words.entered <- inv.Key.ID
		select {
		case <-s.words.gate:
			return emit(rest), nil
		case <-ctx.Done():
			return nil, entities.Errorf(endedBy(ctx), entities.NotApplied, "given up")
		}
	case "read":
		return &entities.Outcome{Reply: reply(s.state)}, nil
	case "refuse":
		return &entities.Outcome{
			Failure: &entities.Error{Reason: entities.FunctionRefused, Outcome: entities.Refused, Message: rest},
		}, nil
	case "deny": // deny n: refuses with a text of n bytes
		return &entities.Outcome{Failure: &entities.Error{
			Reason: entities.FunctionRefused, Outcome: entities.Refused, Message: strings.Repeat("é", number(rest)/2), Code: 9,
		}}, nil
	case "restart":
		s.state += "forgotten "
		return &entities.Outcome{
			Restart: true,
			Failure: &entities.Error{Reason: entities.FunctionRefused, Outcome: entities.Refused, Message: rest},
		}, nil
	case "send": // send b x: "x" is b's command, whose answer is the caller's
		return s.forward(emit("sent"), rest), nil
	case "pass": // like send, and nothing is stored beside
		return s.forward(&entities.Outcome{}, rest), nil
	case "beside": // beside effect b x: like pass, and an effect or a timer is stored beside the forward
		kind, rest, _ := strings.Cut(rest, " ")
		out := &entities.Outcome{}
		if kind == "effect" {
			out.Effects = []entities.SideEffect{{Target: toWords("beside", "add by-effect")}}
		} else {
			out.Timers = []entities.TimerChange{{Name: "beside", After: time.Hour, Target: toWords(inv.Key.ID, "read")}}
		}
		return s.forward(out, rest), nil
	case "fat": // fat n: emits a word, and answers n bytes
		out := emit("fat")
		out.Reply = reply(strings.Repeat("x", number(rest)))
		return out, nil
	case "act": // like send, to an action
		out := emit("sent")
		out.Reply, out.Forward = nil, &entities.Target{
			Service: actionService, Method: "Do", Payload: entities.Payload{Value: []byte(rest)},
		}
		return out, nil
	case "atleast": // atleast n x: like add x, refused while there are fewer than n words
		n, word, _ := strings.Cut(rest, " ")
		if len(strings.Fields(s.state)) < number(n) {
			return &entities.Outcome{
				Failure: &entities.Error{Reason: entities.FunctionRefused, Outcome: entities.Refused, Message: "too few"},
			}, nil
		}
		return emit(word), nil
	case "both": // both c b x: a synchronous effect on c, then a forward of x to b
		id, rest, _ := strings.Cut(rest, " ")
		out := emit("both")
		out.Effects = []entities.SideEffect{{Synchronous: true, Target: toWords(id, "add by-effect")}}
		return s.forward(out, rest), nil
	case "length": // of what follows
		return &entities.Outcome{Reply: reply(fmt.Sprint(len(rest)))}, nil
	case "answer": // n bytes, and nothing is stored
		return &entities.Outcome{Reply: reply(strings.Repeat("x", number(rest)))}, nil
	case "forward":
		out := emit("forwarding")
		out.Reply, out.Forward = nil, &entities.Target{Method: rest, Payload: entities.Payload{Value: []byte("read")}}
		return out, nil
	case "bare": // bare b x: a forward of x to b, and nothing else
		id, text, _ := strings.Cut(rest, " ")
		return &entities.Outcome{Forward: &entities.Target{Method: id, Payload: entities.Payload{Value: []byte(text)}}}, nil
	case "later": // later b x: an effect on b without a waiting caller
		id, text, _ := strings.Cut(rest, " ")
		out := emit("later")
		out.Effects = []entities.SideEffect{
			{Target: entities.Target{Method: id, Payload: entities.Payload{Value: []byte(text)}}},
		}
		return out, nil
	case "ask", "dare": // like later; the entity gets a refusal, or ignores it
		id, text, _ := strings.Cut(rest, " ")
		out := emit(verb)
		out.Effects = []entities.SideEffect{
			{Target: entities.Target{Method: id, Payload: entities.Payload{Value: []byte(text)}}},
		}
		if out.Effects[0].IgnoreRefusal = verb == "dare"; verb == "ask" {
			out.Effects[0].OnRefused = "Refused"
		}
		return out, nil
	case "quiet": // like later, with an answer that does not grow
		id, text, _ := strings.Cut(rest, " ")
		return &entities.Outcome{Reply: reply("ok"), Effects: []entities.SideEffect{
			{Target: entities.Target{Method: id, Payload: entities.Payload{Value: []byte(text)}}},
		}}, nil
	case "ring": // ring b a: a synchronous effect on b that has one on a
		id, back, _ := strings.Cut(rest, " ")
		text := "add by-effect"
		if back != "" {
			text = "ring " + back
		}
		out := emit("ring")
		out.Effects = []entities.SideEffect{
			{Synchronous: true, Target: entities.Target{Method: id, Payload: entities.Payload{Value: []byte(text)}}},
		}
		return out, nil
	case "forwardadd":
		out := emit("forwarding")
		out.Reply, out.Forward = nil, &entities.Target{Method: rest, Payload: entities.Payload{Value: []byte("add x")}}
		return out, nil
	case "timer": // timer name seconds x: "x" is this entity's own command after a while
		f := strings.SplitN(rest, " ", 3)
		after, err := time.ParseDuration(f[1])
		return s.timer(inv, entities.TimerChange{Name: f[0], After: after}, f[2]), err
	case "every": // every name x, each minute
		name, text, _ := strings.Cut(rest, " ")
		return s.timer(inv, entities.TimerChange{Name: name, Schedule: "* * * * *"}, text), nil
	case "cancel":
		return &entities.Outcome{Timers: []entities.TimerChange{{Name: rest, Cancel: true}}, Reply: reply("cancelled")}, nil
	case "effect":
		out := emit("effect")
		out.Effects = []entities.SideEffect{
			{Synchronous: true, Target: entities.Target{Method: rest, Payload: entities.Payload{Value: []byte("add by-effect")}}},
		}
		return out, nil
	default:
		return nil, &entities.Error{Reason: entities.FunctionFailed, Outcome: entities.NotApplied, Message: "Unexpected entity failure"}
	}
}

func number(text string) (n int) {
	_, _ = fmt.Sscan(text, &n)
	return n
}

func (s *wordsSession) forward(out *entities.Outcome, rest string) *entities.Outcome {
	id, text, _ := strings.Cut(rest, " ")
	t := toWords(id, text)
	out.Reply, out.Forward = nil, &t
	return out
}

// toWords is a target: a command of words.
func toWords(id, text string) entities.Target {
	return entities.Target{Method: id, Payload: entities.Payload{Value: []byte(text)}}
}

func (s *wordsSession) timer(inv entities.Invocation, t entities.TimerChange, text string) *entities.Outcome {
	t.Target = entities.Target{Service: "test.Words", Method: inv.Key.ID, Payload: entities.Payload{Value: []byte(text)}}
	return &entities.Outcome{Timers: []entities.TimerChange{t}, Reply: reply("set")}
}

func (s *wordsSession) Close(context.Context) {
	s.words.mu.Lock()
	defer s.words.mu.Unlock()
	s.words.closed++
}

func (s *wordsSession) Ended() <-chan struct{} { return s.ended }
func (s *wordsSession) Size() int              { return wordsBytes }

func reply(text string) *entities.Reply {
	return &entities.Reply{Payload: entities.Payload{TypeURL: "t/reply", Value: []byte(strings.TrimSpace(text))}}
}

var wordsType = &entities.EntityType{Service: "test.Words", Name: "words", Kind: entities.EventSourced}

func command(id, text string) *entities.Command {
	return &entities.Command{
		Service: "test.Words", Method: "Do", Type: wordsType, Key: entities.Key{Type: "words", ID: id},
		Payload: entities.Payload{TypeURL: "t/command", Value: []byte(text)},
	}
}

// actionService is the service of words' actions.
const actionService = "test.Acts"

// acting makes a call of an action.
func acting(text string) *entities.Command {
	return &entities.Command{
		Service: actionService, Method: "Do", Payload: entities.Payload{TypeURL: "t/command", Value: []byte(text)},
	}
}

func withID(cmd *entities.Command, id string) *entities.Command {
	cmd.ID = id
	return cmd
}

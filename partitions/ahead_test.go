package partitions

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/partitions/core"
)

// aheadSession is a session of words that takes commands before their turn. It fails unless every
// command was announced.
type aheadSession struct {
	*wordsSession

	t         *testing.T
	announced []entities.Invocation
	decided   []func() (*entities.Outcome, error)
}

var _ entities.Ahead = (*aheadSession)(nil)

func (s *aheadSession) Room() int { return 8 }

func (s *aheadSession) Announce(invs []entities.Invocation) {
	s.announced = invs
	s.words.mu.Lock()
	defer s.words.mu.Unlock()
	s.words.announced = append(s.words.announced, len(invs))
}

func (s *aheadSession) Ready() bool { return len(s.decided) > 0 }

func (s *aheadSession) Handle(ctx context.Context, inv entities.Invocation) (*entities.Outcome, error) {
	if len(s.announced) > 0 {
		if s.announced[0].Command != inv.Command {
			s.t.Errorf("%q was announced, and %q comes", s.announced[0].Payload.Value, inv.Payload.Value)
		}
		s.announced = s.announced[1:]
	}
	if s.Ready() {
		next := s.decided[0]
		s.decided = s.decided[1:]
		return next()
	}
	outcome, err := s.wordsSession.Handle(ctx, inv)
	for _, next := range s.announced { // the function goes on
		if err != nil {
			break
		}
		var o *entities.Outcome
		o, err = s.wordsSession.Handle(ctx, next)
		failed := err
		s.decided = append(s.decided, func() (*entities.Outcome, error) { return o, failed })
	}
	if len(s.decided) > 0 {
		err = nil
	}
	return outcome, err
}

// startAhead returns a worker whose function takes commands ahead, and holds the first one of
// entity a until its gate opens.
func startAhead(t *testing.T) (f *fixture, first <-chan answer) {
	t.Helper()
	w := newWords()
	w.ahead = t
	f = start(t, setup{world: alone, words: w})
	f.await(core.Active)
	first = f.later(command("a", "wait 1"))
	<-w.entered
	return f, first
}

// queue submits commands of one entity, each behind the one before.
func (f *fixture) queue(texts ...string) []<-chan answer {
	f.t.Helper()
	var all []<-chan answer
	for _, text := range texts {
		all = append(all, f.later(command("a", text)))
		synctest.Wait() // the loop has taken it
	}
	return all
}

// TestCommandsAheadOfTheirTurn: a function gets commands that wait for an entity, and the answers
// are those of one command after the other.
func TestCommandsAheadOfTheirTurn(t *testing.T) {
	reasons := map[entities.Reason]string{entities.FunctionFailed: "function failed", entities.TooLarge: "too large"}
	for name, c := range map[string]struct {
		waiting, answers []string
		after            string
	}{
		"all are decided":            {[]string{"add 2", "read", "refuse no", "add 3"}, []string{"1 2", "1 2", "refused: no", "1 2 3"}, "1 2 3"},
		"the function fails":         {[]string{"add 2", "crash", "add 3"}, []string{"1 2", "function failed", "function failed"}, "1 2"},
		"the function begins again":  {[]string{"add 2", "restart x", "add 3", "read"}, []string{"1 2", "refused: x", "1 2 3", "1 2 3"}, "1 2 3"},
		"an outcome is too large":    {[]string{"add 2", "big 2000000", "add 3"}, []string{"1 2", "too large", "1 2 3"}, "1 2 3"},
		"more wait than are sent":    {[]string{"add 2", "add 3", "add 4", "add 5", "add 6", "add 7", "add 8", "add 9", "add 10"}, nil, "1 2 3 4 5 6 7 8 9 10"},
		"a timer is set and changed": {[]string{"timer x 1h read", "cancel x", "add 2"}, []string{"set", "cancelled", "1 2"}, "1 2"},
	} {
		t.Run(name, bubbled(func(t *testing.T) {
			f, first := startAhead(t)
			waiting := f.queue(c.waiting...)
			close(f.words.gate)
			f.want(f.receive(first), "1")
			for i, ch := range waiting {
				a := f.receive(ch)
				got := a.text
				if a.err != nil {
					got = reasons[entities.AsError(a.err).Reason]
				}
				if c.answers != nil && got != c.answers[i] {
					t.Errorf("%q was answered %q, want %q", c.waiting[i], got, c.answers[i])
				}
			}
			f.want(f.submit(command("a", "read")), c.after)
			if len(f.words.announced) == 0 {
				t.Error("nothing was announced")
			}
			again := start(t, setup{on: f.world, clock: f.clock, name: "again"})
			again.await(core.Active)
			again.want(again.submit(command("a", "read")), c.after)
		}))
	}
}

// TestAnnouncedCommandsStay: a caller may leave whose command was sent to the function ahead of its
// turn. The command stays, and is decided when its turn comes.
func TestAnnouncedCommandsStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, first := startAhead(t)
		w := f.words
		decide := sync.OnceFunc(func() { close(w.gate) })
		defer decide()
		second := f.queue("wait 2")[0]
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan answer, 1)
		go func() { // received below
			_, err := f.p.Submit(ctx, command("a", "add 3"))
			left <- answer{err: err}
		}()
		synctest.Wait() // the loop has taken it
		third := f.queue("add 4")[0]
		w.gate <- struct{}{}
		<-w.entered // the second is with the function, and what waited behind it
		f.want(f.receive(first), "1")
		cancel()
		f.silent(second)
		f.wantError(f.receive(left), entities.Cancelled, entities.Unknown)
		decide()
		f.want(f.receive(second), "1 2")
		f.want(f.receive(third), "1 2 3 4")
	})
}

package routing

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
)

// routerOf is the router of worker w0.
func routerOf(table *Table, peers Peers, p *partitions) *Router {
	return NewRouter(options(table, peers), "w0", p, functions{}, nil)
}

// TestEffectsThenTheForward: effects that the caller waits for go out in order, then the forward,
// whose answer is kept and is the caller's.
func TestEffectsThenTheForward(t *testing.T) {
	p := &partitions{}
	p.decide = func(cmd *entities.Command) (entities.Committed, error) {
		if string(cmd.Payload.Value) != "ask" {
			return committed(answers("reply to " + string(cmd.Payload.Value))), nil
		}
		forward := target("d", "last")
		out := &entities.Outcome{Forward: &forward, Effects: []entities.SideEffect{
			{Target: target("b", "first"), Synchronous: true},
			{Target: target("c", "by the outbox")},
			{Target: target("c", "second"), Synchronous: true},
		}}
		return entities.Committed{Outcome: out, Next: 5, FirstEffect: 1, Forward: 4}, nil
	}
	reply, err := routerOf(ownedBy(1), nil, p).Dispatch(t.Context(), withID(command("a", "ask"), "id"))
	if err != nil || string(reply.Payload.Value) != "reply to last" {
		t.Fatalf("answer %v, %v; want that of the forward", reply, err)
	}
	want := []string{
		"submit ask to partition 0", "submit first to partition 0", "delivered 1: <nil>",
		"submit second to partition 0", "delivered 3: <nil>",
		"submit last to partition 0", "conclude 4",
	}
	if !slices.Equal(p.asked, want) {
		t.Errorf("the partitions were asked %q, want %q", p.asked, want)
	}
}

// TestAFailedEffectLeavesTheRest: effects that the caller will not send are left to the outbox, the
// forward included.
func TestAFailedEffectLeavesTheRest(t *testing.T) {
	p := &partitions{}
	p.decide = func(cmd *entities.Command) (entities.Committed, error) {
		if string(cmd.Payload.Value) != "ask" {
			return entities.Committed{}, entities.Errorf(entities.Unavailable, entities.NotApplied, "down")
		}
		forward := target("c", "last")
		out := &entities.Outcome{
			Forward: &forward, Effects: []entities.SideEffect{{Target: target("b", "first"), Synchronous: true}},
		}
		return entities.Committed{Outcome: out, Next: 3, FirstEffect: 1, Forward: 2}, nil
	}
	_, err := routerOf(ownedBy(1), nil, p).Dispatch(t.Context(), command("a", "ask"))
	if e := entities.AsError(err); e == nil || e.Outcome != entities.Unknown {
		t.Errorf("the caller is told %v, and the command took effect", err)
	}
	if last := p.asked[len(p.asked)-1]; last != "unheld 1 to 3" {
		t.Errorf("the partition was asked %q at the end; want that both are left to the outbox", last)
	}
}

// TestAnEffectThatCannotBeSentIsTheFunctionsMistake: the caller has not made the effect, so the
// code is INTERNAL, whatever is wrong with the effect. An effect that fails for another reason has
// that.
func TestAnEffectThatCannotBeSentIsTheFunctionsMistake(t *testing.T) {
	effects := []entities.SideEffect{{Target: target("b", "bad"), Synchronous: true}}
	for _, tc := range []struct{ target, want entities.Reason }{
		{entities.InvalidCommand, entities.Internal},
		{entities.UnknownMethod, entities.Internal},
		{entities.NotSupported, entities.Internal},
		{entities.TooLarge, entities.Internal},
		{entities.Unavailable, entities.Unavailable},
		{entities.Overloaded, entities.Overloaded},
	} {
		p := &partitions{decide: func(cmd *entities.Command) (entities.Committed, error) {
			if string(cmd.Payload.Value) == "bad" {
				return entities.Committed{}, entities.Errorf(tc.target, entities.NotApplied, "bad")
			}
			return entities.Committed{Outcome: &entities.Outcome{Effects: effects}, Next: 3, FirstEffect: 1, Forward: -1}, nil
		}}
		_, err := routerOf(ownedBy(1), nil, p).Dispatch(t.Context(), command("a", "ask"))
		if e := entities.AsError(err); e == nil || e.Reason != tc.want || e.Outcome != entities.Unknown {
			t.Errorf("the effect of an entity fails with %d: %v", tc.target, err)
		}
		acts := functions{act: func() (*entities.Outcome, error) { return &entities.Outcome{Effects: effects}, nil }}
		action := &entities.Command{Service: "test.Acts", Method: "Do"}
		_, err = NewRouter(options(ownedBy(1), nil), "w0", p, acts, nil).Dispatch(t.Context(), action)
		if e := entities.AsError(err); e == nil || e.Reason != tc.want || e.Outcome != entities.NotApplied {
			t.Errorf("the effect of an action fails with %d: %v", tc.target, err)
		}
	}
}

// TestASharedForwardIsLeft: a caller that shares its decision with another one cannot ask for the
// answer to the forward, because it leaves before. The outbox brings the forward to its target.
func TestASharedForwardIsLeft(t *testing.T) {
	p := &partitions{concludeErr: entities.Errorf(entities.Cancelled, entities.Unknown, "the caller has left")}
	p.decide = func(*entities.Command) (entities.Committed, error) {
		forward := target("b", "last")
		return entities.Committed{
			Outcome: &entities.Outcome{Forward: &forward}, Shared: true, Next: 3, FirstEffect: 2, Forward: 2,
		}, nil
	}
	_, err := routerOf(ownedBy(1), nil, p).Dispatch(t.Context(), withID(command("a", "ask"), "x"))
	if e := entities.AsError(err); e == nil || e.Outcome != entities.Unknown {
		t.Errorf("the caller is told %v, and the command took effect", err)
	}
	if last := p.asked[len(p.asked)-1]; last != "unheld 2 to 3" {
		t.Errorf("the partition was asked %q at the end; want that the forward is left to the outbox", last)
	}
}

// TestReads: a relaxed read is answered from an image on this worker, if there is one, and else by
// the owner.
func TestReads(t *testing.T) {
	p, w := &partitions{}, &workers{}
	r := NewRouter(options(ownedBy(2), w), "w1", p, functions{}, nil)
	read := command("a", "read")
	read.Consistency = entities.Eventual
	reply, err := r.Dispatch(t.Context(), read)
	if err != nil || string(reply.Payload.Value) != "theirs" || reply.Owner != "public-w0" {
		t.Errorf("without an image: %v, %v; want the owner's answer", reply, err)
	}
	image := committed(answers("mine"))
	p.image = &image
	reply, err = r.Dispatch(t.Context(), read)
	if err != nil || string(reply.Payload.Value) != "mine" || reply.Owner != "" || len(w.calls) != 1 {
		t.Errorf("with an image: %v, %v, calls %q; want it from there", reply, err, w.calls)
	}
	token, err := entities.DecodeToken("app", reply.Token)
	if err != nil || !slices.Equal(token.Positions, []entities.Position{{Partition: 0, Next: 5}}) {
		t.Errorf("token %+v, %v; want the position of the image", token, err)
	}
}

// TestCommandsWaitForAnOwner: as long as patience allows, and no longer than until another table
// names one.
func TestCommandsWaitForAnOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := NewTable()
		table.Set(&broker.Table{Owners: []int32{-1}, Standbys: [][]int32{nil}, Members: []broker.Member{{Name: "w0"}}})
		refreshed := 0
		table.RefreshBy(func() { refreshed++ })
		w := &workers{}
		f := NewRemoteRouter(options(table, w))
		ended := make(chan error, 1)
		go func() { // received below
			_, err := f.Dispatch(t.Context(), command("a", "add x"))
			ended <- err
		}()
		synctest.Wait()
		if len(ended) != 0 || refreshed != 1 {
			t.Fatalf("without an owner: ended %d times, asked %d times for a table", len(ended), refreshed)
		}
		table.Set(ownedBy(1).Current())
		if err := <-ended; err != nil || len(w.calls) != 1 {
			t.Errorf("with an owner: %v, calls %q", err, w.calls)
		}
		if n := f.Counts(); n != (Counts{SentOn: 1, Retried: 1}) {
			t.Errorf("counted %+v", n)
		}
	})
}

// TestImpatience: without patience, or where too many wait already, a command does not wait for an
// owner.
func TestImpatience(t *testing.T) {
	for what, change := range map[string]func(*Options){
		"no patience": func(o *Options) { o.Patience = 0 },
		"no room":     func(o *Options) { o.MaxWaiting = 0 },
	} {
		o := options(NewTable(), &workers{})
		change(&o)
		_, err := NewRemoteRouter(o).Dispatch(t.Context(), command("a", "add x"))
		if e := entities.AsError(err); e == nil || e.Reason != entities.Moved || e.Outcome != entities.NotApplied {
			t.Errorf("%s: %v; want that the partition has no owner", what, err)
		}
	}
}

// TestADeadlineEndsTheWaitForAnOwner: at the owner, which has not begun with the partition yet, at
// another worker and at a gateway; what an earlier attempt leaves open stays open.
func TestADeadlineEndsTheWaitForAnOwner(t *testing.T) {
	moved := entities.PartitionMoved(0, "it is not owned here")
	lost := entities.OutcomeLost(0, "the connection broke")
	here := func(*entities.Command) (entities.Committed, error) { return entities.Committed{}, moved }
	for what, c := range map[string]struct {
		id      string
		outcome entities.OutcomeClass
		door    func() dispatcher
	}{
		"owner": {outcome: entities.NotApplied, door: func() dispatcher {
			return routerOf(ownedBy(1), &workers{}, &partitions{decide: here})
		}},
		"other worker, the owner moves": {outcome: entities.NotApplied, door: func() dispatcher {
			return NewRouter(options(ownedBy(2), &workers{err: moved}), "w1", &partitions{}, functions{}, nil)
		}},
		"other worker, no owner": {outcome: entities.NotApplied, door: func() dispatcher {
			return NewRouter(options(NewTable(), &workers{}), "w1", &partitions{}, functions{}, nil)
		}},
		"gateway, no owner": {outcome: entities.NotApplied, door: func() dispatcher {
			return NewRemoteRouter(options(NewTable(), &workers{}))
		}},
		"gateway, earlier attempts may exist": {id: "X", outcome: entities.Unknown, door: func() dispatcher {
			return NewRemoteRouter(options(NewTable(), &workers{}))
		}},
		"gateway, an answer was lost": {outcome: entities.Unknown, door: func() dispatcher {
			return NewRemoteRouter(options(ownedBy(1), &workers{err: lost}))
		}},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			_, err := c.door().Dispatch(ctx, withID(command("a", "add x"), c.id))
			e := entities.AsError(err)
			if e == nil || e.Reason != entities.Deadline || e.Outcome != c.outcome || e.RetryAfter != 0 ||
				!strings.HasPrefix(e.Message, "the deadline passed before the owner of the entity answered: ") {
				t.Errorf("%s: %v; want that the deadline passed, %s", what, err, c.outcome)
			}
		})
	}
}

// dispatcher is a Router or a RemoteRouter.
type dispatcher interface {
	Dispatch(ctx context.Context, cmd *entities.Command) (*entities.Reply, error)
}

// TestPositions: only of partitions that are there; another worker's is asked of its owner.
func TestPositions(t *testing.T) {
	r := routerOf(ownedBy(2), &workers{}, &partitions{})
	if next, err := r.Position(t.Context(), 0); err != nil || next != 3 {
		t.Errorf("position %d, %v; want 3", next, err)
	}
	for _, p := range []int32{-1, 1, 1 << 30} {
		if _, err := r.Position(t.Context(), p); entities.AsError(err).Reason != entities.InvalidCommand {
			t.Errorf("partition %d: %v", p, err)
		}
	}
	if next, err := r.OwnerPosition(0)(t.Context()); err != nil || next != 7 {
		t.Errorf("the owner is at %d, %v; want 7", next, err)
	}
	unknown, alone := routerOf(NewTable(), &workers{}, &partitions{}), routerOf(ownedBy(1), nil, &partitions{})
	if unknown.OwnerPosition(0) != nil || alone.OwnerPosition(0) != nil {
		t.Error("an owner is asked that is not known, or cannot be reached")
	}
}

// TestASlowEffectIsWaitedFor: Wait waits for an effect of an action that no caller waits for, and
// its error is reported.
func TestASlowEffectIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		p := &partitions{decide: func(*entities.Command) (entities.Committed, error) {
			<-gate
			return entities.Committed{}, entities.Errorf(entities.Unavailable, entities.NotApplied, "down")
		}}
		var told []string
		act := func() (*entities.Outcome, error) {
			return &entities.Outcome{Effects: []entities.SideEffect{{Target: target("b", "add x")}}}, nil
		}
		onError := func(t entities.Target, err error) { told = append(told, t.Method+": "+err.Error()) }
		r := NewRouter(options(ownedBy(1), nil), "w0", p, functions{act}, onError)
		reply, err := r.Dispatch(t.Context(), &entities.Command{Service: "test.Acts", Method: "Do"})
		if err != nil || !reply.NoPayload {
			t.Fatalf("the action answered %v, %v", reply, err)
		}
		close(gate)
		r.Wait()
		if !slices.Equal(told, []string{"b: down"}) {
			t.Errorf("told %q, want what the effect was answered", told)
		}
	})
}

// TestDispatchAllocates: what a command on this worker costs between its caller and its partition:
// the reply, its token, and the decision.
func TestDispatchAllocates(t *testing.T) {
	out := committed(answers("x"))
	r := routerOf(ownedBy(1), nil, &partitions{})
	r.partitions = fixed{r.partitions, out}
	cmd, ctx := command("a", "add x"), t.Context()
	if n := testing.AllocsPerRun(1000, func() { _, _ = r.Dispatch(ctx, cmd) }); n > 5 {
		t.Errorf("%v allocations, want at most 5", n)
	}
}

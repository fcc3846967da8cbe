package routing

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/clock/clocktest"
)

var entityType = &entities.EntityType{Service: "test.Words", Name: "words", Kind: entities.EventSourced}

// command is a command of an entity; its text is the answer of the partition.
func command(id, text string) *entities.Command {
	return &entities.Command{
		Service: "test.Words", Method: "Do", Type: entityType, Key: entities.Key{Type: "words", ID: id},
		Payload: payload(text),
	}
}

func payload(text string) entities.Payload { return entities.Payload{Value: []byte(text)} }

func withID(cmd *entities.Command, id string) *entities.Command {
	cmd.ID = id
	return cmd
}

// options are those of an app with one partition. Time does not pass.
func options(table *Table, peers Peers) Options {
	return Options{
		Layout: entities.LayoutOf("app", 1), Table: table, Peers: peers, MaxWaiting: 10, Patience: time.Minute,
		Clock: clocktest.NewManual(time.Unix(1_700_000_000, 0)),
	}
}

// ownedBy is the table of workers w0, w1 and so on at at-w0, at-w1, of which the first owns the
// only partition.
func ownedBy(workers int) *Table {
	t := &broker.Table{Owners: []int32{0}, Standbys: [][]int32{nil}}
	for i := range workers {
		m := broker.Member{Name: fmt.Sprint("w", i), Address: fmt.Sprint("at-w", i), Public: fmt.Sprint("public-w", i)}
		t.Members = append(t.Members, m)
	}
	table := NewTable()
	table.Set(t)
	return table
}

// workers are other workers, all with the same answer.
type workers struct {
	err   error
	calls []string
}

func (w *workers) Dispatch(_ context.Context, address string, _ *entities.Command, _ int) (*entities.Reply, error) {
	w.calls = append(w.calls, address)
	if w.err != nil {
		return nil, w.err
	}
	return &entities.Reply{Payload: payload("theirs"), Owner: "another"}, nil
}

func (w *workers) DispatchStream(_ context.Context, address string, _ *entities.Stream) error {
	w.calls = append(w.calls, address)
	return w.err
}

func (w *workers) Position(context.Context, string, int32) (int64, error) { return 7, w.err }

// partitions are those of this worker. They return what decide returns, and record their calls.
type partitions struct {
	decide func(cmd *entities.Command) (entities.Committed, error)
	// image answers relaxed reads; nil: there is none.
	image *entities.Committed
	// concludeErr is the error of Conclude.
	concludeErr error
	mu          sync.Mutex
	asked       []string
}

func (p *partitions) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, fmt.Sprintf(format, args...))
}

func (p *partitions) Submit(_ context.Context, partition int32, cmd *entities.Command) (entities.Committed, error) {
	p.note("submit %s to partition %d", cmd.Payload.Value, partition)
	return p.decide(cmd)
}

func (p *partitions) Conclude(
	_ context.Context, _ int32, _ *entities.Command, forward int64, outcome *entities.Outcome,
) (entities.Committed, error) {
	p.note("conclude %d", forward)
	return entities.Committed{Outcome: outcome}, p.concludeErr
}

func (p *partitions) Delivered(source entities.Source, _ *entities.Reply, err error) {
	p.note("delivered %d: %v", source.Offset, err)
}

func (p *partitions) Unheld(_ int32, from, until int64) { p.note("unheld %d to %d", from, until) }

func (p *partitions) Position(context.Context, int32) (int64, error) { return 3, nil }

func (p *partitions) Read(context.Context, int32, *entities.Command) (entities.Committed, bool, error) {
	if p.image == nil {
		return entities.Committed{}, false, nil
	}
	return *p.image, true, nil
}

// functions resolve a target into the command of the entity that its method names. The only action
// is act.
type functions struct {
	act func() (*entities.Outcome, error)
}

func (f functions) Act(context.Context, entities.Invocation) (*entities.Outcome, error) {
	return f.act()
}

func (f functions) ActStream(
	ctx context.Context, _ *entities.Stream, on func(context.Context, *entities.Outcome) error,
) error {
	outcome, err := f.act()
	if err != nil {
		return err
	}
	return on(ctx, outcome)
}

func (functions) Resolve(t entities.Target) (*entities.Command, error) {
	return command(t.Method, string(t.Payload.Value)), nil
}

func target(id, text string) entities.Target {
	return entities.Target{Method: id, Payload: payload(text)}
}

// answers is an outcome that changes nothing.
func answers(text string) *entities.Outcome {
	return &entities.Outcome{Reply: &entities.Reply{Payload: payload(text)}}
}

// committed is an outcome without effects, in a log that ends at offset 5.
func committed(out *entities.Outcome) entities.Committed {
	return entities.Committed{Outcome: out, Next: 5, FirstEffect: -1, Forward: -1}
}

// fixed are partitions of which each command has one outcome.
type fixed struct {
	Partitions

	out entities.Committed
}

func (f fixed) Submit(context.Context, int32, *entities.Command) (entities.Committed, error) {
	return f.out, nil
}

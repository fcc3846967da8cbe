package peer

import (
	"context"
	"sync"

	"github.com/millrace-io/millrace/entities"
)

// task is a command that runs here for another worker.
type task struct {
	received

	link   *served
	ctx    context.Context //nolint:containedctx // the command's own
	cancel context.CancelFunc
}

//nolint:gochecknoglobals // memory without a meaning
var tasks = sync.Pool{New: func() any { return new(task) }}

// Run runs the command and sends its answer.
func (t *task) Run() {
	link, id := t.link, t.id
	defer link.running.Done()
	reply, err := t.dispatch()
	t.cancel()
	// Nothing below refers to the task any more: link and id are copies.
	*t = task{}
	tasks.Put(t)
	var failure *entities.Error
	if err != nil {
		failure = asError(err)
	}
	link.answer(id, reply, failure)
}

func (t *task) dispatch() (*entities.Reply, error) {
	worker := t.link.server.worker
	cmd, err := worker.Resolve(t.target)
	if err != nil {
		return nil, err
	}
	// Both sides find the entity from the payload, by their own function's descriptors. Where these
	// differ, the command could reach a partition that does not own its entity.
	if cmd.Key != t.key {
		return nil, entities.Errorf(entities.Unavailable, entities.NotApplied,
			"%s/%s is a command on %q where it came from and on %q here: the user functions differ, nothing was applied",
			t.target.Service, t.target.Method, t.key, cmd.Key)
	}
	t.complete(cmd)
	return worker.Dispatch(t.ctx, cmd, t.hops)
}

// complete adds to a command the fields that do not come from its target.
func (r *received) complete(cmd *entities.Command) {
	cmd.ID, cmd.Source, cmd.Principal = r.command.ID, r.command.Source, r.command.Principal
	cmd.Consistency, cmd.Bound, cmd.After = r.command.Consistency, r.command.Bound, r.command.After
	cmd.TraceParent = r.command.TraceParent
}

package node

import (
	"context"
	"time"

	"github.com/millrace-io/millrace/internal/lifecycle"
	"github.com/millrace-io/millrace/internal/observe"
)

// The tasks of a node, as its status lists them.
const (
	taskShutdown   = "shutdown"
	taskFlush      = "flush"
	taskPartitions = "partitions"
	taskFunction   = "function"
	taskSupervisor = "supervisor"
	taskGateway    = "gateway"
	taskAdmin      = "admin"
	taskHealth     = "health"
	taskPeers      = "peers"
	taskMembers    = "members"
	// The read side: what is defined, rows, and the directory of definitions.
	taskDefinitions     = "definitions"
	taskProjections     = "projections"
	taskDefinitionFiles = "definition files"
)

// flushEvery bounds what has to be read from the log again after a crash.
const flushEvery = 30 * time.Second

// run starts the tasks, from the lowest layer up; Stop ends them in reverse order.
func (n *Node) run(ctx context.Context) {
	n.group = lifecycle.New(ctx, n.clock)
	n.group.Start(taskShutdown, func(ctx context.Context) error {
		defer context.AfterFunc(ctx, n.readSide.queries.EndWatches)() // they would not end by themselves
		return n.shutdown(ctx, n.endEffects)
	})
	if n.written != nil {
		n.group.Start(taskFlush, n.flushStore)
	}
	if n.cluster != nil {
		n.group.Start(taskPeers, n.servePeers)
	}
	n.group.Start(taskPartitions, n.runPartitions)
	if n.cluster != nil {
		n.group.Start(taskMembers, n.watchMembers)
	}
	n.group.Start(taskProjections, n.runProjections)
	n.group.Start(taskDefinitions, n.runDefinitions)
	if n.config.Definitions != "" {
		n.group.Start(taskDefinitionFiles, n.applyFiles)
	}
	n.group.Start(taskFunction, n.runFunction)
	if len(n.options.Command) > 0 {
		n.group.Start(taskSupervisor, n.supervise)
	}
	n.serve(n.NotReady)
}

// runPartitions owns partitions until the gateway has ended its last call.
func (n *Node) runPartitions(ctx context.Context) error {
	defer close(n.settled)
	if admitted, err := n.admit(ctx); !admitted {
		if err == nil { // asked to stop before
			<-n.quiet
		}
		return err
	}
	own, release := context.WithCancelCause(context.WithoutCancel(ctx))
	defer release(nil)
	ended := make(chan error, 1)
	go func() { ended <- n.manager.Run(own) }() // ends with own, or by itself; received below
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		<-n.quiet
		release(context.Cause(ctx))
		return <-ended
	}
}

// endEffects ends what the callers began. Effects that take longer than drain-timeout find their
// partitions released, and end with that; those whose function hangs are left to the end of the
// process.
func (n *Node) endEffects(bounded context.Context) {
	drained := make(chan struct{})
	go func() { // ends with the last effect, or with the process; waited for below
		defer close(drained)
		n.router.Wait()
	}()
	select {
	case <-drained:
	case <-bounded.Done():
	}
	close(n.quiet)
	<-n.settled
	select {
	case <-drained:
	case <-time.After(lateEffects):
		n.logger.Warn("effects did not end in time", observe.Cause, "the function hangs; the next owner sends them again")
	}
}

// lateEffects is how long effects may take to notice that the partitions are released.
const lateEffects = time.Second

// flushStore makes the store durable from time to time, if anything was written to it, so that a
// killed process need not read the whole log again. It ends the node when the store cannot be used
// any more.
func (n *Node) flushStore(ctx context.Context) error {
	for durable := uint64(0); ; {
		again, giveUp := n.clock.After(flushEvery)
		select {
		case <-again:
		case why := <-n.spoiled:
			giveUp()
			return n.endStore(why)
		case <-ctx.Done():
			giveUp()
			return nil
		}
		written := n.written()
		if written == durable {
			continue
		}
		err := n.store.Flush()
		n.troubles.note(taskFlush, err)
		if err != nil {
			n.logger.Warn("store not flushed; the log has all data", observe.Error, err)
			continue
		}
		durable = written
	}
}

package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"time"

	"github.com/millrace-io/millrace/internal/backoff"
	"github.com/millrace-io/millrace/internal/observe"
)

const (
	// stopGrace is how long a supervised function may take to end by itself.
	stopGrace = 3 * time.Second
	// steadyAfter is how long it must have lived for its next end to count as the first.
	steadyAfter = 5 * time.Second
)

// restartPause lies between the end of a supervised function and its next start.
var restartPause = backoff.Policy{First: 200 * time.Millisecond, Max: 5 * time.Second, Jitter: 0.2} //nolint:gochecknoglobals // a constant

// supervise runs the function's command and starts it again when it ends, or when a file below its
// directory changed. Callers wait meanwhile, as long as function-wait says. It outlives a stop for
// as long as calls and sessions need it.
func (n *Node) supervise(ctx context.Context) error {
	needed, release := context.WithCancelCause(context.WithoutCancel(ctx))
	defer release(nil)
	stop := context.AfterFunc(ctx, func() {
		<-n.settled
		release(context.Cause(ctx))
	})
	defer stop()
	var brake brake
	watching := true
	for attempt := 1; ; attempt++ {
		began := n.clock.Now()
		why := n.runCommand(needed, watching)
		if ctx.Err() != nil {
			return nil
		}
		changed, isChange := errors.AsType[*changedError](why)
		if isChange || n.clock.Now().Sub(began) > steadyAfter {
			attempt = 1
		}
		n.logger.Info("restarting the user function", observe.Cause, why, observe.Attempt, attempt)
		if isChange {
			if err := brake.blocks(changed.files, n.clock.Now()); err != nil {
				watching = false
				n.troubles.note(taskSupervisor, err)
				n.logger.Warn("files are no longer watched: changes do not restart the user function", observe.Cause, err)
			}
		} else {
			n.troubles.note(taskSupervisor, fmt.Errorf("the user function ended: %w", why))
			if !n.pause(ctx, restartPause.Pause(attempt)) {
				return nil
			}
		}
		select {
		case n.readiness.restarted <- struct{}{}:
		default:
		}
	}
}

// pause waits for so long; false when ctx ended before.
func (n *Node) pause(ctx context.Context, d time.Duration) bool {
	over, giveUp := n.clock.After(d)
	select {
	case <-over:
		return true
	case <-ctx.Done():
		giveUp()
		return false
	}
}

// runCommand runs the function once, until it ends or, if its files are watched, one of them
// changes. It returns why it ended.
func (n *Node) runCommand(ctx context.Context, watching bool) error {
	runtime.LockOSThread() // the function ends with the thread that has started it: see endWithParent
	defer runtime.UnlockOSThread()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	host, port, _ := net.SplitHostPort(n.config.Function)
	cmd := exec.CommandContext(ctx, n.options.Command[0], n.options.Command[1:]...) //nolint:gosec // the operator's own command
	cmd.Dir = n.options.Dir
	cmd.Env = append(os.Environ(), "HOST="+host, "PORT="+port)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.WaitDelay = stopGrace
	var watch *watch
	if watching {
		watch = newWatch(cmp.Or(n.options.Dir, "."), n.config.Data, n.options.Watch, n.options.Command)
		if watch.full {
			n.logger.Warn("only some files of the user function are watched for changes: there are too many; "+
				"start it in the directory of its sources", observe.Path, watch.dir)
		}
	}
	if err := n.command.start(cmd); err != nil {
		return err
	}
	looked := make(chan struct{})
	go func() { // ends with ctx; waited for below
		defer close(looked)
		if watch != nil {
			if files := watch.await(ctx, n.clock); files != nil {
				cancel(&changedError{files})
			}
		}
	}()
	err := cmd.Wait()
	n.command.ended(cmd)
	changed, isChange := errors.AsType[*changedError](context.Cause(ctx))
	cancel(nil)
	<-looked
	switch {
	case isChange:
		return changed
	case err == nil:
		return errors.New("it exited")
	default:
		return err
	}
}

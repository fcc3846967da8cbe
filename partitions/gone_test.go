package partitions

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/partitions/core"
)

// gone is a context that has ended, whose caller notices that later.
type gone struct {
	context.Context

	noticed chan struct{}
}

func (g gone) Err() error            { return context.Canceled }
func (g gone) Done() <-chan struct{} { return g.noticed }

// TestACallerThatHasGoneGetsNoTurn: a caller that leaves sends the command again, and may be told
// of a refusal. The first attempt must not take effect after that, although its goroutine, which is
// slow, has not left yet.
func TestACallerThatHasGoneGetsNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: simlog.Options{SingleProcess: true}})
		f.await(core.Active)
		ctx, left := gone{t.Context(), make(chan struct{})}, make(chan error, 1)
		go func() {
			_, err := f.p.Submit(ctx, withID(command("a", "add x"), "id"))
			left <- err
		}()
		synctest.Wait() // the partition has seen it
		f.want(f.submit(command("a", "read")), "")
		close(ctx.noticed)
		f.wantError(answer{err: <-left}, entities.Cancelled, entities.NotApplied)
		f.want(f.submit(withID(command("a", "add y"), "id")), "y")
	})
}

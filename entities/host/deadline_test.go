package host_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/host"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/eventsourced"
)

// TestARemoteFunctionLearnsTheDeadline: it is sent what is left of the caller's time, and may give
// the command up when that is over: no crash, and the caller's deadline is the reason. A function
// that did not announce what it needs for that learns nothing, and cannot give a command up.
func TestARemoteFunctionLearnsTheDeadline(t *testing.T) {
	for name, extensions := range map[string][]cloudstate.MillraceExtension{
		"a function of ours": {
			cloudstate.MillraceExtension_MILLRACE_COMMAND_CONTEXT, cloudstate.MillraceExtension_MILLRACE_FAILURE_CODE,
		},
		"another function": nil,
	} {
		t.Run(name, func(t *testing.T) {
			ours := extensions != nil
			f := newFake(newSpec(t, extensions...))
			address, _ := serve(t, f, "127.0.0.1:0")
			faults := 0
			h, _ := connect(t, address, host.Options{Hooks: host.Hooks{
				OnSessionFault: func(entities.Key, *entities.Error) { faults++ },
			}})
			s, err := h.Open(t.Context(), "t.Carts", cartKey, nothingStored)
			if err != nil {
				t.Fatal(err)
			}
			c := &conversationAhead{t: t, function: take(t, "the session", f.streams)}
			c.session, _ = s.(entities.Ahead)

			patient := c.handle(add("patient"))
			command := c.hear()
			if left := command.GetContext().GetTimeoutNanos(); left != 0 {
				t.Errorf("the function is told that a caller without a deadline has %d ns", left)
			}
			c.answer(command)
			c.want(<-patient, "patient")

			timed := add("timed")
			timed.Deadline = time.Now().Add(time.Minute)
			second := c.handle(timed)
			command = c.hear()
			if left := time.Duration(command.GetContext().GetTimeoutNanos()); (left > 0) != ours || left > time.Minute {
				t.Errorf("the function is told that a caller with a minute has %v", left)
			}
			if err := c.function.send(&eventsourced.EventSourcedStreamOut{
				Message: &eventsourced.EventSourcedStreamOut_Failure{Failure: &cloudstate.Failure{
					CommandId: command.GetId(), Description: "too late", GrpcCode: int32(codes.DeadlineExceeded),
				}},
			}); err != nil {
				t.Fatal(err)
			}
			c.function.end <- nil
			d := <-second
			if ours {
				wantError(t, d.err, entities.Deadline, entities.NotApplied, "it gave up the command: nothing was applied")
			} else {
				wantError(t, d.err, entities.FunctionFailed, entities.NotApplied)
			}
			s.Close(t.Context())
			if (faults == 0) != ours {
				t.Errorf("the operator is told of %d faults", faults)
			}
		})
	}
}

// TestCommandsAheadHaveTheirDeadlines: each its own, those that are sent before their turn too.
func TestCommandsAheadHaveTheirDeadlines(t *testing.T) {
	f := newFake(newSpec(t, cloudstate.MillraceExtension_MILLRACE_SHARED_STREAM,
		cloudstate.MillraceExtension_MILLRACE_COMMAND_CONTEXT))
	c := openAheadOn(t, f)
	invs := []entities.Invocation{add("patient"), add("second")}
	invs[1].Deadline = time.Now().Add(-time.Second) // even a caller whose time is over has some
	c.session.Announce(invs)
	first, second := c.hear(), c.hear()
	if a, b := first.GetContext().GetTimeoutNanos(), second.GetContext().GetTimeoutNanos(); a != 0 || b != 1 {
		t.Errorf("the function is told that the callers have %d ns and %d ns, want none and 1", a, b)
	}
	for i, command := range []*cloudstate.Command{first, second} {
		decided := c.handle(invs[i])
		c.answer(command)
		<-decided
	}
	c.end()
}

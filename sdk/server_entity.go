package sdk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

// entitySession is the function's side of a session of one entity, as far as it is the same for all
// kinds: a state, then commands, one decision for each. The worker opens another one after a
// failure.
type entitySession struct {
	server *Server
	// service and entity are set by init, and so is id.
	service *Service
	id      string
	entity  Entity
}

// errGaveUp: the handler ended with the error of its context, because the time of its caller was
// over. That is no crash.
var errGaveUp = errors.New("the handler gave the command up at the deadline of its caller")

var errUnknownMessage = errors.New("a message of an unknown kind from the proxy")

// init makes the entity, with the stored state; sequence is that of the last event in a snapshot.
func (s *entitySession) init(kind Kind, service, id string, state *anypb.Any, sequence int64) error {
	if s.entity != nil {
		return errors.New("init: a second one on the stream")
	}
	found, err := s.server.service(service, kind)
	if err != nil {
		return fmt.Errorf("init %s: %w", id, err)
	}
	entity, err := found.NewEntity(id)
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	if err := entity.Load(fromAnyOrNil(state), uint64(sequence)); err != nil { //nolint:gosec // sequences count from 1
		return err
	}
	s.service, s.entity, s.id = found, entity, id
	return nil
}

// apply replays a stored event.
func (s *entitySession) apply(sequence int64, event *anypb.Any) error {
	if s.entity == nil {
		return fmt.Errorf("event %d came before init", sequence)
	}
	return s.entity.Apply(uint64(sequence), fromAny(event)) //nolint:gosec // sequences count from 1
}

// decided is a decision, with what its reply has in any kind.
type decided struct {
	Decision

	action  *cloudstate.ClientAction
	effects []*cloudstate.SideEffect
	timers  []*cloudstate.MillraceTimer
}

// decide lets the entity decide about a command.
func (s *entitySession) decide(ctx context.Context, command *cloudstate.Command) (d decided, err error) {
	if s.entity == nil {
		return d, fmt.Errorf("command %s came before init", command.GetName())
	}
	if command.GetEntityId() != s.id {
		return d, fmt.Errorf("command %s is for entity %q, the stream is that of %q", command.GetName(),
			command.GetEntityId(), s.id)
	}
	if left := command.GetContext().GetTimeoutNanos(); left > 0 {
		timed, cancel := context.WithTimeout(ctx, time.Duration(left))
		defer cancel()
		ctx = timed
	}
	if d.Decision, err = s.entity.Handle(ctx, fromCommand(command)); err != nil {
		if over := ctx.Err(); errors.Is(over, context.DeadlineExceeded) && errors.Is(err, over) {
			return d, errGaveUp
		}
		return d, err
	}
	if d.effects, err = s.service.toEffects(command, d.Effects); err != nil {
		return d, err
	}
	d.timers, err = s.service.toTimers(command, d.Timers)
	d.action = toClientAction(command.GetId(), &d.Decision)
	return d, err
}

// failure describes, for the worker, why a session ends at a command, nil for other messages.
func failure(ctx context.Context, command *cloudstate.Command, err error) *cloudstate.Failure {
	failure := &cloudstate.Failure{CommandId: command.GetId(), Description: err.Error()}
	if errors.Is(err, errGaveUp) {
		failure.GrpcCode = int32(codes.DeadlineExceeded)
		return failure
	}
	logCrash(ctx, err)
	return failure
}

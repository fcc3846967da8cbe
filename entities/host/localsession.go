package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
)

// localSession is the conversation with an entity of this process. It runs on the engine's
// goroutine and has none of its own.
type localSession struct {
	host    *InProcess
	service *discovery.Service
	key     entities.Key
	entity  LocalEntity
	// loadErr is an error of the engine's loader, which is no fault of the function.
	loadErr error
	// fault is why the session has ended, nil while it is open.
	fault *entities.Error
}

// open builds the entity from what is stored. Its error is the function's.
func (s *localSession) open(loaded entities.Loaded) (crash error) {
	if s.entity, crash = s.host.local.OpenEntity(s.service.Name, s.key.ID); crash != nil {
		return crash
	}
	if crash = s.entity.Load(loaded.State, loaded.StateSequence); crash != nil || loaded.Events == nil {
		return crash
	}
	err := loaded.Events(func(e entities.Event) error {
		if crash = s.entity.Apply(e); crash != nil {
			crash = fmt.Errorf("event %d: %w", e.Sequence, crash)
			return crash
		}
		s.host.stats.eventsReplayed.Add(1)
		return nil
	})
	if crash == nil {
		s.loadErr = err
	}
	return crash
}

// Handle lets the function decide about one command.
func (s *localSession) Handle(ctx context.Context, inv entities.Invocation) (*entities.Outcome, error) {
	if s.fault != nil {
		return nil, functionFailed(s.service.Kind.Spec().Terminated, s.fault)
	}
	s.host.stats.commands.Add(1)
	out, err := s.handle(ctx, inv)
	s.host.stats.decided(out, err)
	return out, err
}

func (s *localSession) handle(ctx context.Context, inv entities.Invocation) (*entities.Outcome, error) {
	var out *entities.Outcome
	crash := guard(func() (err error) {
		out, err = s.entity.Handle(ctx, inv)
		return err
	})
	if crash == nil && out == nil {
		crash = errors.New("the function returned no outcome")
	}
	if crash == nil && dropBesideRefusal(out) {
		s.host.warnOfRefusal(s.service.Method(inv.Method))
	}
	if crash == nil {
		crash = kinds[s.service.Kind].check(out, s.host.options.MaxCommitRecords)
	}
	if crash == nil {
		crash = checkEffects(out, s.service)
	}
	if crash == nil {
		crash = checkTimers(out, s.service, s.key, inv.Time)
	}
	if crash == nil {
		return out, nil
	}
	s.fault = functionFailed(kinds[s.service.Kind].texts().failure,
		fmt.Errorf("%s/%s on %s: %w", inv.Service, inv.Method, s.key, crash))
	if gaveUp(ctx, crash) {
		return nil, callerLeft(ctx, entities.NotApplied, "it gave up the command: nothing was applied")
	}
	s.host.options.Hooks.OnSessionFault(s.key, s.fault)
	return nil, s.fault
}

// Close forgets the entity.
func (s *localSession) Close(context.Context) {
	s.entity = nil
	s.host.stats.sessionsOpen.Add(-1)
}

// Ended returns nil: an entity of this process does not end by itself.
func (s *localSession) Ended() <-chan struct{} { return nil }

// Size returns the entity's own estimate.
func (s *localSession) Size() int {
	if s.entity == nil {
		return 0
	}
	return s.entity.Size()
}

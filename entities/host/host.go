package host

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
)

// Host stands before one user function, which may come late and may be replaced. Its methods may be called from many
// goroutines.
type Host struct {
	readyTimeout time.Duration

	mu       sync.RWMutex
	function Function
	// attached is closed when the first function comes.
	attached chan struct{}
}

// New returns a host without a function. readyTimeout is how long calls wait for one; 0 means DefaultReadyTimeout.
func New(readyTimeout time.Duration) *Host {
	if readyTimeout == 0 {
		readyTimeout = DefaultReadyTimeout
	}
	return &Host{readyTimeout: readyTimeout, attached: make(chan struct{})}
}

// Replace puts a function, which must not be nil, in the place of the one before, which it returns; nil the first time. New calls go to the new
// function at once. Open sessions stay with the old one until they are closed, or until whoever called Replace closes it.
func (h *Host) Replace(f Function) (old Function) {
	h.mu.Lock()
	defer h.mu.Unlock()
	old, h.function = h.function, f
	if old == nil {
		close(h.attached)
	}
	return old
}

// Catalog returns what the present function serves; nil while there is none.
func (h *Host) Catalog() *discovery.Catalog {
	if f := h.present(); f != nil {
		return f.Catalog()
	}
	return nil
}

func (h *Host) present() Function {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.function
}

// await returns the present function. While there is none yet it waits, bounded.
func (h *Host) await(ctx context.Context) (Function, error) {
	if f := h.present(); f != nil {
		return f, nil
	}
	timer := time.NewTimer(h.readyTimeout)
	defer timer.Stop()
	select {
	case <-h.attached:
		return h.present(), nil
	case <-ctx.Done():
		return nil, callerGone(ctx)
	case <-timer.C:
		return nil, errNoFunction(fmt.Sprintf("; waited %v", h.readyTimeout))
	}
}

func errNoFunction(detail string) *entities.Error {
	e := entities.Errorf(entities.Unavailable, entities.NotApplied, "no user function is connected yet%s: start it, or check its address", detail)
	e.RetryAfter = time.Second
	return e
}

// callerGone is the error of a call whose context ended before anything was done.
func callerGone(ctx context.Context) *entities.Error {
	reason, text := entities.Cancelled, "the call was cancelled"
	if errors.Is(ctx.Err(), context.DeadlineExceeded) || passed(ctx) {
		reason, text = entities.Deadline, "the deadline of the call passed"
	}
	return &entities.Error{Reason: reason, Outcome: entities.NotApplied, Message: text, Cause: context.Cause(ctx)}
}

// Open begins the session of one entity; it calls load exactly once, unless the function cannot be reached.
func (h *Host) Open(ctx context.Context, service string, key entities.Key, load entities.Loader) (entities.Session, error) {
	f, err := h.await(ctx)
	if err != nil {
		return nil, err
	}
	s := f.Catalog().Service(service)
	if s == nil {
		return nil, unknownService(service)
	}
	switch s.Kind {
	case entities.EventSourced, entities.Value:
		return f.Open(ctx, s, key, load)
	case entities.Replicated:
		return nil, entities.Errorf(entities.NotSupported, entities.NotApplied, "%s: replicated entities are not supported yet by this version", service)
	default:
		return nil, entities.Errorf(entities.Internal, entities.NotApplied, "%s: the service is of the kind %s and has no entities", service, s.Kind)
	}
}

// Act runs a unary action.
func (h *Host) Act(ctx context.Context, inv entities.Invocation) (*entities.Outcome, error) {
	f, err := h.await(ctx)
	if err != nil {
		return nil, err
	}
	m, err := actionMethod(f, inv.Command)
	if err != nil {
		return nil, err
	}
	if !m.IsUnary() {
		return nil, entities.Errorf(entities.Internal, entities.NotApplied, "%s: the method streams and was called as a unary one", m.FullName)
	}
	return f.Act(ctx, m, inv)
}

// ActStream runs a streamed action; on gets every outcome in order, one at a time, and its error ends the call. So does an
// outcome with a failure, whose error is returned when on returned none.
func (h *Host) ActStream(ctx context.Context, s *entities.Stream, on OutcomeFunc) error {
	f, err := h.await(ctx)
	if err != nil {
		return err
	}
	m, err := actionMethod(f, s.Command)
	if err != nil {
		return err
	}
	if m.IsUnary() {
		return entities.Errorf(entities.Internal, entities.NotApplied, "%s: the method is unary and was called as a streaming one", m.FullName)
	}
	return f.ActStream(ctx, m, s, on)
}

// actionMethod looks the method of an action up.
func actionMethod(f Function, cmd *entities.Command) (*discovery.Method, error) {
	s := f.Catalog().Service(cmd.Service)
	if s == nil {
		return nil, unknownService(cmd.Service)
	}
	m := s.Method(cmd.Method)
	if m == nil {
		return nil, unknownMethod(s, cmd.Method)
	}
	if s.Kind != entities.Action {
		return nil, entities.Errorf(entities.Internal, entities.NotApplied, "%s: the service is of the kind %s and was called as an action", m.FullName, s.Kind)
	}
	return m, nil
}

// Resolve turns the target of a forward or an effect into a command. It does not wait: targets come from a function, so there
// is one. What is wrong with a target is reported to the function.
func (h *Host) Resolve(t entities.Target) (*entities.Command, error) {
	f := h.present()
	if f == nil {
		return nil, errNoFunction("")
	}
	cmd, err := resolve(f.Catalog(), t)
	if err != nil {
		f.Report(fmt.Sprintf("A forward or effect to %s/%s cannot be sent: %s", t.Service, t.Method, err))
	}
	return cmd, err
}

func resolve(c *discovery.Catalog, t entities.Target) (*entities.Command, error) {
	s := c.Service(t.Service)
	if s == nil {
		return nil, unknownService(t.Service)
	}
	m := s.Method(t.Method)
	if m == nil {
		return nil, unknownMethod(s, t.Method)
	}
	return m.Retarget(t)
}

func unknownService(name string) *entities.Error {
	return entities.Errorf(entities.UnknownMethod, entities.NotApplied, "service %s is not served by this user function", name)
}

func unknownMethod(s *discovery.Service, name string) *entities.Error {
	return entities.Errorf(entities.UnknownMethod, entities.NotApplied, "service %s has no method %s", s.Name, name)
}

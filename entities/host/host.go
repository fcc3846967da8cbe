package host

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/internal/settings"
)

// User is the owner of the user's function. The runtime's own functions have other owners.
const User = "user"

// Host gives access to the user's function, which may be attached late and may be replaced, and to
// the functions of the runtime. The service that a command names says which of them it is for. Its
// methods may be called from many goroutines.
type Host struct {
	functionWait time.Duration

	// setting is held while the functions are changed.
	setting sync.Mutex
	present atomic.Pointer[functions]
	// attached is closed when the user's function is attached for the first time.
	attached chan struct{}
}

// functions is one set of functions. It never changes.
type functions struct {
	// owners are in the order in which they were set, but the user is first; of holds their functions.
	owners []string
	of     map[string]Function
	// catalog is that of all of them; nil while the user's is missing.
	catalog   *discovery.Catalog
	byService map[string]Function
}

// New returns a host without a function. Of the settings FunctionWait counts.
func New(s Settings) *Host {
	settings.Fill(&s)
	h := &Host{functionWait: s.FunctionWait, attached: make(chan struct{})}
	h.present.Store(&functions{})
	return h
}

// Set replaces the function of an owner, which it returns, by another one, which must not be nil;
// nil the first time. New calls go to the new function at once. Open sessions stay with the old one
// until they are closed, or until the caller closes it. accept gets the catalog of all functions,
// as soon as the user's is among them, before any call sees it; nil: all are accepted. The error is
// that of accept, or says which services contradict one another, and then nothing has changed.
func (h *Host) Set(owner string, f Function, accept func(*discovery.Catalog) error) (old Function, err error) {
	h.setting.Lock()
	defer h.setting.Unlock()
	before := h.present.Load()
	if err := h.put(before.with(owner, f), accept); err != nil {
		return nil, err
	}
	if owner == User && before.of[User] == nil {
		close(h.attached)
	}
	return before.of[owner], nil
}

// Remove takes the function of an owner away, which must not be the user, and returns it; nil if
// there is none. accept and the error are those of Set.
func (h *Host) Remove(owner string, accept func(*discovery.Catalog) error) (old Function, err error) {
	h.setting.Lock()
	defer h.setting.Unlock()
	before := h.present.Load()
	if before.of[owner] == nil {
		return nil, nil
	}
	if err := h.put(before.with(owner, nil), accept); err != nil {
		return nil, err
	}
	return before.of[owner], nil
}

// put makes the functions the present ones, if they are accepted.
func (h *Host) put(now *functions, accept func(*discovery.Catalog) error) (err error) {
	if now.of[User] != nil {
		if now.catalog, err = now.compose(); err != nil {
			return err
		}
		if accept != nil {
			if err := accept(now.catalog); err != nil {
				return err
			}
		}
	}
	h.present.Store(now)
	return nil
}

// with returns the functions with another one of owner, nil for none, without their catalog.
func (fs *functions) with(owner string, f Function) *functions {
	now := &functions{owners: slices.Clone(fs.owners), of: maps.Clone(fs.of), byService: map[string]Function{}}
	if now.of == nil {
		now.of = map[string]Function{}
	}
	switch {
	case f == nil:
		delete(now.of, owner)
		now.owners = slices.DeleteFunc(now.owners, func(o string) bool { return o == owner })
	case now.of[owner] == nil && owner == User:
		now.owners = slices.Insert(now.owners, 0, owner)
	case now.of[owner] == nil:
		now.owners = append(now.owners, owner)
	}
	if f != nil {
		now.of[owner] = f
	}
	for _, o := range now.owners {
		for _, s := range now.of[o].Catalog().Services() {
			if now.byService[s.Name] == nil {
				now.byService[s.Name] = now.of[o]
			}
		}
	}
	return now
}

func (fs *functions) compose() (*discovery.Catalog, error) {
	parts := make([]*discovery.Catalog, 0, len(fs.owners))
	for _, o := range fs.owners {
		parts = append(parts, fs.of[o].Catalog())
	}
	return discovery.Compose(parts...)
}

// Catalog returns what all functions serve; nil while the user's is missing.
func (h *Host) Catalog() *discovery.Catalog { return h.present.Load().catalog }

// find returns the function that serves a service. While the user's function is missing it waits
// for that, bounded.
func (h *Host) find(ctx context.Context, service string) (Function, error) {
	fs := h.present.Load()
	if f := fs.byService[service]; f != nil {
		return f, nil
	}
	if fs.of[User] == nil {
		timer := time.NewTimer(h.functionWait)
		defer timer.Stop()
		select {
		case <-h.attached:
		case <-ctx.Done():
			return nil, callerGone(ctx)
		case <-timer.C:
			return nil, errNoFunction(fmt.Sprintf("; waited %v", h.functionWait))
		}
		if f := h.present.Load().byService[service]; f != nil {
			return f, nil
		}
	}
	return nil, unknownService(service)
}

func errNoFunction(detail string) *entities.Error {
	e := entities.Errorf(entities.Unavailable, entities.NotApplied,
		"no user function is connected yet%s: start it, or check its address", detail)
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

// Open begins the session of one entity; it calls load exactly once, unless the function cannot be
// reached.
func (h *Host) Open(ctx context.Context, service string, key entities.Key,
	load entities.Loader,
) (entities.Session, error) {
	f, err := h.find(ctx, service)
	if err != nil {
		return nil, err
	}
	s := f.Catalog().Service(service)
	switch spec := s.Kind.Spec(); {
	case !spec.HasEntities:
		return nil, entities.Errorf(entities.Internal, entities.NotApplied,
			"%s: the service is of the kind %s and has no entities", service, s.Kind)
	case kinds[s.Kind] == nil:
		return nil, entities.Errorf(entities.NotSupported, entities.NotApplied,
			"%s: %s entities are not supported yet by this version", service, s.Kind)
	}
	return f.Open(ctx, s, key, load)
}

// Act runs a unary action.
func (h *Host) Act(ctx context.Context, inv entities.Invocation) (*entities.Outcome, error) {
	f, err := h.find(ctx, inv.Command.Service)
	if err != nil {
		return nil, err
	}
	m, err := actionMethod(f, inv.Command)
	if err != nil {
		return nil, err
	}
	if !m.IsUnary() {
		return nil, entities.Errorf(entities.Internal, entities.NotApplied,
			"%s: the method streams and was called as a unary one", m.FullName)
	}
	return f.Act(ctx, m, inv)
}

// ActStream runs a streamed action; on gets every outcome in order, one at a time, and its error
// ends the call. So does an outcome with a failure, whose error is returned when on returned none.
func (h *Host) ActStream(ctx context.Context, s *entities.Stream, on OutcomeFunc) error {
	f, err := h.find(ctx, s.Command.Service)
	if err != nil {
		return err
	}
	m, err := actionMethod(f, s.Command)
	if err != nil {
		return err
	}
	if m.IsUnary() {
		return entities.Errorf(entities.Internal, entities.NotApplied,
			"%s: the method is unary and was called as a streaming one", m.FullName)
	}
	return f.ActStream(ctx, m, s, on)
}

// actionMethod looks the method of an action up.
func actionMethod(f Function, cmd *entities.Command) (*discovery.Method, error) {
	s := f.Catalog().Service(cmd.Service)
	m := s.Method(cmd.Method)
	if m == nil {
		return nil, unknownMethod(s, cmd.Method)
	}
	if s.Kind.Spec().HasEntities {
		return nil, entities.Errorf(entities.Internal, entities.NotApplied,
			"%s: the service is of the kind %s and was called as an action", m.FullName, s.Kind)
	}
	return m, nil
}

// Resolve turns the target of a forward or an effect into a command. It does not wait: a target
// that was found after a restart, before the user's function is here, is Unavailable. Services that
// only the runtime calls are no targets. What is wrong with a target is reported to the user's
// function.
func (h *Host) Resolve(t entities.Target) (*entities.Command, error) {
	fs := h.present.Load()
	cmd, err := fs.resolve(t)
	if f := fs.byService[t.Service]; f != nil && f.Catalog().Service(t.Service).IsInternal() {
		cmd, err = nil, unknownService(t.Service)
	}
	if f := fs.of[User]; err != nil && f != nil {
		f.Report(fmt.Sprintf("Forward or effect to %s/%s cannot be sent: %s", t.Service, t.Method, err))
	}
	return cmd, err
}

// Receive turns the target of a command from another worker into a command. That worker has
// resolved it, by its own version of the function, so a mistake is not reported to this one.
func (h *Host) Receive(t entities.Target) (*entities.Command, error) {
	return h.present.Load().resolve(t)
}

func (fs *functions) resolve(t entities.Target) (*entities.Command, error) {
	f := fs.byService[t.Service]
	switch {
	case f == nil && fs.of[User] == nil: // the user's function is not here yet, and may serve it
		return nil, errNoFunction("")
	case f == nil:
		return nil, unknownService(t.Service)
	}
	s := f.Catalog().Service(t.Service)
	m := s.Method(t.Method)
	if m == nil {
		return nil, unknownMethod(s, t.Method)
	}
	return m.Retarget(t)
}

func unknownService(name string) *entities.Error {
	return entities.Errorf(entities.UnknownMethod, entities.NotApplied,
		"service %s is not served by this user function", name)
}

func unknownMethod(s *discovery.Service, name string) *entities.Error {
	return entities.Errorf(entities.UnknownMethod, entities.NotApplied, "service %s has no method %s", s.Name, name)
}

package sdk

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Service is one service of a user function, ready to be run. It does not change after it was built
// and may be used from many goroutines. [Check] says what is wrong with it.
type Service struct {
	kind           Kind
	persistenceID  string
	passivateAfter time.Duration
	// descriptor is nil when no option names a method that exists.
	descriptor protoreflect.ServiceDescriptor
	// stored are the files of the messages that are stored: events, snapshots, values.
	stored   []protoreflect.FileDescriptor
	problems []error

	// newEntity is set for the kinds with state, actions for actions.
	newEntity func(id string) (Entity, error)
	actions   map[string]actionMethod
}

// minPassivation is the shortest idle time that the protocol can express.
const minPassivation = time.Millisecond

// PassivateAfter returns a copy of the service whose entities leave memory after having been idle
// for d; without it the worker decides (30 s by default). Shorter saves memory, longer saves
// rebuilding.
//
//	var Service = sdk.Value("counter", …).PassivateAfter(5 * time.Minute)
func (s *Service) PassivateAfter(d time.Duration) *Service {
	next := *s
	next.passivateAfter = d
	next.problems = append([]error(nil), s.problems...)
	switch {
	case !s.kind.HasEntities():
		next.problem("PassivateAfter(%v): actions have no state that could leave memory: remove the call", d)
	case d < minPassivation:
		next.problem("PassivateAfter(%v): must be at least %v", d, minPassivation)
	}
	return &next
}

// name returns the full name of the proto service, or "" when it is not known.
func (s *Service) name() string {
	if s.descriptor == nil {
		return ""
	}
	return string(s.descriptor.FullName())
}

// String names the service for people.
func (s *Service) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s service", s.kind)
	if s.kind.HasEntities() {
		fmt.Fprintf(&b, " %q", s.persistenceID)
	}
	if s.descriptor != nil {
		fmt.Fprintf(&b, " (%s)", s.name())
	}
	return b.String()
}

func (s *Service) problem(format string, args ...any) {
	s.problems = append(s.problems, fmt.Errorf(format, args...))
}

// Check reports everything that is wrong with the services, each alone and all together, one line
// for each mistake; nil when they can be run.
func Check(services ...*Service) error {
	if len(services) == 0 {
		return errors.New("sdk: no services: give at least one, as in sdk.Serve(ctx, addr, cart.Service)")
	}
	var problems []error
	byName := map[string]*Service{}
	byPersistenceID := map[string]*Service{}
	for i, s := range services {
		if s == nil {
			problems = append(problems, fmt.Errorf(
				"sdk: service %d of %d is nil: is its package-level variable initialized?", i+1, len(services)))
			continue
		}
		for _, problem := range s.problems {
			problems = append(problems, fmt.Errorf("sdk: %s: %w", s, problem))
		}
		if name := s.name(); name != "" {
			if other := byName[name]; other != nil {
				problems = append(problems, fmt.Errorf("sdk: %s is given twice: remove one", s))
				continue
			}
			byName[name] = s
		}
		if id := s.persistenceID; id != "" {
			if other := byPersistenceID[id]; other != nil {
				problems = append(problems, fmt.Errorf(
					"sdk: %s and %s have the same persistence id: their states would overwrite each other; rename one",
					other, s))
				continue
			}
			byPersistenceID[id] = s
		}
	}
	return errors.Join(problems...)
}

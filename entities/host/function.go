package host

import (
	"context"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
)

// Function is one function, the user's or one of the runtime, whatever hosts it. A Host gives it
// only what its catalog has: services of the right kind, methods that exist.
type Function interface {
	// Catalog is what the function serves. It never changes.
	Catalog() *discovery.Catalog
	// Open begins the session of one entity; it calls load exactly once, unless the function cannot
	// be reached.
	Open(ctx context.Context, service *discovery.Service, key entities.Key, load entities.Loader) (entities.Session, error)
	// Act runs a unary action.
	Act(ctx context.Context, method *discovery.Method, inv entities.Invocation) (*entities.Outcome, error)
	// ActStream runs a streamed action; on gets every outcome in order, one at a time, and its
	// error ends the call.
	ActStream(ctx context.Context, method *discovery.Method, s *entities.Stream, on OutcomeFunc) error
	// Report reports a mistake in the function to its author. It does not wait.
	Report(message string)
}

// OutcomeFunc takes one outcome of a streamed action.
type OutcomeFunc = func(context.Context, *entities.Outcome) error

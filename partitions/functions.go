package partitions

import (
	"context"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/partitions/routing"
)

// Functions is what the engine needs of the hosted user functions.
type Functions interface {
	routing.Functions
	// Open begins the session of one entity; it calls load exactly once.
	Open(ctx context.Context, service string, key entities.Key, load entities.Loader) (entities.Session, error)
}

// whileMixed is a function whose methods may be unknown temporarily, while the workers of the app
// serve different versions.
type whileMixed struct {
	Functions

	table *routing.Table
}

// Resolve makes a command for a target.
func (f whileMixed) Resolve(t entities.Target) (*entities.Command, error) {
	cmd, err := f.Functions.Resolve(t)
	if err != nil {
		err = routing.Mixed(f.table.Current(), err)
	}
	return cmd, err
}

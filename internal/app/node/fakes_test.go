package node

import (
	"context"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/host"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

// flushable is a store that can only be flushed.
type flushable struct {
	materializer.Store
	flush func() error
}

// Flush does what the test sets.
func (f flushable) Flush() error { return f.flush() }

// specOnly is a function that cannot be served.
type specOnly struct{ host.Local }

// Spec declares a service that is not in its descriptors.
func (specOnly) Spec() *cloudstate.EntitySpec {
	return &cloudstate.EntitySpec{
		ServiceInfo: &cloudstate.ServiceInfo{ProtocolMinorVersion: 2},
		Entities:    []*cloudstate.Entity{{EntityType: "cloudstate.action.ActionProtocol", ServiceName: "t.Missing"}},
	}
}

// gate is a counter whose commands wait until the test opens it.
type gate struct {
	host.Local
	entered, open chan struct{}
	once          *sync.Once
}

func newGate(t *testing.T) gate {
	t.Helper()
	return gate{Local: local(t, "counter"), entered: make(chan struct{}), open: make(chan struct{}), once: &sync.Once{}}
}

// OpenEntity returns an entity behind the gate.
func (g gate) OpenEntity(service, id string) (host.LocalEntity, error) {
	e, err := g.Local.OpenEntity(service, id)
	return gatedEntity{e, g}, err
}

type gatedEntity struct {
	host.LocalEntity
	gate gate
}

// Handle waits for the gate.
func (e gatedEntity) Handle(ctx context.Context, inv entities.Invocation) (*entities.Outcome, error) {
	e.gate.once.Do(func() { close(e.gate.entered) })
	<-e.gate.open
	return e.LocalEntity.Handle(ctx, inv)
}

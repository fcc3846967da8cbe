package node

import (
	"context"
	"fmt"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/entities/host"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

// This file hosts functions of the runtime beside the user's: entities of its own, and services
// that it makes of definitions. Their services are named millrace.*. The public port serves those
// in millrace.query; all others only this program calls, on the worker that owns the entity. They
// are no part of what workers compare before they join an app.

// serveOwn hosts a function of the runtime under the name of an owner, or replaces the one before.
// It may be called at any time: callers get it as soon as the user's function is there, the runtime
// at once. The error says what of it cannot be served beside the others; then nothing has changed.
func (n *Node) serveOwn(owner string, local host.Local) error {
	checks := discovery.Options{Settings: discovery.Settings{MaxKey: n.config.MaxKey}, Runtime: true}
	f, err := host.NewInProcess(local, n.hosting(), checks)
	if err == nil {
		_, err = n.host.Set(owner, f, n.showCatalog)
	}
	if err != nil {
		return fmt.Errorf("serve the runtime's %s: %w", owner, err)
	}
	n.readiness.set(n.host, nil)
	return nil
}

// showCatalog has the public port serve another catalog of the host. The same one again would end
// connections for nothing.
func (n *Node) showCatalog(catalog *discovery.Catalog) error {
	if now := n.host.Catalog(); now != nil && now.Version() == catalog.Version() {
		return nil
	}
	return n.gateway.SetCatalog(catalog)
}

// callOwn runs a command of one of the runtime's services, on the worker that owns its entity, and
// returns the reply. Errors are *entities.Error.
func (n *Node) callOwn(ctx context.Context, service, method string, request []byte) ([]byte, error) {
	target := entities.Target{Service: service, Method: method, Payload: entities.Payload{Value: request}}
	cmd, err := n.host.Receive(target)
	if err != nil {
		return nil, err
	}
	reply, err := n.router.Dispatch(ctx, cmd)
	if err != nil {
		return nil, err
	}
	return reply.Payload.Value, nil
}

// answers is a function of actions that one handler answers, and of streamed ones that another one
// does. An *entities.Error of a handler is the caller's answer.
type answers struct {
	spec   *cloudstate.EntitySpec
	handle func(context.Context, *entities.Command) (*entities.Reply, error)
	stream func(ctx context.Context, cmd *entities.Command, send func(*entities.Reply) error) error
}

// Spec declares the actions.
func (a *answers) Spec() *cloudstate.EntitySpec { return a.spec }

// OpenEntity refuses: there are only actions.
func (a *answers) OpenEntity(service, _ string) (host.LocalEntity, error) {
	return nil, fmt.Errorf("service %s has no entities", service)
}

// Act answers one call.
func (a *answers) Act(ctx context.Context, inv entities.Invocation) (*entities.Outcome, error) {
	reply, err := a.handle(ctx, inv.Command)
	if err != nil {
		return nil, err
	}
	return &entities.Outcome{Reply: reply}, nil
}

// ActStream answers a call with as many replies as the handler sends.
func (a *answers) ActStream(ctx context.Context, s *entities.Stream,
	on func(context.Context, *entities.Outcome) error,
) error {
	return a.stream(ctx, s.Command, func(reply *entities.Reply) error {
		return on(ctx, &entities.Outcome{Reply: reply})
	})
}

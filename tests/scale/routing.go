package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"time"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/clock/clocktest"
	"github.com/millrace-io/millrace/partitions/routing"
)

// router is what routing costs a gateway with the present table.
type router struct {
	// Commands were sent, Hops are the workers that they were sent to.
	Commands, Hops int
}

// callsOfStep is how many commands are sent with the table from before a step.
const callsOfStep = 2000

// workers answers commands as the members of a group would: the owner with a reply, others that
// they do not own the partition; there is no answer from the address of a member that is gone.
type workers struct {
	partitions int
	// owners are the addresses by partition.
	owners []string
	hops   int
}

var errNotHere = entities.Errorf(entities.Moved, entities.NotApplied, "the worker does not own the partition")

// Dispatch implements routing.Peers.
func (w *workers) Dispatch(_ context.Context, address string, cmd *entities.Command, _ int) (*entities.Reply, error) {
	w.hops++
	if w.owners[entities.Partition(cmd.Key.ID, w.partitions)] != address {
		return nil, errNotHere
	}
	return &entities.Reply{NoPayload: true}, nil
}

// DispatchStream implements routing.Peers; no action is called.
func (w *workers) DispatchStream(context.Context, string, *entities.Stream) error { return errNotHere }

// Position implements routing.Peers; no read goes to followers.
func (w *workers) Position(context.Context, string, int32) (int64, error) { return 0, errNotHere }

func (g *group) workers() *workers {
	w := &workers{partitions: g.partitions, owners: make([]string, g.partitions)}
	for _, m := range g.members {
		for _, p := range m.owned {
			w.owners[p] = m.Address
		}
	}
	return w
}

// remoteRouter is that of a gateway of the group, with a clock that stands still: it must find an
// owner without waiting.
func (g *group) remoteRouter(routes *routing.Table, w *workers) *routing.RemoteRouter {
	return routing.NewRemoteRouter(routing.Options{
		Layout: entities.LayoutOf("shop", int32(g.partitions)), //nolint:gosec // a number of partitions
		Table:  routes, Peers: w, MaxWaiting: 4096, Patience: time.Minute,
		Clock:  clocktest.NewManual(time.Unix(0, 0)),
		Random: rand.New(rand.NewPCG(g.options.Seed, 2)).Uint64, //nolint:gosec // a simulation
	})
}

func command(r *rand.Rand) *entities.Command {
	return &entities.Command{
		Service: "shop.Cart", Method: "Add", Type: &entities.EntityType{Kind: entities.EventSourced},
		Key: entities.Key{Type: "cart", ID: strconv.FormatUint(r.Uint64(), 36)},
	}
}

// routeWith sends commands through a router that missed the step, each with the table from before
// it, and gets the present one when it asks.
func (g *group) routeWith(before *broker.Table) error {
	if before == nil {
		return nil
	}
	w, routes := g.workers(), routing.NewTable()
	routes.RefreshBy(func() { routes.Set(g.table) })
	f := g.remoteRouter(routes, w)
	misrouted := 0
	for range callsOfStep {
		routes.Set(before)
		w.hops = 0
		if _, err := f.Dispatch(context.Background(), command(g.random)); err != nil {
			return fmt.Errorf("a command with the table from before: %w", err)
		}
		if w.hops > 1 {
			misrouted++
		}
		g.step.MostHops = max(g.step.MostHops, w.hops)
	}
	g.step.OldTable = float64(misrouted) / callsOfStep
	return nil
}

// router measures a gateway with the present table.
func (m *measured) router(g *group, r *router) error {
	w, routes := g.workers(), routing.NewTable()
	routes.Set(g.table)
	f := g.remoteRouter(routes, w)
	commands := make([]*entities.Command, 4096)
	random := rand.New(rand.NewPCG(g.options.Seed, 3)) //nolint:gosec // a simulation
	for i := range commands {
		commands[i] = command(random)
	}
	const rounds = 16
	ctx := context.Background()
	before, began := allocated(), time.Now()
	for range rounds {
		for _, cmd := range commands {
			if _, err := f.Dispatch(ctx, cmd); err != nil {
				return err
			}
		}
	}
	r.Commands = rounds * len(commands)
	m.Forward = time.Since(began) / time.Duration(r.Commands)
	m.ForwardAllocated = (allocated() - before) / uint64(r.Commands) //nolint:gosec // positive
	r.Hops = w.hops
	began = time.Now()
	var owner broker.Member
	for range rounds {
		for _, cmd := range commands {
			t, _ := routes.Watch()
			owner, _ = t.Owner(entities.Partition(cmd.Key.ID, g.partitions))
		}
	}
	runtime.KeepAlive(owner)
	m.Look = time.Since(began) / time.Duration(r.Commands)
	m.RouterMemory = held(8, func() *routing.RemoteRouter { return g.remoteRouter(routes, w) })
	return nil
}

package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/kafka"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/internal/backoff"
	"github.com/millrace-io/millrace/internal/lifecycle"
	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/partitions/journal"
	"github.com/millrace-io/millrace/partitions/peer"
	"github.com/millrace-io/millrace/partitions/routing"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// Gateway is a process that serves an app's callers through its workers. It hosts no function, has
// no data directory and owns nothing, so that there may be any number of them. StartGateway makes
// it; Wait returns when it has ended.
type Gateway struct {
	*process

	workers broker.Group
	client  *peer.Client
	router  *routing.RemoteRouter
	catalog atomic.Pointer[discovery.Catalog]
}

// The tasks of a gateway beside those that a worker has, too.
const (
	taskRoutes  = "routes"
	taskCatalog = "catalog"
)

// catalogPause is the pause after a worker did not send its catalog.
var catalogPause = backoff.Policy{First: 50 * time.Millisecond, Max: 2 * time.Second, Jitter: 0.3} //nolint:gochecknoglobals // a constant

// StartGateway opens everything and starts the tasks. Of the options, Config, PartitionsGiven,
// Version, Logger, Log and Clock count. When it returns an error, nothing is left open. When ctx
// ends, so does the gateway, in order.
func StartGateway(ctx context.Context, o Options) (*Gateway, error) {
	g := &Gateway{process: newProcess(o)}
	if err := g.open(ctx); err != nil {
		return nil, errors.Join(err, g.close())
	}
	g.group = lifecycle.New(ctx, g.clock)
	g.group.Start(taskShutdown, func(ctx context.Context) error {
		return g.shutdown(ctx, func(context.Context) { close(g.quiet) })
	})
	g.group.Start(taskRoutes, g.watchRoutes)
	g.group.Start(taskCatalog, g.watchCatalog)
	g.serve(g.NotReady)
	return g, nil
}

const (
	// journalPatience is how long a gateway waits for the journal: the first worker creates it,
	// perhaps at this moment, and brokers learn of it one after the other.
	journalPatience = 5 * time.Second
	journalPause    = 100 * time.Millisecond
)

// find describes the journal, and waits for it if need be.
func (g *Gateway) find(ctx context.Context, journal string) (broker.TopicInfo, error) {
	for until := g.clock.Now().Add(journalPatience); ; {
		info, err := g.log.Describe(ctx, journal)
		if !errors.Is(err, broker.ErrUnknownTopic) || !g.clock.Now().Before(until) {
			return info, err
		}
		again, stop := g.clock.After(journalPause)
		select {
		case <-again:
		case <-ctx.Done():
			stop()
			return info, context.Cause(ctx)
		}
	}
}

// open opens everything, the log first.
func (g *Gateway) open(ctx context.Context) (err error) {
	c := g.config
	if err := g.openPorts(ctx, gatewayProcess{g}, g.quiet); err != nil {
		return err
	}
	if err := g.openLog(); err != nil {
		return err
	}
	topic := c.App + ".journal"
	if g.topic, err = g.find(ctx, topic); err != nil {
		return fmt.Errorf("look for topic %s: %w; a gateway serves the workers of an app: start one first, with `millrace run`", topic, err)
	}
	g.layout = entities.LayoutOf(c.App, g.topic.Partitions)
	if g.options.PartitionsGiven {
		g.layout.Partitions = int32(c.Partitions) //nolint:gosec // at most 4096
	}
	if err := g.layout.Check(); err != nil {
		return fmt.Errorf("topic %s has %w; set --partitions to the number that its data was written with", topic, err)
	}
	if err := journal.CheckPartitions(g.layout, g.topic, g.options.PartitionsGiven); err != nil {
		return err
	}
	identity := peer.Identity{Layout: g.layout, Incarnation: rand.Uint64()} //nolint:gosec // a name, not a secret
	g.client = peer.NewClient(peer.ClientOptions{
		Identity: identity, Clock: g.clock, MaxFrameBytes: c.frameBytes(),
		Hooks: peer.Hooks{
			Lost: func(name, address string, err error) {
				g.logger.Info("no connection to a worker", observe.Worker, name, observe.Address, address, observe.Error, err)
			},
		},
	})
	g.onClose(g.client.Close)
	if err := g.openTracer(""); err != nil {
		return err
	}
	g.router = routing.NewRemoteRouter(routing.Options{
		Layout: g.layout, Table: g.routes, Peers: g.client, MaxWaiting: c.MaxWaiting, Patience: c.MovePatience,
		Clock: g.clock, Tracer: g.tracer,
	})
	g.openGateway(g.router, g.unsure)
	return nil
}

func (g *Gateway) openLog() error {
	if g.log == nil {
		if len(g.config.Brokers) == 0 {
			return errors.New("a gateway finds the workers by the brokers: name them with --brokers")
		}
		log, err := kafka.Open(kafka.Options{Brokers: g.config.Brokers, ClientID: "millrace-gateway"})
		if err != nil {
			return err
		}
		g.keepLog(log)
		g.sources = append(g.sources, kafkaMetrics(log))
	}
	group, shared := g.log.(broker.Group)
	if !shared {
		return errors.New("this log has no group of workers")
	}
	g.workers = group
	g.routes.RefreshBy(group.Refresh)
	return nil
}

// watchRoutes keeps the routing table, and a connection to every worker.
func (g *Gateway) watchRoutes(ctx context.Context) error {
	return g.workers.Watch(ctx, g.config.App, g.topic.Name, func(t *broker.Table) {
		g.troubles.note(taskRoutes, nil)
		g.routes.Set(t)
		g.client.Watch(others(g.routes.Current(), ""))
		g.checkReady()
	}, func(err error) {
		g.troubles.note(taskRoutes, err)
		g.logger.Warn("no routing table from the brokers; the last one is used", observe.Error, err)
	})
}

// watchCatalog learns from one worker after the other what they serve, and each time that it
// changes.
func (g *Gateway) watchCatalog(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		table, changed := g.routes.Watch()
		err := errNoWorkers
		if table != nil && len(table.Members) > 0 {
			m := table.Members[attempt%len(table.Members)]
			err = g.client.Spec(ctx, m.Address, g.known(), func(spec *cloudstate.EntitySpec, _ string) error {
				attempt = 0
				return g.adopt(spec)
			})
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // that is the end
		}
		g.troubles.note(taskCatalog, err)
		again, stop := g.clock.After(catalogPause.Pause(attempt))
		select {
		case <-again:
		case <-changed:
		case <-ctx.Done():
		}
		stop()
	}
}

var errNoWorkers = errors.New("no worker of the app is known")

func (g *Gateway) known() string {
	if c := g.catalog.Load(); c != nil {
		return c.Version()
	}
	return ""
}

// adopt serves what a worker's function serves.
func (g *Gateway) adopt(spec *cloudstate.EntitySpec) error {
	catalog, err := discovery.NewCatalog(spec,
		discovery.Options{Settings: discovery.Settings{MaxKey: g.config.MaxKey}, Runtime: true}) // its worker has checked it
	if err != nil {
		return err
	}
	if err := g.gateway.SetCatalog(catalog); err != nil {
		return err
	}
	g.catalog.Store(catalog)
	g.troubles.note(taskCatalog, nil)
	g.checkReady()
	return nil
}

// NotReady returns why the gateway does not serve, nil when it does.
func (g *Gateway) NotReady() error {
	if g.stopping() {
		return errStopping
	}
	if err := g.routes.Err(); err != nil {
		return err
	}
	if table := g.routes.Current(); table == nil || len(table.Members) == 0 {
		return errNoWorkers
	}
	if g.catalog.Load() == nil {
		if err := g.troubles.of(taskCatalog).err; err != nil {
			return fmt.Errorf("waiting for a worker to list its services: %w", err)
		}
		return errors.New("waiting for a worker to list its services")
	}
	return nil
}

func (g *Gateway) checkReady() {
	poke(g.poked)
	if table := g.routes.Current(); table != nil && len(table.Members) > 0 && g.catalog.Load() != nil {
		g.markReady()
	}
}

// Waiting is never closed: a gateway has no function of its own to wait for.
func (g *Gateway) Waiting() <-chan struct{} { return nil }

// Abandon does nothing: a gateway has started no other process.
func (g *Gateway) Abandon() {}

// Try returns lines that a new user can paste. program is how this program is called.
func (g *Gateway) Try(program string) []string {
	ask := asking(program, g.AdminAddress())
	lines := []string{ask("cluster status")}
	if catalog := g.catalog.Load(); catalog != nil {
		if first := tryCall(catalog, g.PublicAddress()); first != nil {
			lines = append([]string{first.line}, lines...)
		}
	}
	return lines
}

func (g *Gateway) collected() []observe.Source {
	routes := measured(routeMetrics(), func(take func(*adminv1.ClusterStatus, ...string)) {
		take(g.service.ClusterStatus())
	})
	return append([]observe.Source{g.gateway.Metrics(), peer.Metrics(g.client, nil), traceMetrics(g.tracer), routes},
		g.sources...)
}

package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/kafka"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/gateway"
	"github.com/millrace-io/millrace/internal/app/admin"
	"github.com/millrace-io/millrace/internal/backoff"
	"github.com/millrace-io/millrace/internal/clock"
	"github.com/millrace-io/millrace/internal/lifecycle"
	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/internal/tracing"
	"github.com/millrace-io/millrace/partitions"
	"github.com/millrace-io/millrace/partitions/journal"
	"github.com/millrace-io/millrace/partitions/peer"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// Gateway is a process that serves an app's callers by way of its workers. It hosts no function, has no data directory and owns
// nothing, so that there may be any number of them. StartGateway makes it; Wait returns when it has ended.
type Gateway struct {
	config  *Config
	version string
	clock   clock.Clock
	started time.Time
	logger  *slog.Logger

	log       broker.Log
	group     broker.Group
	topic     broker.TopicInfo
	layout    entities.Layout
	routes    *partitions.Routes
	client    *peer.Client
	forwarder *partitions.Forwarder
	server    *gateway.Server
	public    net.Listener
	adminPort net.Listener
	service   *admin.Service
	admin     *admin.Server
	tracer    *tracing.Tracer
	tasks     *lifecycle.Group
	sources   []observe.Source
	troubles  troubles

	catalog   atomic.Pointer[discovery.Catalog]
	ready     chan struct{}
	readyOnce sync.Once
	// poked gets a signal when it should be looked at once more whether the gateway is ready.
	poked chan struct{}
	// quiet is closed when no caller is served any more.
	quiet     chan struct{}
	closeOnce sync.Once
	closeErr  error
}

// The tasks of a gateway beside those that a worker has, too.
const (
	taskRoutes  = "routes"
	taskCatalog = "catalog"
)

// catalogPause is the pause after a worker did not say what it serves.
var catalogPause = backoff.Policy{First: 50 * time.Millisecond, Max: 2 * time.Second, Jitter: 0.3} //nolint:gochecknoglobals // a constant

// StartGateway opens everything and starts the tasks. Of the options, Config, PartitionsGiven, Version, Logger, Log and Clock count. When it
// returns an error, nothing is left open. When ctx ends, so does the gateway, in order.
func StartGateway(ctx context.Context, o Options) (*Gateway, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = clock.Wall{}
	}
	g := &Gateway{
		config: o.Config, version: o.Version, clock: o.Clock, started: o.Clock.Now(), logger: o.Logger, log: o.Log,
		routes: partitions.NewRoutes(), troubles: troubles{clock: o.Clock}, ready: make(chan struct{}), poked: make(chan struct{}, 1), quiet: make(chan struct{}),
	}
	if err := g.open(ctx, o); err != nil {
		return nil, errors.Join(err, g.close())
	}
	g.tasks = lifecycle.New(ctx, g.clock)
	g.tasks.Start(taskShutdown, g.shutdown)
	g.tasks.Start(taskRoutes, g.watchRoutes)
	g.tasks.Start(taskCatalog, g.watchCatalog)
	g.tasks.Start(taskGateway, g.serve)
	g.tasks.Start(taskHealth, func(ctx context.Context) error { return tellReady(ctx, g.server, g.poked, g.NotReady, g.logger) })
	g.tasks.Start(taskAdmin, g.admin.Serve)
	return g, nil
}

const (
	// journalPatience is how long a gateway waits for the journal: the first worker creates it, perhaps at this moment, and brokers
	// hear of it one after the other.
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

// open builds the gateway from the ground up.
func (g *Gateway) open(ctx context.Context, o Options) (err error) {
	c := g.config
	if g.public, err = listen(ctx, "listen", c.Listen); err != nil {
		return err
	}
	if g.adminPort, err = listen(ctx, "admin", c.Admin); err != nil {
		return err
	}
	g.service = admin.NewService(gatewayProcess{g})
	g.admin = admin.NewServer(g.service, g.adminPort, admin.Options{Profiles: c.DebugEndpoints, Settled: g.quiet})
	if err := g.openLog(); err != nil {
		return err
	}
	topic := c.App + ".journal"
	if g.topic, err = g.find(ctx, topic); err != nil {
		return fmt.Errorf("look for topic %s: %w; a gateway serves the workers of an app: start one first, with `millrace run`", topic, err)
	}
	g.layout = entities.LayoutOf(c.App, g.topic.Partitions)
	if o.PartitionsGiven {
		g.layout.Partitions = int32(c.Partitions) //nolint:gosec // at most 4096
	}
	if err := g.layout.Check(); err != nil {
		return fmt.Errorf("topic %s has %w; name the number that its data is of with --partitions", topic, err)
	}
	if err := journal.CheckPartitions(g.layout, g.topic, o.PartitionsGiven); err != nil {
		return err
	}
	identity := peer.Identity{Layout: g.layout, Incarnation: rand.Uint64()} //nolint:gosec // a name, not a secret
	g.client = peer.NewClient(peer.ClientOptions{Identity: identity, Clock: g.clock, MaxFrameBytes: c.frameBytes(), Hooks: peer.Hooks{
		Lost: func(name, address string, err error) {
			g.logger.Info("no connection to a worker", observe.Worker, name, observe.Address, address, observe.Error, err)
		},
	}})
	if g.tracer, err = c.newTracer("", g.version, g.logger); err != nil {
		return err
	}
	limits := partitions.Limits{MaxWaiting: c.MaxWaiting, MovePatience: c.MovePatience}
	g.forwarder = partitions.NewForwarder(g.layout, g.routes, g.client, limits, g.clock, nil, g.tracer)
	g.server = gateway.New(c.gatewayOptions(g.forwarder, g.routes, g.tracer, g.logger))
	g.server.SetReady(false)
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
		g.log = log
		g.sources = append(g.sources, kafkaMetrics(log))
	}
	group, shared := g.log.(broker.Group)
	if !shared {
		return errors.New("this log has no group of workers")
	}
	g.group = group
	g.routes.OnDoubt(group.Look)
	return nil
}

// watchRoutes keeps the table of who owns what, and a connection to every worker.
func (g *Gateway) watchRoutes(ctx context.Context) error {
	return g.group.Watch(ctx, g.config.App, g.topic.Name, func(t *broker.Table) {
		g.troubles.note(taskRoutes, nil)
		g.routes.Set(t)
		g.client.Watch(others(g.routes.Table(), ""))
		g.checkReady()
	}, func(err error) {
		g.troubles.note(taskRoutes, err)
		g.logger.Warn("the brokers do not say who owns what; the last answer counts", observe.Error, err)
	})
}

// watchCatalog learns from one worker after the other what they serve, and each time that it changes.
func (g *Gateway) watchCatalog(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		table, changed := g.routes.Look()
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
	catalog, err := discovery.NewCatalog(spec, discovery.Options{Settings: discovery.Settings{MaxKey: g.config.MaxKey}, Runtime: true}) // its worker has checked it
	if err != nil {
		return err
	}
	if err := g.server.SetCatalog(catalog); err != nil {
		return err
	}
	g.catalog.Store(catalog)
	g.troubles.note(taskCatalog, nil)
	g.checkReady()
	return nil
}

// serve takes connections until shutdown ends it.
func (g *Gateway) serve(ctx context.Context) error {
	err := g.server.Serve(g.public)
	if ctx.Err() != nil && errors.Is(err, gateway.ErrClosed) {
		return nil
	}
	return err
}

// shutdown waits for the stop and lets calls finish.
func (g *Gateway) shutdown(ctx context.Context) error {
	<-ctx.Done()
	defer close(g.quiet)
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.config.DrainTimeout)
	defer cancel()
	return cutOff(g.logger, g.server.Shutdown(bounded))
}

// NotReady returns why the gateway does not serve, nil when it does.
func (g *Gateway) NotReady() error {
	select {
	case <-g.tasks.Stopping():
		return errStopping
	default:
	}
	if err := g.routes.Err(); err != nil {
		return err
	}
	if table := g.routes.Table(); table == nil || len(table.Members) == 0 {
		return errNoWorkers
	}
	if g.catalog.Load() == nil {
		if err := g.troubles.of(taskCatalog).err; err != nil {
			return fmt.Errorf("waiting for a worker to say what it serves: %w", err)
		}
		return errors.New("waiting for a worker to say what it serves")
	}
	return nil
}

func (g *Gateway) checkReady() {
	poke(g.poked)
	if table := g.routes.Table(); table != nil && len(table.Members) > 0 && g.catalog.Load() != nil {
		g.readyOnce.Do(func() { close(g.ready) })
	}
}

// Ready is closed when the gateway serves.
func (g *Gateway) Ready() <-chan struct{} { return g.ready }

// Waiting is never closed: a gateway has no function of its own to wait for.
func (g *Gateway) Waiting() <-chan struct{} { return nil }

// Done is closed when the gateway has begun to end.
func (g *Gateway) Done() <-chan struct{} { return g.tasks.Stopping() }

// Stop asks the gateway to end in order. It does not wait.
func (g *Gateway) Stop() { g.tasks.Stop(nil) }

// Abandon does nothing: a gateway has started no other process.
func (g *Gateway) Abandon() {}

// Wait returns when everything has ended and is closed. It may be called more than once.
func (g *Gateway) Wait() error {
	err := g.tasks.Wait()
	return errors.Join(err, g.close())
}

func (g *Gateway) close() error {
	g.closeOnce.Do(func() {
		if g.client != nil {
			_ = g.client.Close() // never fails
		}
		g.tracer.CloseInTime()
		if g.log != nil {
			g.closeErr = g.log.Close()
		}
		if g.adminPort != nil {
			_ = g.adminPort.Close() // closed already when it has served
		}
		if g.public != nil {
			_ = g.public.Close()
		}
	})
	return g.closeErr
}

// Status is the whole status page.
func (g *Gateway) Status(ctx context.Context) *adminv1.StatusResponse { return g.service.Page(ctx) }

// AdminAddress is where status and metrics are, as host:port.
func (g *Gateway) AdminAddress() string { return g.adminPort.Addr().String() }

// Try returns lines that a newcomer can paste. program is how this program is called.
func (g *Gateway) Try(program string) []string {
	ask := asking(program, g.AdminAddress())
	lines := []string{ask("cluster status")}
	if catalog := g.catalog.Load(); catalog != nil {
		if first := tryCall(catalog, g.public.Addr().String()); first != nil {
			lines = append([]string{first.line}, lines...)
		}
	}
	return lines
}

func (g *Gateway) collected() []observe.Source {
	routes := measured(routeMetrics(), func(take func(*adminv1.ClusterStatus, ...string)) { take(g.service.ClusterStatus()) })
	return append([]observe.Source{g.server.Metrics(), peer.Metrics(g.client, nil), traceMetrics(g.tracer), routes}, g.sources...)
}

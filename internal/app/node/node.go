package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/host"
	"github.com/millrace-io/millrace/gateway"
	"github.com/millrace-io/millrace/internal/clock"
	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/internal/tracing"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions"
	"github.com/millrace-io/millrace/partitions/core"
	"github.com/millrace-io/millrace/partitions/routing"
)

// Local is a function in this process, and Progress how far a catch-up is, for packages above,
// which import no lower one.
type (
	Local    = host.Local
	Progress = materializer.Progress
)

// Options are what a node is started with. Only Config is required.
type Options struct {
	Config *Config
	// PartitionsGiven says that the number of partitions was asked for: then it must be that of the
	// data, and the topic may have more.
	PartitionsGiven bool
	// Local is a function in this process. Nil: the one at Config.Function.
	Local Local
	// Command is a function to start, and to start again when it ends or its files change; it
	// serves at Config.Function.
	Command []string
	// Watch are globs below Dir of the files whose changes restart Command. None: the sources of all
	// languages.
	Watch []string
	// Dev: definitions whose files have changed are applied without a new version, and the directory
	// of definitions need not be there.
	Dev bool
	// Dir is where Command runs and where its files are; empty: the working directory.
	Dir     string
	Version string
	// Logger gets what an operator should see; nil: it is discarded.
	Logger *slog.Logger
	// OnProgress is called with the progress of a catch-up. It may be nil.
	OnProgress func(Progress)
	// Log is a log that is open already; the node closes it. Nil: the one that Config names.
	Log broker.Log
	// Clock is the time of entities and of the node's own loops; nil: the machine's. What has to do
	// with the network goes by the machine's in any case.
	Clock clock.Clock
}

// Node is a running worker. Start makes it; Wait returns when it has ended.
type Node struct {
	*process
	identity identity

	store materializer.Store
	views *views
	// readSide folds what definitions say, and answers queries.
	readSide *readSide
	host     *host.Host
	manager  *partitions.Manager
	router   *routing.Router
	// cluster is what there is to do with other workers; nil on a log of this process alone.
	cluster *cluster
	// loops run below the tasks and may fail.
	loops []loop
	// written counts writes to the store; nil for a store that need not be flushed.
	written func() uint64
	// spoiled has room for the first error that ends the use of the store.
	spoiled chan error

	readiness readiness
	rebuilds  rebuilds
	command   command
	notices   notices
	// settled is closed when the partitions are released, after no caller is served any more.
	settled chan struct{}
}

// Start opens everything and starts the tasks. When it returns an error, nothing is left open. When
// ctx ends, so does the node, in order.
func Start(ctx context.Context, o Options) (*Node, error) {
	n := newNode(o)
	if err := n.open(ctx); err != nil {
		return nil, errors.Join(err, n.close())
	}
	n.run(ctx)
	return n, nil
}

func newNode(o Options) *Node {
	n := &Node{
		process: newProcess(o), readiness: newReadiness(), spoiled: make(chan error, 1),
		settled: make(chan struct{}),
	}
	n.views = &views{node: n}
	n.readSide = &readSide{node: n, turned: make(chan struct{}, 1)}
	n.notices.logger = n.logger
	n.onClose(func() error {
		n.notices.flush()
		return nil
	})
	return n
}

// open opens everything, the log first.
func (n *Node) open(ctx context.Context) (err error) {
	if err := checkPatterns(n.options.Watch); err != nil {
		return err
	}
	if err := n.checkDefinitions(); err != nil {
		return err
	}
	if err := checkCommand(ctx, n.options.Command, n.config.Function); err != nil {
		return err
	}
	if n.identity, err = openDirectory(n.config, n.options.PartitionsGiven); err != nil {
		return err
	}
	if err := n.openPorts(ctx, workerProcess{n}, n.settled); err != nil {
		return err
	}
	if err := n.openLog(); err != nil {
		return err
	}
	if n.topic, err = n.openJournal(ctx); err != nil {
		return err
	}
	if n.store, err = n.openStore(); err != nil {
		return err
	}
	n.onClose(n.store.Close)
	if err := n.determineLayout(ctx); err != nil {
		return err
	}
	n.host = host.New(n.config.hostSettings)
	if err := n.openReadSide(); err != nil {
		return err
	}
	if err := n.openCluster(ctx); err != nil {
		return err
	}
	if err := n.openTracer(n.identity.Worker); err != nil {
		return err
	}
	n.manager = partitions.NewManager(partitions.Options{
		App: n.config.App, Worker: n.identity.Worker, Topic: n.topic, Layout: n.layout,
		MorePartitions: n.options.PartitionsGiven,
		Membership:     n.membership(), Group: n.cluster.groupOrNil(), Table: n.routes,
		Log: n.log, Store: n.store, Functions: n.host, Limits: n.config.Limits, Hooks: n.partitionHooks(), Tracer: n.tracer,
		Clock: n.clock,
		Types: n.entityTypes, Admit: n.admission().admit, Peers: n.cluster.peersOrNil(),
		OnEffectError: func(t entities.Target, err error) {
			n.logger.Warn("side effect failed", observe.Command, t.Service+"/"+t.Method, observe.Error, err)
		},
	})
	n.router = n.manager.Router()
	n.openGateway(n.router, n.unsure)
	n.onClose(n.closeRemote)
	return nil
}

// checkCommand looks for the program that is to be supervised, before anything is opened for it.
// Its address must be free: otherwise the node would talk to another program without noticing, for
// example to one that was left from an earlier run.
func checkCommand(ctx context.Context, command []string, address string) error {
	if len(command) == 0 {
		return nil
	}
	if _, err := exec.LookPath(command[0]); err != nil {
		return fmt.Errorf("start the user function: %w: check the command", err)
	}
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil //nolint:nilerr // as it should be
	}
	_ = conn.Close()
	return fmt.Errorf("start the user function: another program listens on its address, %s: stop that one, or choose another address with --function", address)
}

// listen opens a port, or says which setting to change.
func listen(ctx context.Context, setting, address string) (net.Listener, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("open port %s: %w; choose another with --%s", address, err, setting)
	}
	return l, nil
}

func (n *Node) membership() broker.Membership {
	m := broker.Membership{
		Group: n.config.App, Worker: n.identity.Worker, Address: n.public.Addr().String(),
		Topic: n.journal(), Partitions: n.layout.Partitions,
	}
	if n.cluster != nil {
		m.Address, m.Public, m.Incarnation, m.Standbys = n.cluster.address, n.cluster.public, n.cluster.incarnation,
			n.config.Standbys
		m.Images = func() map[int32]int64 { return n.manager.Images() }
		m.Serves = n.serves
	}
	return m
}

func (n *Node) partitionHooks() partitions.Hooks {
	return partitions.Hooks{
		StateChanged: n.partitionChanged,
		RoleChanged:  func() { poke(n.readSide.turned) },
		Alarm:        n.alarm,
		WatchFailed:  func(err error) { n.troubles.note(taskPartitions, err) },
		Progress: func(p Progress) {
			n.rebuilds.report(p)
			if n.options.OnProgress != nil {
				n.options.OnProgress(p)
			}
		},
	}
}

func (n *Node) partitionChanged(partition int32, from, to core.State, why string) {
	if why == "" {
		n.logger.Debug("partition changed state", observe.Partition, partition, "from", from.String(), "to", to.String())
	} else {
		n.partitionWarning(partition, from, to, why)
	}
	n.checkReady()
}

// partitionWarning logs why a partition took a step that is not on its way up.
func (n *Node) partitionWarning(partition int32, from, to core.State, why string) {
	n.notices.add(partition, event{from: from.String(), to: to.String(), why: why})
}

// alarm logs what an operator should look at.
func (n *Node) alarm(partition int32, what string) {
	n.notices.add(partition, event{why: what})
}

func (c *Config) gatewayOptions(dispatcher gateway.Dispatcher, unsure func() string, tracer *tracing.Tracer,
	logger *slog.Logger,
) gateway.Options {
	return gateway.Options{
		Settings: c.gatewaySettings, Dispatcher: dispatcher, App: c.App, Log: logger, Tracer: tracer,
		FunctionWait: c.FunctionWait, Unsure: unsure,
	}
}

// unsure says why a method that the node does not serve may be served elsewhere, or in a moment;
// empty: it is not.
func (n *Node) unsure() string {
	if why := n.process.unsure(); why != "" || n.readSide.isDefined() {
		return why
	}
	return "this worker does not know yet which queries are defined: if it is one of them, try again"
}

// unsure is that of any process: the workers of the app may serve different versions.
func (p *process) unsure() string {
	if p.routes.Current().Versions() < 2 {
		return ""
	}
	return "the workers of the app serve different versions at the moment: if the method is new, try again, or call a worker that has it (`millrace cluster status`)"
}

// Waiting is closed when everything but a remote function is there.
func (n *Node) Waiting() <-chan struct{} { return n.readiness.waiting }

// AwaitQuiet returns when the side effects of every call that was answered before have been carried
// out, and due timers have fired; what did not work and is tried again later is not waited for.
func (n *Node) AwaitQuiet(ctx context.Context) error {
	n.router.Wait()
	return n.manager.AwaitQuiet(ctx)
}

// Abandon ends the function that the node started, at once and without waiting: the rest ends with
// the process.
func (n *Node) Abandon() { n.command.kill() }

// closeRemote ends the connection to a remote function, if there is one.
func (n *Node) closeRemote() error {
	if remote := n.readiness.remote; remote != nil {
		return remote.Close()
	}
	return nil
}

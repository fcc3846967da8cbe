package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/entities/host"
	"github.com/millrace-io/millrace/gateway"
	"github.com/millrace-io/millrace/internal/clock"
	"github.com/millrace-io/millrace/internal/lifecycle"
	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions"
)

// Options are what a node is started with.
type Options struct {
	Config *Config
	// PartitionsGiven says that the number of partitions was asked for: then it must be that of the journal.
	PartitionsGiven bool
	// Local is a function in this process. Nil: the one at Config.Function.
	Local host.Local
	// Command is a function to start, and to start again when it ends or its files change; it serves at Config.Function.
	Command []string
	Version string
	Logger  *slog.Logger
	// OnProgress is told how far a catch-up is. It may be nil.
	OnProgress func(materializer.Progress)
}

// Node is a running process. Start makes it; Wait returns when it has ended.
type Node struct {
	options  Options
	config   *Config
	identity identity
	started  time.Time
	logger   *slog.Logger

	log     broker.Log
	topic   broker.TopicInfo
	store   materializer.Store
	rebuilt error
	host    *host.Host
	manager *partitions.Manager
	router  *partitions.Router
	gateway *gateway.Server
	public  net.Listener
	admin   *adminServer
	group   *lifecycle.Group
	sources []observe.Source

	ready       chan struct{}
	readyOnce   sync.Once
	waitingOnce sync.Once
	readiness   readiness
}

// Start opens everything and starts the tasks. When it returns an error, nothing is left open.
func Start(ctx context.Context, o Options) (*Node, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	n := &Node{options: o, config: o.Config, logger: o.Logger, started: time.Now(), ready: make(chan struct{}),
		readiness: readiness{quiet: make(chan struct{}), restarted: make(chan struct{}, 1), waiting: make(chan struct{})},
	}
	if err := n.open(ctx); err != nil {
		return nil, errors.Join(err, n.close())
	}
	n.group = lifecycle.New(ctx, clock.Wall{})
	n.run()
	return n, nil
}

// open builds the house from the ground up.
func (n *Node) open(ctx context.Context) (err error) {
	if n.identity, err = openDirectory(n.config, n.options.PartitionsGiven); err != nil {
		return err
	}
	if n.public, err = listen(ctx, "listen", n.config.Listen); err != nil {
		return err
	}
	if n.admin, err = n.newAdmin(ctx); err != nil {
		return err
	}
	if n.log, err = n.openLog(ctx); err != nil {
		return err
	}
	if n.topic, err = n.openJournal(ctx); err != nil {
		return err
	}
	if n.store, err = n.openStore(); err != nil {
		return err
	}
	n.host = host.New(time.Duration(n.config.FunctionWait))
	n.manager = partitions.NewManager(partitions.Options{
		App: n.config.App, Worker: n.identity.Worker, Topic: n.topic, Membership: n.membership(),
		Log: n.log, Store: n.store, Functions: n.host, Limits: n.limits(), Hooks: n.partitionHooks(),
	})
	n.router = partitions.NewRouter(n.manager, func(t entities.Target, err error) {
		n.logger.Warn("side effect was not carried out", observe.Command, t.Service+"/"+t.Method, observe.Error, err)
	})
	n.gateway = gateway.New(n.gatewayOptions())
	return nil
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

// journal is the topic of the app's outcomes in its first generation.
func (n *Node) journal() string { return n.config.App + ".journal" }

func (n *Node) membership() broker.Membership {
	return broker.Membership{
		Group: n.config.App, Worker: n.identity.Worker, Address: n.public.Addr().String(), Topic: n.journal(),
	}
}

// openJournal finds the app's journal, or makes it, and checks its settings.
func (n *Node) openJournal(ctx context.Context) (broker.TopicInfo, error) {
	spec := broker.TopicSpec{
		Name: n.journal(), Partitions: int32(n.identity.Partitions), //nolint:gosec // at most 4096
		MaxRecordBytes: int(n.config.MaxCommit) + commitOverhead,
	}
	info, err := n.log.Describe(ctx, spec.Name)
	if errors.Is(err, broker.ErrUnknownTopic) {
		if !n.config.CreateTopics {
			return info, fmt.Errorf("topic %s is missing; create it with\n\n%s", spec.Name, n.log.CreateCommand(spec))
		}
		if err := n.log.Create(ctx, spec); err != nil {
			return info, fmt.Errorf("create topic %s: %w", spec.Name, err)
		}
		info, err = n.log.Describe(ctx, spec.Name)
	}
	if err != nil {
		return info, fmt.Errorf("describe topic %s: %w", spec.Name, err)
	}
	if n.options.PartitionsGiven && info.Partitions != spec.Partitions {
		return info, fmt.Errorf("topic %s has %d partitions, not %d: leave --partitions out", spec.Name, info.Partitions, spec.Partitions)
	}
	if info.Partitions&(info.Partitions-1) != 0 {
		return info, fmt.Errorf("topic %s has %d partitions: a journal needs a power of two", spec.Name, info.Partitions)
	}
	return info, partitions.CheckContract(info)
}

// commitOverhead is room for the envelopes of a commit at its limit.
const commitOverhead = 124 << 10

func (n *Node) limits() partitions.Limits {
	c := n.config
	return partitions.Limits{
		WaitingPerEntity: c.WaitingEntity, Waiting: c.Waiting, CommitBytes: int(c.MaxCommit), CommitRecords: c.MaxRecords,
		PassivateAfter: time.Duration(c.PassivateAfter), ActiveBytes: max(int(c.ActiveMemory)/int(n.topic.Partitions), 1),
		DedupWindow: time.Duration(c.DedupWindow),
	}
}

func (n *Node) partitionHooks() partitions.Hooks {
	return partitions.Hooks{
		StateChanged: n.partitionChanged,
		Alarm: func(partition int32, what string) {
			n.logger.Warn("partition alarm", observe.Partition, partition, observe.Error, what)
		},
		Progress: n.options.OnProgress,
	}
}

func (n *Node) partitionChanged(partition int32, from, to partitions.State, why string) {
	level := slog.LevelDebug
	if why != "" {
		level = slog.LevelWarn
	}
	n.logger.Log(context.Background(), level, "partition changed state", observe.Partition, partition, "from", from, "to", to, observe.Cause, why)
	n.checkReady()
}

func (n *Node) gatewayOptions() gateway.Options {
	c := n.config
	return gateway.Options{
		Dispatcher: n.router, Log: n.logger, MaxRequestBytes: int(c.MaxRequest), MaxReplyBytes: int(c.MaxRequest),
		UnaryTimeout: time.Duration(c.CallTimeout), DiscoveryWait: time.Duration(c.FunctionWait), NoReflection: !c.Reflection,
	}
}

// run starts the tasks, from the ground up; Stop ends them from the top.
func (n *Node) run() {
	n.group.Start("shutdown", n.shutdown)
	n.group.Start("partitions", n.runPartitions)
	n.group.Start("function", n.runFunction)
	if len(n.options.Command) > 0 {
		n.group.Start("supervisor", n.supervise)
	}
	n.group.Start("gateway", n.serveGateway)
	n.group.Start("admin", n.admin.serve)
}

// serveGateway takes connections until shutdown ends it.
func (n *Node) serveGateway(ctx context.Context) error {
	err := n.gateway.Serve(n.public)
	if ctx.Err() != nil && errors.Is(err, gateway.ErrClosed) {
		return nil
	}
	return err
}

// runPartitions owns partitions until the gateway has let its last call go.
func (n *Node) runPartitions(ctx context.Context) error {
	own, release := context.WithCancelCause(context.WithoutCancel(ctx))
	defer release(nil)
	ended := make(chan error, 1)
	go func() { ended <- n.manager.Run(own) }() // ends with own, or by itself; received below
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		<-n.readiness.quiet
		release(context.Cause(ctx))
		return <-ended
	}
}

// shutdown waits for the stop and then ends the traffic: first the callers, then the effects that they began.
func (n *Node) shutdown(ctx context.Context) error {
	<-ctx.Done()
	defer close(n.readiness.quiet)
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Duration(n.config.DrainTimeout))
	defer cancel()
	err := n.gateway.Shutdown(bounded)
	n.router.Drain()
	if errors.Is(err, context.DeadlineExceeded) {
		n.logger.Warn("calls were cut off", observe.Cause, "they did not end within drain-timeout")
		return nil
	}
	return err
}

// Ready is closed when the node serves: the function is known and every partition is owned.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Stop asks the node to end in order. It does not wait.
func (n *Node) Stop() { n.group.Stop(nil) }

// Done is closed when the node has begun to end.
func (n *Node) Done() <-chan struct{} { return n.group.Stopping() }

// Wait returns when everything has ended and is closed.
func (n *Node) Wait() error {
	err := n.group.Wait()
	return errors.Join(err, n.close())
}

// close closes what open opened, from the top.
func (n *Node) close() error {
	var errs []error
	if n.host != nil {
		if r, ok := n.host.Replace(nil).(*host.Remote); ok && r != nil {
			errs = append(errs, r.Close())
		}
	}
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	if n.log != nil {
		errs = append(errs, n.log.Close())
	}
	if n.admin != nil {
		_ = n.admin.listener.Close()
	}
	if n.public != nil {
		_ = n.public.Close()
	}
	return errors.Join(errs...)
}

// storeDirectory and logDirectory lie in the data directory.
func (n *Node) storeDirectory() string { return filepath.Join(n.config.Data, "store") }
func (n *Node) logDirectory() string   { return filepath.Join(n.config.Data, "log") }

// runFunction learns what the function serves, and again each time it comes back as another one.
func (n *Node) runFunction(ctx context.Context) error {
	hosting := host.Options{
		ReadyTimeout: time.Duration(n.config.FunctionWait), HandleTimeout: time.Duration(n.config.FunctionTime), MaxEvents: n.config.MaxRecords,
		Hooks: host.Hooks{
			OnWarning: func(message string) { n.logger.Warn("user function", observe.Error, message) },
			OnSessionFault: func(key entities.Key, err *entities.Error) {
				n.logger.Warn("conversation with the user function broke", observe.Entity, key.String(), observe.Error, err.Message, observe.Cause, err.Cause)
			},
		},
	}
	judge := discovery.Options{SkipVersionCheck: !n.config.ProtocolCheck, MaxKeyBytes: int(n.config.MaxKey)}
	if n.options.Local != nil {
		f, err := host.NewInProcess(n.options.Local, hosting, judge)
		if err != nil {
			return err
		}
		n.attach(f)
		return nil
	}
	return n.meetRemote(ctx, host.RemoteOptions{
		Options: hosting, Info: discovery.NewProxyInfo("millrace", n.options.Version), Discovery: judge,
		Policy: discovery.Policy{OnRetry: func(attempt int, err error, _ time.Duration) {
			n.readiness.functionError(err)
			n.logger.Debug("user function is not reachable yet", observe.Address, n.config.Function, observe.Attempt, attempt, observe.Error, err)
		}},
	})
}

// attach lets traffic reach a function.
func (n *Node) attach(f host.Function) {
	n.host.Replace(f)
	n.gateway.SetCatalog(f.Catalog())
	n.readiness.functionError(nil)
	n.checkReady()
}

// Local is a function in this process, and Progress how far a catch-up is, for those above who know no lower floor.
type (
	Local    = host.Local
	Progress = materializer.Progress
)

// Waiting is closed when everything but a remote function is there.
func (n *Node) Waiting() <-chan struct{} { return n.readiness.waiting }

// Try returns lines that a newcomer can paste: a call, a look at the entity, a look at the log. program is how this
// program is called.
func (n *Node) Try(program string) []string {
	catalog := n.host.Catalog()
	if catalog == nil {
		return nil
	}
	for _, s := range catalog.Services() {
		if line, entity := tryService(s, n.public.Addr().String()); line != "" {
			return []string{line, program + " get " + entity, program + " log tail --from-start"}
		}
	}
	return nil
}

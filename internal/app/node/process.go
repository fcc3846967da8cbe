package node

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/gateway"
	"github.com/millrace-io/millrace/internal/app/admin"
	"github.com/millrace-io/millrace/internal/clock"
	"github.com/millrace-io/millrace/internal/lifecycle"
	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/internal/tracing"
	"github.com/millrace-io/millrace/partitions/routing"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// process is what a worker and a gateway have in common: two ports and what serves them, the
// routing table, tasks, and the order in which all of that ends.
type process struct {
	options Options
	config  *Config
	clock   clock.Clock
	started time.Time
	logger  *slog.Logger

	// public and adminPort are open from the beginning; gateway and admin serve them.
	public, adminPort net.Listener
	gateway           *gateway.Server
	service           *admin.Service
	admin             *admin.Server
	log               broker.Log
	topic             broker.TopicInfo
	layout            entities.Layout
	routes            *routing.Table
	tracer            *tracing.Tracer
	group             *lifecycle.Group
	// sources are what is measured where the settings decide what there is.
	sources  []observe.Source
	troubles troubles

	// ready is closed when the process serves for the first time; poked gets a signal when readiness
	// should be checked again.
	ready     chan struct{}
	readyOnce sync.Once
	poked     chan struct{}
	// quiet is closed when no caller is served any more.
	quiet chan struct{}

	// closers close what was opened, the last one first.
	closers   []func() error
	closeOnce sync.Once
	closeErr  error
}

func newProcess(o Options) *process {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = clock.Wall{}
	}
	p := &process{
		options: o, config: o.Config, clock: o.Clock, logger: o.Logger, started: o.Clock.Now(),
		routes:   routing.NewTable(),
		troubles: troubles{clock: o.Clock}, ready: make(chan struct{}), poked: make(chan struct{}, 1),
		quiet: make(chan struct{}),
	}
	if o.Log != nil {
		p.keepLog(o.Log)
	}
	return p
}

// keepLog takes a log that is open, and closes it with the process.
func (p *process) keepLog(log broker.Log) {
	p.log = log
	p.onClose(log.Close)
}

// onClose has something closed when all tasks have ended, before what was opened earlier.
func (p *process) onClose(f func() error) { p.closers = append(p.closers, f) }

// openPorts opens both ports. The admin port shows a process, and serves until settled is closed.
func (p *process) openPorts(ctx context.Context, of admin.Process, settled <-chan struct{}) (err error) {
	if p.public, err = p.listen(ctx, "listen", p.config.Listen); err != nil {
		return err
	}
	if p.adminPort, err = p.listen(ctx, "admin", p.config.Admin); err != nil {
		return err
	}
	p.service = admin.NewService(of)
	p.admin = admin.NewServer(p.service, p.adminPort, admin.Options{Profiles: p.config.DebugEndpoints, Settled: settled})
	return nil
}

// listen opens a port that is closed with the process, unless what serves it has closed it.
func (p *process) listen(ctx context.Context, setting, address string) (net.Listener, error) {
	l, err := listen(ctx, setting, address)
	if err == nil {
		p.onClose(func() error {
			_ = l.Close() // closed already when it has served
			return nil
		})
	}
	return l, err
}

// openTracer opens what exports spans. worker is empty for a gateway.
func (p *process) openTracer(worker string) (err error) {
	if p.tracer, err = p.config.newTracer(worker, p.options.Version, p.logger); err != nil {
		return err
	}
	p.onClose(func() error {
		p.tracer.CloseInTime()
		return nil
	})
	return nil
}

// openGateway makes the server of the public port. It is ready when tellReady says so. unsure is
// about methods that it does not know.
func (p *process) openGateway(dispatcher gateway.Dispatcher, unsure func() string) {
	p.gateway = gateway.New(p.config.gatewayOptions(dispatcher, unsure, p.tracer, p.logger))
	p.gateway.SetReady(false)
}

// serve starts the tasks that serve the ports, which are the last ones of a process.
func (p *process) serve(notReady func() error) {
	p.group.Start(taskGateway, p.serveCallers)
	p.group.Start(taskHealth, func(ctx context.Context) error {
		return tellReady(ctx, p.gateway, p.poked, notReady, p.logger)
	})
	p.group.Start(taskAdmin, p.admin.Serve)
}

// serveCallers takes connections until shutdown ends it.
func (p *process) serveCallers(ctx context.Context) error {
	err := p.gateway.Serve(p.public)
	if ctx.Err() != nil && errors.Is(err, gateway.ErrClosed) {
		return nil
	}
	return err
}

// shutdown waits for the stop and lets calls finish, for drain-timeout. Then rest ends what they
// began, with what is left of that time.
func (p *process) shutdown(ctx context.Context, rest func(bounded context.Context)) error {
	<-ctx.Done()
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.config.DrainTimeout)
	defer cancel()
	err := p.gateway.Shutdown(bounded)
	rest(bounded)
	return cutOff(p.logger, err)
}

// cutOff reports calls that did not end in time; any other error is one.
func cutOff(logger *slog.Logger, err error) error {
	switch {
	case errors.Is(err, gateway.ErrHanging):
		logger.Warn("in-flight calls were aborted", observe.Cause, err)
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		logger.Warn("in-flight calls were aborted", observe.Cause, "they did not end within drain-timeout")
		return nil
	default:
		return err
	}
}

// markReady closes Ready, the first time.
func (p *process) markReady() { p.readyOnce.Do(func() { close(p.ready) }) }

// Status is the whole status page.
func (p *process) Status(ctx context.Context) *adminv1.StatusResponse { return p.service.Page(ctx) }

// Ready is closed when the process serves for the first time: of a worker when the function is
// known and every partition is owned, of a gateway when a worker has said what it serves.
func (p *process) Ready() <-chan struct{} { return p.ready }

// Done is closed when the process has begun to end.
func (p *process) Done() <-chan struct{} { return p.group.Stopping() }

func (p *process) stopping() bool {
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}

// PublicAddress is where callers connect, as host:port.
func (p *process) PublicAddress() string { return p.public.Addr().String() }

// AdminAddress is where status and metrics are, as host:port.
func (p *process) AdminAddress() string { return p.adminPort.Addr().String() }

// Stop asks the process to end in order. It does not wait.
func (p *process) Stop() { p.group.Stop(nil) }

// Wait returns when everything has ended and is closed. It may be called more than once.
func (p *process) Wait() error {
	err := p.group.Wait()
	return errors.Join(err, p.close())
}

// close closes what was opened, the last one first.
func (p *process) close() error {
	p.closeOnce.Do(func() {
		var errs []error
		for _, f := range slices.Backward(p.closers) {
			errs = append(errs, f())
		}
		p.closeErr = errors.Join(errs...)
	})
	return p.closeErr
}

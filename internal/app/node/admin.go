package node

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/internal/app/admin"
	"github.com/millrace-io/millrace/internal/lifecycle"
	"github.com/millrace-io/millrace/internal/observe"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// This file is what a worker and a gateway show on their admin port.

// workerProcess is a worker as its admin service sees it.
type workerProcess struct{ *Node }

// Self returns what only the worker knows of itself.
func (p workerProcess) Self() *adminv1.StatusResponse {
	n := p.Node
	s := &adminv1.StatusResponse{
		Version: n.options.Version, Started: timestamppb.New(n.started), Log: n.Engine(), Durability: n.Durability(),
		PublicAddress: n.PublicAddress(), AdminAddress: n.AdminAddress(), Tasks: n.taskStatus(),
	}
	if !n.config.Ephemeral {
		s.DataDirectory = n.config.Data
	}
	return s
}

// Metrics are those of all layers.
func (p workerProcess) Metrics() []observe.Source { return p.collected() }

// Catalog returns what the function and the runtime serve.
func (p workerProcess) Catalog() (catalog *discovery.Catalog, hosting string) {
	if p.options.Local != nil {
		return p.host.Catalog(), "in process"
	}
	return p.host.Catalog(), "remote at " + p.config.Function
}

// App returns the app of the worker.
func (p workerProcess) App() admin.App {
	app := admin.App{Name: p.config.App, Layout: p.layout, Routes: p.routes}
	if c := p.cluster; c != nil {
		app.Client, app.Carried, app.PeerAddress, app.Evicted = c.client, p.router.Counts(), c.address, c.evicted.Load()
	}
	return app
}

// Worker returns the worker's log, store and partitions.
func (p workerProcess) Worker() *admin.Worker {
	return &admin.Worker{
		Name: p.identity.Worker, Log: p.log, Topic: p.topic, Store: p.store, Partitions: p.manager,
		Drain: p.Drain, Clock: p.clock,
	}
}

// ReadSide returns what is defined, and how the rows on this worker stand.
func (p workerProcess) ReadSide() *admin.ReadSide {
	return &admin.ReadSide{
		Definitions: p.readSide.definitions, Projections: p.readSide.engine.Status, Parked: p.readSide.engine,
		Partitions: p.layout.Partitions,
	}
}

// gatewayProcess is a gateway as its admin service sees it.
type gatewayProcess struct{ *Gateway }

// Self returns what only the gateway knows of itself.
func (p gatewayProcess) Self() *adminv1.StatusResponse {
	g := p.Gateway
	return &adminv1.StatusResponse{
		Version: g.options.Version, Started: timestamppb.New(g.started), Log: engine(g.config),
		Durability:    g.topic.Durability,
		PublicAddress: g.PublicAddress(), AdminAddress: g.AdminAddress(), Tasks: g.tasks(),
		PartitionsOfTopic: g.topic.Partitions,
	}
}

// Metrics are those of the gateway.
func (p gatewayProcess) Metrics() []observe.Source { return p.collected() }

// Catalog returns what the workers serve.
func (p gatewayProcess) Catalog() (catalog *discovery.Catalog, hosting string) {
	return p.catalog.Load(), "by the workers"
}

// App returns the app of the gateway.
func (p gatewayProcess) App() admin.App {
	return admin.App{
		Name: p.config.App, Layout: p.layout, Routes: p.routes, Client: p.client, Carried: p.router.Counts(),
	}
}

// Worker returns nil.
func (p gatewayProcess) Worker() *admin.Worker { return nil }

// ReadSide returns nil: workers know what is defined.
func (p gatewayProcess) ReadSide() *admin.ReadSide { return nil }

// tasks lists the tasks of a process, each with what is wrong with it.
func (p *process) tasks() []*adminv1.TaskStatus {
	running := p.group.Status()
	all := make([]*adminv1.TaskStatus, 0, len(running))
	for _, task := range running {
		t := &adminv1.TaskStatus{Name: task.Name, State: string(task.State)}
		if task.Err != nil {
			setError(t, task.Since, task.Err)
		} else {
			trouble := p.troubles.of(task.Name)
			setError(t, trouble.at, trouble.err)
		}
		all = append(all, t)
	}
	return all
}

// taskStatus lists the node's tasks, and what works below them.
func (n *Node) taskStatus() []*adminv1.TaskStatus {
	all := n.tasks()
	for _, l := range n.shownLoops() {
		t := &adminv1.TaskStatus{Name: l.name, State: string(lifecycle.Running)}
		at, err := l.last()
		setError(t, at, err)
		if err := l.failure(); err != nil {
			t.State, t.LastError = "retrying", err.Error()
		}
		all = append(all, t)
	}
	return all
}

func setError(t *adminv1.TaskStatus, at time.Time, err error) {
	if err != nil {
		t.LastError, t.LastErrorTime = err.Error(), timestamppb.New(at)
	}
}

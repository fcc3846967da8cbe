package node

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/partitions"
	"github.com/millrace-io/millrace/partitions/peer"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// This file is what a process tells about its whole app: worker and gateway alike.

const (
	// askTimeout bounds what one worker may take to show its status page to another.
	askTimeout = 3 * time.Second
	// askAtOnce is how many are asked at a time.
	askAtOnce = 16
)

// clusterStatus is what this worker has to do with others, nil where there are none.
func (n *Node) clusterStatus() *adminv1.ClusterStatus {
	if n.cluster == nil {
		return nil
	}
	s := routing(n.routes.Table(), n.router.Counts(), n.cluster.client)
	s.Drained = n.isDrained()
	s.PeerAddress, s.Draining, s.EvictedWorkers = n.cluster.address, n.manager.Draining(), n.cluster.evicted.Load()
	return s
}

// routing says how commands reach their owners.
func routing(t *broker.Table, c partitions.CarrierCounts, client *peer.Client) *adminv1.ClusterStatus {
	s := &adminv1.ClusterStatus{ForwardedCommands: c.Forwarded, RetriedCommands: c.Retried}
	if t != nil {
		s.Generation, s.Members, s.Versions = t.Generation, int32(len(t.Members)), int32(t.Versions()) //nolint:gosec // a number of workers
	}
	for _, p := range client.Peers() {
		status := &adminv1.PeerStatus{
			Name: p.Name, Address: p.Address, State: string(p.State), Since: timestamppb.New(p.Since), InFlight: int64(p.InFlight),
		}
		if p.LastError != nil {
			status.LastError, status.LastErrorTime = p.LastError.Error(), timestamppb.New(p.LastErrorTime)
		}
		s.Peers = append(s.Peers, status)
	}
	return s
}

// overview collects the status pages of all workers. self is the name of this process among them, and own its page.
func overview(ctx context.Context, app string, t *broker.Table, client *peer.Client, self string, own *adminv1.StatusResponse) *adminv1.ClusterResponse {
	res := &adminv1.ClusterResponse{App: app}
	if t == nil {
		return res
	}
	res.Generation = t.Generation
	res.Members = make([]*adminv1.Member, len(t.Members))
	var asked sync.WaitGroup
	slots := make(chan struct{}, askAtOnce)
	for i, m := range t.Members {
		member := &adminv1.Member{Name: m.Name, Address: m.Address, PublicAddress: m.Public, Serves: discovery.OffersDigest(m.Serves)}
		res.Members[i] = member
		if m.Name == self {
			member.Status = own
			continue
		}
		asked.Go(func() { // bounded by askTimeout, waited for below
			slots <- struct{}{}
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			page, err := client.Status(ctx, m.Address)
			if err != nil {
				member.Error = err.Error()
				return
			}
			member.Status = page
		})
	}
	asked.Wait()
	res.Versions, res.PartlyServed = int32(t.Versions()), partlyServed(res.GetMembers()) //nolint:gosec // a number of workers
	for id := range t.Owners {
		p := &adminv1.Placement{Partition: int32(id)}
		if owner, owned := t.Owner(p.GetPartition()); owned {
			p.Owner = owner.Name
		}
		if id < len(t.Standbys) {
			for _, i := range t.Standbys[id] {
				p.Standbys = append(p.Standbys, t.Members[i].Name)
			}
		}
		res.Partitions = append(res.Partitions, p)
	}
	return res
}

// partlyServed lists what some workers serve and others do not, of those whose pages are known.
func partlyServed(members []*adminv1.Member) []*adminv1.PartlyServed {
	type named struct{ service, method string }
	have := map[named]map[string]bool{}
	note := func(what named, worker string) {
		if have[what] == nil {
			have[what] = map[string]bool{}
		}
		have[what][worker] = true
	}
	var asked []string
	for _, m := range members {
		services := m.GetStatus().GetServices()
		if len(services) == 0 {
			continue
		}
		asked = append(asked, m.GetName())
		for _, s := range services {
			note(named{s.GetName(), ""}, m.GetName())
			for _, method := range s.GetMethods() {
				note(named{s.GetName(), method}, m.GetName())
			}
		}
	}
	var partly []*adminv1.PartlyServed
	for what, workers := range have {
		if len(workers) == len(asked) || what.method != "" && len(workers) == len(have[named{what.service, ""}]) {
			continue // all serve it, or all that have the service
		}
		p := &adminv1.PartlyServed{Service: what.service, Method: what.method, Workers: int32(len(workers)), OfWorkers: int32(len(asked))} //nolint:gosec // numbers of workers
		for _, worker := range asked {
			if !workers[worker] {
				p.Missing = append(p.Missing, worker)
			}
		}
		partly = append(partly, p)
	}
	slices.SortFunc(partly, func(a, b *adminv1.PartlyServed) int {
		return cmp.Or(cmp.Compare(a.GetService(), b.GetService()), cmp.Compare(a.GetMethod(), b.GetMethod()))
	})
	return partly
}

// drainOther has another worker drained.
func drainOther(ctx context.Context, app string, t *broker.Table, client *peer.Client, r *adminv1.DrainRequest) error {
	worker := r.GetWorker()
	m, known := t.Member(worker)
	if !known {
		return status.Errorf(codes.NotFound, "no worker %q is a member of the app; `millrace cluster status` lists them", worker)
	}
	if err := mayDrain(app, t, worker, r.GetLast()); err != nil {
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	if err := client.Drain(ctx, m.Address, r.GetLast()); err != nil {
		return status.Errorf(codes.Unavailable, "drain worker %s at %s: %v", worker, m.Address, err)
	}
	return nil
}

// Cluster shows all workers of the app.
func (a *adminService) Cluster(ctx context.Context, _ *adminv1.ClusterRequest) (*adminv1.ClusterResponse, error) {
	n := a.node
	if n.cluster == nil {
		return nil, status.Error(codes.FailedPrecondition, "not available with the embedded log, which has a single process: start workers with --brokers to form a cluster")
	}
	return overview(ctx, n.config.App, n.routes.Table(), n.cluster.client, n.identity.Worker, n.Status(ctx)), nil
}

// Drain has this worker, or another one, hand its partitions over.
func (a *adminService) Drain(ctx context.Context, r *adminv1.DrainRequest) (*adminv1.DrainResponse, error) {
	n := a.node
	if worker := r.GetWorker(); worker != "" && worker != n.identity.Worker {
		if n.cluster == nil {
			return nil, status.Error(codes.FailedPrecondition, "not available with the embedded log, which has a single process: start workers with --brokers to form a cluster")
		}
		return &adminv1.DrainResponse{}, drainOther(ctx, n.config.App, n.routes.Table(), n.cluster.client, r)
	}
	if err := n.Drain(ctx, r.GetLast()); err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	return &adminv1.DrainResponse{}, nil
}

package admin

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities/discovery"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// This file is what a process, worker or gateway, reports about its whole app.

const (
	// askTimeout bounds what one worker may take to show its status page to another.
	askTimeout = 3 * time.Second
	// askAtOnce is how many are asked at a time.
	askAtOnce = 16
)

// errAlone is the answer to what only workers with a log of their own could do together.
var errAlone = status.Error(codes.FailedPrecondition,
	"not available with the embedded log, which has a single process: start workers with --brokers to form a cluster")

// ClusterStatus is this process's side of its app's workers, nil where there are none: how commands
// reach their owners, and how it hands partitions over.
func (s *Service) ClusterStatus() *adminv1.ClusterStatus {
	app := s.process.App()
	if app.Client == nil {
		return nil
	}
	c := &adminv1.ClusterStatus{
		ForwardedCommands: app.Carried.SentOn, RetriedCommands: app.Carried.Retried,
		PeerAddress: app.PeerAddress, EvictedWorkers: app.Evicted,
	}
	if t := app.table(); t != nil {
		c.Generation, c.Members, c.Versions = t.Generation, int32(len(t.Members)), int32(t.Versions()) //nolint:gosec // a number of workers
	}
	if w := s.process.Worker(); w != nil {
		c.Draining, c.Drained = w.Partitions.Draining(), isClosed(w.Partitions.Drained())
	}
	for _, p := range app.Client.Peers() {
		peer := &adminv1.PeerStatus{
			Name: p.Name, Address: p.Address, State: string(p.State), Since: timestamppb.New(p.Since),
			InFlight: int64(p.InFlight),
		}
		if p.LastError != nil {
			peer.LastError, peer.LastErrorTime = p.LastError.Error(), timestamppb.New(p.LastErrorTime)
		}
		c.Peers = append(c.Peers, peer)
	}
	return c
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Cluster shows all workers of the app; on the embedded log that is this one.
func (s *Service) Cluster(ctx context.Context, _ *adminv1.ClusterRequest) (*adminv1.ClusterResponse, error) {
	app := s.process.App()
	if w := s.process.Worker(); w != nil {
		all := overview(ctx, app, w.Name, s.Page(ctx))
		if app.Client == nil { // the embedded log: no worker reaches another
			for _, m := range all.GetMembers() {
				m.Address = ""
			}
		}
		return all, nil
	}
	return overview(ctx, app, "", nil), nil
}

// overview collects the status pages of all workers. self is the name of this process among them,
// and own its page.
func overview(ctx context.Context, app App, self string, own *adminv1.StatusResponse) *adminv1.ClusterResponse {
	t, res := app.table(), &adminv1.ClusterResponse{App: app.Name}
	if t == nil {
		return res
	}
	res.Generation = t.Generation
	res.Members = make([]*adminv1.Member, len(t.Members))
	var asked sync.WaitGroup
	slots := make(chan struct{}, askAtOnce)
	for i, m := range t.Members {
		member := &adminv1.Member{
			Name: m.Name, Address: m.Address, PublicAddress: m.Public, Serves: discovery.OffersDigest(m.Serves),
		}
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
			page, err := app.Client.Status(ctx, m.Address)
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
		p := &adminv1.PartlyServed{Service: what.service, Method: what.method}
		p.Workers, p.OfWorkers = int32(len(workers)), int32(len(asked)) //nolint:gosec // numbers of workers
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

// Drain makes this worker, or another one, hand its partitions over.
func (s *Service) Drain(ctx context.Context, r *adminv1.DrainRequest) (*adminv1.DrainResponse, error) {
	app, w := s.process.App(), s.process.Worker()
	switch worker := r.GetWorker(); {
	case w == nil && worker == "":
		return nil, status.Error(codes.InvalidArgument,
			"a gateway owns no partitions: name the worker to drain")
	case w == nil, worker != "" && worker != w.Name:
		return &adminv1.DrainResponse{}, drainOther(ctx, app, r)
	}
	if err := w.Drain(ctx, r.GetLast()); err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	return &adminv1.DrainResponse{}, nil
}

// drainOther drains another worker.
func drainOther(ctx context.Context, app App, r *adminv1.DrainRequest) error {
	if app.Client == nil {
		return errAlone
	}
	t, worker := app.table(), r.GetWorker()
	m, known := t.Member(worker)
	if !known {
		return status.Errorf(codes.NotFound,
			"no worker %q is a member of the app; `millrace cluster status` lists them", worker)
	}
	if err := MayDrain(app.Name, t, worker, r.GetLast()); err != nil {
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	if err := app.Client.Drain(ctx, m.Address, r.GetLast()); err != nil {
		return status.Errorf(codes.Unavailable, "drain worker %s at %s: %v", worker, m.Address, err)
	}
	return nil
}

// MayDrain refuses to drain the last worker of an app, unless that is meant.
func MayDrain(app string, t *broker.Table, worker string, last bool) error {
	if last || t != nil && slices.ContainsFunc(t.Members, func(m broker.Member) bool { return m.Name != worker }) {
		return nil
	}
	return fmt.Errorf("%s is the last worker of app %s: no worker would own its partitions, and calls would fail; "+
		"start another worker first, or drain it all the same with --last", worker, app)
}

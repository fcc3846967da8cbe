package node

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/internal/lifecycle"
	"github.com/millrace-io/millrace/partitions"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// statusTimeout bounds what /status asks of the log.
const statusTimeout = 2 * time.Second

// Status is the whole status page: every loop with its state, lag and last error.
func (n *Node) Status(ctx context.Context) *adminv1.StatusResponse {
	s := &adminv1.StatusResponse{
		Version: n.options.Version, App: n.config.App, Worker: n.identity.Worker, Started: timestamppb.New(n.started),
		Log: n.Engine(), Durability: n.Durability(), DataDirectory: n.config.Data,
		PublicAddress: n.PublicAddress(), AdminAddress: n.AdminAddress(), Ready: true,
		Services: n.serviceStatus(), Partitions: n.partitionStatus(ctx), Tasks: n.taskStatus(),
		Cluster: n.clusterStatus(), Staleness: n.stalenessStatus(),
		PartitionsOfData: n.layout.Partitions, PartitionsOfTopic: n.manager.TopicPartitions(),
	}
	if n.config.Ephemeral {
		s.DataDirectory = ""
	}
	if err := n.NotReady(); err != nil {
		s.Ready, s.NotReadyReason = false, err.Error()
	}
	s.Warnings = n.Warnings()
	return s
}

func (n *Node) serviceStatus() []*adminv1.ServiceStatus {
	hosting := "remote at " + n.config.Function
	if n.options.Local != nil {
		hosting = "in process"
	}
	return serviceList(n.host.Catalog(), hosting)
}

// serviceList lists what a catalog serves; hosting says where.
func serviceList(catalog *discovery.Catalog, hosting string) []*adminv1.ServiceStatus {
	if catalog == nil {
		return nil
	}
	all := make([]*adminv1.ServiceStatus, 0, len(catalog.Services()))
	for _, service := range catalog.Services() {
		status := &adminv1.ServiceStatus{Name: service.Name, Kind: service.Kind.String(), Hosting: hosting, Hash: fmt.Sprintf("%016x", service.Hash)}
		if service.Kind.Spec().HasEntities {
			status.EntityType = service.EntityType.Name
		}
		for _, m := range service.Methods {
			status.Methods = append(status.Methods, m.Name)
		}
		all = append(all, status)
	}
	return all
}

// tasks lists the tasks of a process, each with what is wrong with it.
func tasks(group *lifecycle.Group, troubles *troubles) []*adminv1.TaskStatus {
	running := group.Status()
	all := make([]*adminv1.TaskStatus, 0, len(running))
	for _, task := range running {
		t := &adminv1.TaskStatus{Name: task.Name, State: string(task.State)}
		if task.Err != nil {
			setError(t, task.Since, task.Err)
		} else {
			trouble := troubles.of(task.Name)
			setError(t, trouble.at, trouble.err)
		}
		all = append(all, t)
	}
	return all
}

// taskStatus lists the node's tasks, and what works below them.
func (n *Node) taskStatus() []*adminv1.TaskStatus {
	all := tasks(n.group, &n.troubles)
	for _, l := range n.loops {
		t := &adminv1.TaskStatus{Name: l.name, State: string(lifecycle.Running)}
		at, err := l.last()
		setError(t, at, err)
		if err := l.illness(); err != nil {
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

func (n *Node) partitionStatus(ctx context.Context) []*adminv1.PartitionStatus {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	var all []*adminv1.PartitionStatus
	for _, p := range n.manager.Partitions() {
		s := p.Status()
		status := &adminv1.PartitionStatus{
			Partition: s.Partition, State: s.State.String(), Epoch: s.Epoch, NextOffset: s.Next, EndOffset: s.Next,
			ActiveEntities: int64(s.Entities), WaitingCommands: s.Waiting, BatchesInFlight: int64(s.InFlight),
			StaleRecords: s.Fold.Stale, ForeignRecords: s.Fold.Foreign, LastError: s.LastError,
			Parked: int64(s.Parked), Refused: int64(s.Refusals), OpenEffects: int64(s.Effects), MoreEffects: s.MoreEffects,
			Timers: int64(s.Timers), MoreTimers: s.MoreTimers, OverdueSeconds: s.Overdue.Seconds(),
			Followed: s.Followed, FollowerReads: p.Counts().FollowerReads(),
		}
		switch i := s.Inspection; {
		case i.Damage != nil:
			status.LastError = i.Damage.Error()
		case s.LastError != "":
		case i.Failed != nil:
			status.LastError = "the log could not be looked through for losses: " + i.Failed.Error()
		case i.Until > 0 && !i.Over:
			status.LastError = fmt.Sprintf("the settings of the topic were wrong: its log is being looked through for losses, at offset %d of %d", i.Next, i.Until)
		}
		if !s.LastFailed.IsZero() {
			status.LastErrorTime = timestamppb.New(s.LastFailed)
		}
		if err := n.lag(ctx, s, status); err != nil && status.GetLastError() == "" {
			status.LastError, status.LastErrorTime = err.Error(), timestamppb.New(n.clock.Now())
		}
		all = append(all, status)
	}
	return all
}

// lag says how far a partition is behind the log, in records and in the age of the first one that it has not read. An active
// one is not behind: it wrote them all.
func (n *Node) lag(ctx context.Context, s partitions.Status, status *adminv1.PartitionStatus) error {
	if owner, _ := n.routes.Table().Owner(s.Partition); s.State == partitions.Standby && !s.Followed && owner.Name != n.identity.Worker {
		return nil // it is another worker's
	}
	where := broker.Partition{Topic: n.topic.Name, ID: s.Partition}
	end, err := n.log.End(ctx, where)
	if err != nil {
		return err
	}
	status.EndOffset = end
	if s.State == partitions.Active { // what stands behind its position is its own, and its status a moment old
		status.NextOffset = max(end, s.Next)
		return nil
	}
	status.LagRecords = max(end-s.Next, 0)
	if status.GetLagRecords() == 0 {
		return nil
	}
	reader, err := n.log.Read(where, s.Next)
	if err != nil {
		return err
	}
	defer reader.Close() //nolint:errcheck // only read
	batch, err := reader.Next(ctx)
	if err != nil {
		return err
	}
	if len(batch.Records) > 0 {
		status.LagSeconds = max(n.clock.Now().Sub(batch.Records[0].Time).Seconds(), 0)
	}
	return nil
}

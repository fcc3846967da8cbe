package node

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// statusTimeout bounds what /status asks of the log.
const statusTimeout = 2 * time.Second

// Status is the whole status page: every loop with its state, lag and last error.
func (n *Node) Status(ctx context.Context) *adminv1.StatusResponse {
	s := &adminv1.StatusResponse{
		Version: n.options.Version, App: n.config.App, Worker: n.identity.Worker, Started: timestamppb.New(n.started),
		Log: n.Engine(), Durability: n.Durability(), DataDirectory: n.config.Data,
		PublicAddress: n.public.Addr().String(), AdminAddress: n.admin.listener.Addr().String(), Ready: true,
	}
	if n.config.Ephemeral {
		s.DataDirectory = ""
	}
	if err := n.NotReady(); err != nil {
		s.Ready, s.NotReadyReason = false, err.Error()
	}
	if catalog := n.host.Catalog(); catalog != nil {
		hosting := "remote at " + n.config.Function
		if n.options.Local != nil {
			hosting = "in process"
		}
		for _, service := range catalog.Services() {
			status := &adminv1.ServiceStatus{Name: service.Name, Kind: service.Kind.String(), Hosting: hosting}
			if service.Kind != entities.Action {
				status.EntityType = service.EntityType.Name
			}
			for _, m := range service.Methods {
				status.Methods = append(status.Methods, m.Name)
			}
			s.Services = append(s.Services, status)
		}
	}
	s.Partitions = n.partitionStatus(ctx)
	for _, task := range n.group.Status() {
		t := &adminv1.TaskStatus{Name: task.Name, State: string(task.State)}
		if task.Err != nil {
			t.LastError = task.Err.Error()
		}
		if task.Name == "function" {
			if err := n.readiness.functionProblem(); err != nil {
				t.LastError = err.Error()
			}
		}
		s.Tasks = append(s.Tasks, t)
	}
	return s
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
		}
		if end, err := n.log.End(ctx, broker.Partition{Topic: n.topic.Name, ID: s.Partition}); err == nil {
			status.EndOffset = end
			status.LagRecords = max(end-s.Next, 0)
		} else if status.LastError == "" {
			status.LastError = err.Error()
		}
		if !s.LastFailed.IsZero() {
			status.LastErrorTime = timestamppb.New(s.LastFailed)
		}
		all = append(all, status)
	}
	return all
}

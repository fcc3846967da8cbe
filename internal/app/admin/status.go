package admin

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/partitions"
	"github.com/millrace-io/millrace/partitions/core"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// statusTimeout bounds what /status asks of the log.
const statusTimeout = 2 * time.Second

// Status returns the status page.
func (s *Service) Status(ctx context.Context, _ *adminv1.StatusRequest) (*adminv1.StatusResponse, error) {
	return s.Page(ctx), nil
}

// Page is the whole status page: every loop with its state, lag and last error.
func (s *Service) Page(ctx context.Context) *adminv1.StatusResponse {
	page, app := s.process.Self(), s.process.App()
	page.App, page.PartitionsOfData, page.Cluster = app.Name, app.Layout.Partitions, s.ClusterStatus()
	page.Projections = projectionStatus(s.process.ReadSide())
	page.Services = serviceList(s.process.Catalog())
	if w := s.process.Worker(); w != nil {
		page.Worker, page.PartitionsOfTopic = w.Name, w.Partitions.TopicPartitions()
		page.Partitions, page.Staleness = s.partitionStatus(ctx, w), stalenessStatus(w.Partitions.Staleness(), s.catalog())
	}
	page.Ready, page.Warnings = true, s.Warnings()
	if err := s.process.NotReady(); err != nil {
		page.Ready, page.NotReadyReason = false, err.Error()
	}
	return page
}

// Warnings returns what an operator should look at although the worker serves what it owns:
// partitions that have halted here and that other workers own, so that this one is no standby for
// them; and logs that have lost what the store of this worker has.
func (s *Service) Warnings() []string {
	w := s.process.Worker()
	if w == nil {
		return nil
	}
	app := s.process.App()
	var all []string
	for _, p := range w.Partitions.Partitions() {
		s := p.Status()
		switch owner, owned := app.table().Owner(s.Partition); {
		case s.Halted != nil && s.State == core.Halted && !(owned && owner.Name == w.Name):
			all = append(all, fmt.Sprintf("partition %d is halted on this worker, which does not own it "+
				"and cannot take it over: %s; see `millrace repair`", s.Partition, s.Halted))
		case s.Inspection.Damage != nil:
			all = append(all, s.Inspection.Damage.Error())
		}
	}
	return all
}

// serviceList lists what callers can call of a catalog; hosting says where the user's services are.
func serviceList(catalog *discovery.Catalog, hosting string) []*adminv1.ServiceStatus {
	if catalog == nil {
		return nil
	}
	services := catalog.Public().Services()
	all := make([]*adminv1.ServiceStatus, 0, len(services))
	for _, service := range services {
		status := &adminv1.ServiceStatus{
			Name: service.Name, Kind: service.Kind.String(), Hosting: hostingOf(service, hosting),
			Hash: fmt.Sprintf("%016x", service.Hash),
		}
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

// hostingOf says where a service is, and what of it this version does not run.
func hostingOf(s *discovery.Service, hosting string) string {
	switch {
	case discovery.IsReserved(s.Name):
		return "by the runtime"
	case !s.Kind.Spec().Served():
		return "not supported yet: calls get UNIMPLEMENTED"
	case slices.ContainsFunc(s.Methods, func(m *discovery.Method) bool { return m.Eventing != nil }):
		return hosting + "; eventing is not supported yet: no topic is read or written"
	default:
		return hosting
	}
}

func (s *Service) partitionStatus(ctx context.Context, w *Worker) []*adminv1.PartitionStatus {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	var all []*adminv1.PartitionStatus
	table := s.process.App().Routes.Current()
	for _, p := range w.Partitions.Partitions() {
		s := p.Status()
		status := &adminv1.PartitionStatus{
			Partition: s.Partition, State: s.State.String(), Epoch: s.Epoch, NextOffset: s.Next, EndOffset: s.Next,
			ActiveEntities: int64(s.Entities), WaitingCommands: s.Waiting, BatchesInFlight: int64(s.InFlight),
			VoidRecords: s.Fold.Void, ForeignRecords: s.Fold.Foreign, LastError: s.LastError,
			Parked: int64(s.Parked), Refused: int64(s.Refusals), OpenEffects: int64(s.Effects), MoreEffects: s.MoreEffects,
			Timers: int64(s.Timers), MoreTimers: s.MoreTimers, OverdueSeconds: s.Overdue.Seconds(),
			Followed: s.Followed, FollowerReads: p.Counts().FollowerReads(),
		}
		switch i := s.Inspection; {
		case i.Damage != nil:
			status.LastError = i.Damage.Error()
		case s.LastError != "":
		case i.Failed != nil:
			status.LastError = "the log could not be checked for losses: " + i.Failed.Error()
		case i.Until > 0 && !i.Over:
			status.LastError = fmt.Sprintf("the settings of the topic were wrong: its log is being checked for losses, "+
				"at offset %d of %d", i.Next, i.Until)
		}
		if !s.LastFailed.IsZero() {
			status.LastErrorTime = timestamppb.New(s.LastFailed)
		}
		if err := w.lag(ctx, table, s, status); err != nil && status.GetLastError() == "" {
			status.LastError, status.LastErrorTime = err.Error(), timestamppb.New(w.Clock.Now())
		}
		all = append(all, status)
	}
	return all
}

// lag says how far a partition is behind the log, in records and in the age of the first one that
// it has not read. An active one is not behind: it wrote them all.
func (w *Worker) lag(ctx context.Context, table *broker.Table, s partitions.Status,
	status *adminv1.PartitionStatus,
) error {
	if owner, _ := table.Owner(s.Partition); s.State == core.Standby && !s.Followed && owner.Name != w.Name {
		return nil // it is another worker's
	}
	where := broker.Partition{Topic: w.Topic.Name, ID: s.Partition}
	end, err := w.Log.End(ctx, where)
	if err != nil {
		return err
	}
	status.EndOffset = end
	if s.State == core.Active { // what comes after its position is its own, and its status a moment old
		status.NextOffset = max(end, s.Next)
		return nil
	}
	status.LagRecords = max(end-s.Next, 0)
	if status.GetLagRecords() == 0 {
		return nil
	}
	reader, err := w.Log.Read(where, s.Next)
	if err != nil {
		return err
	}
	defer reader.Close() //nolint:errcheck // only read
	batch, err := reader.Next(ctx)
	if err != nil {
		return err
	}
	if len(batch.Records) > 0 {
		status.LagSeconds = max(w.Clock.Now().Sub(batch.Records[0].Time).Seconds(), 0)
	}
	return nil
}

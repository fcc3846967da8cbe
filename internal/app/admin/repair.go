package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions/core"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// repairTold is how often the caller of a repair gets its progress.
const repairTold = 200 * time.Millisecond

// offered are the choices in the order in which they are shown.
var offered = []materializer.Choice{materializer.Retry, materializer.AcceptLoss, materializer.AppendImage} //nolint:gochecknoglobals // a constant

func choiceOf(c adminv1.RepairChoice) (materializer.Choice, error) {
	switch c {
	case adminv1.RepairChoice_REPAIR_CHOICE_RETRY:
		return materializer.Retry, nil
	case adminv1.RepairChoice_REPAIR_CHOICE_ACCEPT_LOSS:
		return materializer.AcceptLoss, nil
	case adminv1.RepairChoice_REPAIR_CHOICE_APPEND_IMAGE:
		return materializer.AppendImage, nil
	case adminv1.RepairChoice_REPAIR_CHOICE_PREVIEW:
		return materializer.Preview, nil
	default:
		return 0, status.Errorf(codes.InvalidArgument, "unknown choice %s", c)
	}
}

// ListHalted returns the evidence of every halted partition.
func (s *Service) ListHalted(ctx context.Context, _ *adminv1.ListHaltedRequest) (*adminv1.ListHaltedResponse, error) {
	w, err := s.worker()
	if err != nil {
		return nil, err
	}
	found, err := w.Partitions.Halted(ctx)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	res := &adminv1.ListHaltedResponse{}
	for i := range found {
		e := &found[i]
		h := &adminv1.HaltedPartition{
			Partition: e.Partition, Cause: e.Cause, Position: e.Position, StoreNext: e.Next, StoreEpoch: e.Owner.Epoch,
			LogStart: e.Start, LogEnd: e.End, Unreachable: e.Unreachable, StoreTopicId: e.StoreTopic, LogTopicId: e.LogTopic,
			LostRecords: e.Beyond.Records, LostEntities: e.Beyond.Entities, LostCommands: e.Beyond.Commands,
			LostEffects: e.Beyond.Effects, LostTimers: e.Beyond.Timers, Examples: e.Beyond.Examples,
		}
		for _, c := range offered {
			h.Choices = append(h.Choices, &adminv1.RepairOption{Choice: adminv1.RepairChoice(c) + 1, Refused: e.Refused[c]})
		}
		res.Partitions = append(res.Partitions, h)
	}
	return res, nil
}

// Repair repairs a halted partition.
func (s *Service) Repair(r *adminv1.RepairRequest, out adminv1.AdminService_RepairServer) error {
	w, err := s.worker()
	if err != nil {
		return err
	}
	choice, err := choiceOf(r.GetChoice())
	if err != nil {
		return err
	}
	var restored materializer.Restored
	ended := make(chan error, 1)
	go func() { // ends with the repair, or with the call; received below
		var err error
		restored, err = w.Partitions.Repair(out.Context(), r.GetPartition(), choice)
		ended <- err
	}()
	for running := true; running; {
		select {
		case err := <-ended:
			if err != nil {
				return repairError(err)
			}
			running = false
		case <-time.After(repairTold):
			if err := out.Send(repairProgress(w, r.GetPartition())); err != nil {
				return errors.Join(err, <-ended)
			}
		}
	}
	if choice != materializer.Preview {
		if err := awaitOwner(w, r.GetPartition(), out); err != nil {
			return err
		}
	}
	last := repairProgress(w, r.GetPartition())
	last.Done = true
	last.Records, last.Entities = restored.Records, restored.Entities
	last.Events, last.EventsBehindSnapshots = restored.Events, restored.Behind
	last.Values, last.Answers = restored.Values, restored.Answers
	last.Effects, last.Timers = restored.Effects, restored.Timers
	return out.Send(last)
}

// awaitOwner waits until a repaired partition serves again, here or, when it is not assigned to
// this worker, elsewhere.
func awaitOwner(w *Worker, partition int32, out adminv1.AdminService_RepairServer) error {
	p := w.Partitions.Partitions()[partition]
	for {
		switch s := p.Status(); s.State {
		case core.Active, core.Standby:
			return nil
		case core.Halted:
			return status.Errorf(codes.FailedPrecondition, "partition %d has halted again: %v", partition, s.Halted)
		default:
		}
		select {
		case <-out.Context().Done():
			return status.FromContextError(out.Context().Err()).Err()
		case <-time.After(repairTold / 4):
		}
		if err := out.Send(repairProgress(w, partition)); err != nil {
			return err
		}
	}
}

func repairProgress(w *Worker, partition int32) *adminv1.RepairResponse {
	all := w.Partitions.Partitions()
	if partition < 0 || int(partition) >= len(all) {
		return &adminv1.RepairResponse{}
	}
	s := all[partition].Status()
	return &adminv1.RepairResponse{State: s.State.String(), NextOffset: s.Next, Floor: s.Floor}
}

func repairError(err error) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	case errors.Is(err, core.ErrNotHalted):
		return status.Error(codes.FailedPrecondition, err.Error())
	default:
		return status.Error(codes.FailedPrecondition,
			fmt.Sprintf("%v; the partition is halted still, see `millrace repair`", err))
	}
}

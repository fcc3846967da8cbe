package partitions

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions/core"
	recordv1 "github.com/millrace-io/millrace/proto/gen/millrace/record/v1"
)

// This file serves the operator of effects that could not be delivered.

// Parked is an effect that could not be delivered and waits for an operator.
type Parked struct {
	Partition int32
	materializer.Effect
	Service, Method string
}

// ParkedPlace is a place among the parked effects of a worker, in the order of the list. The zero
// value is the first.
type ParkedPlace struct {
	Partition int32
	Offset    int64
}

// CountRefused returns how many refused effects are kept for an operator on this worker.
func (m *Manager) CountRefused() int {
	n := 0
	for _, p := range m.partitions {
		if s := p.Status(); s.State == core.Active {
			n += s.Refusals
		}
	}
	return n
}

// CountParked returns how many effects wait for an operator on this worker.
func (m *Manager) CountParked() int {
	n := 0
	for _, p := range m.partitions {
		if s := p.Status(); s.State == core.Active {
			n += s.Parked
		}
	}
	return n
}

// Parked returns effects that wait for an operator on this worker, from a place on, at most limit
// of them. next is the place at which to go on; more is false if there are no others.
func (m *Manager) Parked(
	from ParkedPlace, filter materializer.ParkedFilter, limit int,
) (found []Parked, next ParkedPlace, more bool, err error) {
	return m.list(from, filter, limit, materializer.Partition.Parked)
}

// Refused returns effects that their targets refused and that are kept on this worker, as Parked
// does. Their offsets are those of the refused records, Parked is code and text of the refusal.
func (m *Manager) Refused(
	from ParkedPlace, filter materializer.ParkedFilter, limit int,
) (found []Parked, next ParkedPlace, more bool, err error) {
	return m.list(from, filter, limit, func(
		view materializer.Partition, from int64, yield func(materializer.Effect) bool,
	) error {
		return view.Refusals(from, func(r materializer.Refusal) bool {
			return yield(materializer.Effect{
				Offset: r.Offset, From: r.From, Target: r.Target, Payload: r.Payload, Parked: Refusal(r.Answer),
			})
		})
	})
}

// Refusal returns the answer of a refused record as text: code and message.
func Refusal(answer []byte) string {
	var a recordv1.Answer
	if err := proto.Unmarshal(answer, &a); err != nil {
		return "refused"
	}
	return fmt.Sprintf("refused with %s: %s", codes.Code(a.GetCode()), a.GetMessage()) //nolint:gosec // a gRPC code
}

// list reads effects of all owned partitions, from a place on.
func (m *Manager) list(
	from ParkedPlace, filter materializer.ParkedFilter, limit int,
	read func(materializer.Partition, int64, func(materializer.Effect) bool) error,
) (found []Parked, next ParkedPlace, more bool, err error) {
	for ; int(from.Partition) < len(m.partitions); from = (ParkedPlace{Partition: from.Partition + 1}) {
		p := m.partitions[from.Partition]
		if p.Status().State != core.Active {
			continue
		}
		view := materializer.Partition{Rows: m.options.Store, Address: p.image.Address}
		var failed error
		err := read(view, from.Offset, func(e materializer.Effect) bool {
			if !filter.Matches(&e) {
				return true
			}
			if more = len(found) == limit; more {
				next = ParkedPlace{Partition: p.id, Offset: e.Offset}
				return false
			}
			target, err := record.DecodeTarget(e.Target, e.Payload)
			failed = err
			found = append(found, Parked{Partition: p.id, Effect: e, Service: target.Service, Method: target.Method})
			return failed == nil
		})
		if err = errors.Join(err, failed); err != nil {
			return nil, next, false, fmt.Errorf("partition %d: %w", p.id, err)
		}
		if more {
			break
		}
	}
	return found, next, more, nil
}

// instruction is an operator's request to a partition.
type instruction struct {
	core.Resolution

	// filter chooses parked effects from offset on; nil: it concerns the one at offset.
	filter *materializer.ParkedFilter
	// refusal: it concerns a refusal that is kept.
	refusal bool
	// next is where to go on, if there are more; seen is how many were examined.
	next int64
	more bool
	seen int
	err  error
}

// ErrNotParked: there is no such effect, or it does not wait for an operator, or this worker does
// not own its partition now.
var ErrNotParked = errors.New("no such effect is parked on this worker")

// Resolve sends a parked effect again, or drops it, and returns when that is in the log.
func (m *Manager) Resolve(ctx context.Context, partition int32, offset int64, drop bool) error {
	if partition < 0 || int(partition) >= len(m.partitions) {
		return fmt.Errorf("partition %d: %w", partition, ErrNotParked)
	}
	r := &instruction{Resolution: core.Resolution{Offset: offset, Drop: drop}}
	ok, err := m.resolve(ctx, partition, r)
	if err == nil && !ok {
		return fmt.Errorf("partition %d, offset %d: %w", partition, offset, ErrNotParked)
	}
	return err
}

// ResolveRefusal sends the message of a refused effect once more, as a new effect, or drops the
// refusal, and returns when that is in the log. offset is that of the refused record.
func (m *Manager) ResolveRefusal(ctx context.Context, partition int32, offset int64, drop bool) error {
	if partition < 0 || int(partition) >= len(m.partitions) {
		return fmt.Errorf("partition %d: %w", partition, ErrNotParked)
	}
	ok, err := m.resolve(ctx, partition, &instruction{
		Resolution: core.Resolution{Offset: offset, Drop: drop}, refusal: true,
	})
	if err == nil && !ok {
		return fmt.Errorf("partition %d, offset %d: %w", partition, offset, ErrNotParked)
	}
	return err
}

// ResolveSome sends parked effects again, or drops them, that a filter chooses: those among the
// first few hundred from a place on. It returns their number when that is in the log, and where to
// go on; more is false if there are no others. An effect is not resolved twice, so it may be called
// again after an error.
func (m *Manager) ResolveSome(
	ctx context.Context, from ParkedPlace, filter materializer.ParkedFilter, drop bool,
) (n int, next ParkedPlace, more bool, err error) {
	for ; int(from.Partition) < len(m.partitions); from = (ParkedPlace{Partition: from.Partition + 1}) {
		if from.Partition < 0 || m.partitions[from.Partition].Status().State != core.Active {
			continue
		}
		r := &instruction{Resolution: core.Resolution{Offset: from.Offset, Drop: drop}, filter: &filter}
		ok, err := m.resolve(ctx, from.Partition, r)
		switch {
		case err != nil:
			return 0, from, true, err
		case !ok:
			return 0, from, true, entities.PartitionMoved(from.Partition, "its owner has changed: list what is parked, and try again")
		case r.more:
			return len(r.Effects), ParkedPlace{Partition: from.Partition, Offset: r.next}, true, nil
		case len(r.Effects) > 0:
			next := ParkedPlace{Partition: from.Partition + 1}
			return len(r.Effects), next, int(next.Partition) < len(m.partitions), nil
		}
	}
	return 0, from, false, nil
}

// resolve passes an operator's instruction to a partition, and waits until the log has it.
func (m *Manager) resolve(ctx context.Context, partition int32, r *instruction) (ok bool, err error) {
	done := make(chan bool, 1)
	r.Done = func(ok bool) { done <- ok }
	if !m.partitions[partition].post(inResolve{r}) {
		return false, entities.PartitionMoved(partition, "the worker is stopping")
	}
	select {
	case ok := <-done:
		if r.err != nil {
			return false, fmt.Errorf("partition %d: read what is parked: %w", partition, r.err)
		}
		return ok, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

package partitions

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
)

// Evidence is what is known of a halted partition, for an operator to choose by.
type Evidence struct {
	Partition int32
	// Cause is why it halted.
	Cause string
	// Position is the offset behind the last one that was known to be used; the store has folded up to Next, under Owner.
	Position, Next int64
	Owner          record.Owner
	// Start and End are the bounds of the log as it is now; Unreachable says why they are not known.
	Start, End  int64
	Unreachable string
	// StoreTopic is the id of the journal that the store was folded from, LogTopic that of the present one.
	StoreTopic, LogTopic string
	// Beyond is what the store has of records that the log does not have.
	Beyond materializer.Beyond
	// Refused says, by choice, why it is not offered; those that are have no entry.
	Refused map[materializer.Choice]string
}

// examples is how many entities evidence names.
const examples = 5

// Halted returns the evidence of every partition that has halted on this worker.
func (m *Manager) Halted(ctx context.Context) ([]Evidence, error) {
	var all []Evidence
	for _, p := range m.partitions {
		s := p.Status()
		if s.State != Halted {
			continue
		}
		e, err := p.evidence(ctx, s.Halted)
		if err != nil {
			return nil, fmt.Errorf("partition %d: %w", p.id, err)
		}
		all = append(all, e)
	}
	return all, nil
}

func (p *Partition) evidence(ctx context.Context, cause error) (Evidence, error) {
	e := Evidence{Partition: p.id, LogTopic: p.topicID, Refused: map[materializer.Choice]string{}}
	if cause != nil {
		e.Cause = cause.Error()
	}
	meta, known, err := p.view().Meta()
	if err != nil {
		return e, err
	}
	halt, _, err := p.view().Halted()
	if err != nil {
		return e, err
	}
	e.Next, e.Owner, e.StoreTopic = meta.Next, meta.Owner, meta.TopicID
	e.Position = max(meta.Next, halt.Position)
	if e.Unreachable = e.askLog(ctx, p); e.Unreachable != "" {
		return e, nil
	}
	end := e.End
	if known && meta.TopicID != p.topicID {
		end = 0
	}
	if e.Beyond, err = p.view().Beyond(end, examples); err != nil {
		return e, err
	}
	e.refuse(cause, known, &meta)
	return e, nil
}

// askLog asks for the bounds of the log, and returns why it cannot be asked.
func (e *Evidence) askLog(ctx context.Context, p *Partition) string {
	var err error
	if e.Start, err = p.log.Start(ctx, p.journal); err == nil {
		e.End, err = p.log.End(ctx, p.journal)
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// refuse says which choices would not help.
func (e *Evidence) refuse(cause error, known bool, meta *materializer.Meta) {
	replaced := known && e.StoreTopic != e.LogTopic
	switch {
	case errors.Is(cause, materializer.ErrLost) && errors.Is(cause, entities.ErrLayout):
		e.Refused[materializer.AppendImage] = "nothing of this store is missing in the log; a claim of another layout stands in it, which only accept-loss passes over: " +
			"with the claim, it passes over whatever its owner has written, and nothing else"
	case errors.Is(cause, entities.ErrLayout):
		why := "nothing is lost: the log, or the store, was written by another layout; start the worker as the cause says, then retry"
		e.Refused[materializer.AcceptLoss], e.Refused[materializer.AppendImage] = why, why
	case errors.Is(cause, materializer.ErrUnfoldable):
		why := "nothing is lost: the log has a record that this version cannot fold; run the version that wrote it, or a newer one, then retry"
		e.Refused[materializer.AcceptLoss], e.Refused[materializer.AppendImage] = why, why
	case errors.Is(cause, materializer.ErrLost):
		e.Refused[materializer.AppendImage] = imageBesideHoles
	case e.Start > 0:
		e.Refused[materializer.AppendImage] = fmt.Sprintf("the log has lost its beginning, up to offset %d: what the store has cannot be compared with it", e.Start)
	case !known:
		e.Refused[materializer.AppendImage] = "the store has nothing"
	case meta.FoldVersion != materializer.FoldVersion:
		e.Refused[materializer.AppendImage] = fmt.Sprintf("the store was folded by version %d, this program folds by version %d", meta.FoldVersion, materializer.FoldVersion)
	}
	if replaced {
		e.Refused[materializer.Retry] = "the journal is another one; start the worker again when the old one is back"
	}
}

// Repair mends a halted partition by choice, and returns when it is like any other, so that it is owned again next; restored
// is what was written again, or with Preview would be. An error says why it is still halted; nothing that the log has is lost by it,
// and the repair may be asked for again. It goes on when ctx ends.
func (m *Manager) Repair(ctx context.Context, partition int32, choice materializer.Choice) (materializer.Restored, error) {
	if partition < 0 || int(partition) >= len(m.partitions) {
		return materializer.Restored{}, fmt.Errorf("partition %d: %w: the journal has 0 to %d", partition, ErrNotHalted, len(m.partitions)-1)
	}
	ended := make(chan *repair, 1)
	r := &repair{choice: choice, done: func(r *repair) { ended <- r }}
	if !m.partitions[partition].post(input{kind: inRepair, repair: r}) {
		return materializer.Restored{}, entities.PartitionMoved(partition, "the worker is stopping")
	}
	select {
	case r := <-ended:
		if r.err != nil {
			return r.restored, fmt.Errorf("repair of partition %d by %s: %w", partition, choice, r.err)
		}
		return r.restored, nil
	case <-ctx.Done():
		return materializer.Restored{}, context.Cause(ctx)
	}
}

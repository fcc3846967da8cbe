package repair

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
)

// Evidence is what is known about a halted partition, for an operator to choose a repair.
type Evidence struct {
	Partition int32
	// Cause is why it halted.
	Cause string
	// Position is the offset after the last one that was known to be used; the store has folded up to
	// Next, under Owner.
	Position, Next int64
	Owner          record.Owner
	// Start and End are the present bounds of the log; Unreachable is why they are not known.
	Start, End  int64
	Unreachable string
	// StoreTopic is the id of the journal that the store was folded from, LogTopic that of the present
	// one.
	StoreTopic, LogTopic string
	// Beyond counts what the store has of records that the log does not have.
	Beyond materializer.Beyond
	// Refused is, by choice, why it is not offered; those that are have no entry.
	Refused map[materializer.Choice]string
}

// examples is how many entities evidence names.
const examples = 5

// Evidence returns what is known about a partition that halted for a cause.
func (r *Repair) Evidence(ctx context.Context, cause error) (Evidence, error) {
	e := Evidence{Partition: r.o.Image.Journal.ID, LogTopic: r.o.Image.TopicID, Refused: map[materializer.Choice]string{}}
	if cause != nil {
		e.Cause = cause.Error()
	}
	meta, known, err := r.o.Image.View().Meta()
	if err != nil {
		return e, err
	}
	halt, _, err := r.o.Image.View().Halted()
	if err != nil {
		return e, err
	}
	e.Next, e.Owner, e.StoreTopic = meta.Next, meta.Owner, meta.TopicID
	e.Position = max(meta.Next, halt.Position)
	if e.Unreachable = e.askLog(ctx, r.o.Image); e.Unreachable != "" {
		return e, nil
	}
	end := e.End
	if known && meta.TopicID != r.o.Image.TopicID {
		end = 0
	}
	if e.Beyond, err = r.o.Image.View().Beyond(end, examples); err != nil {
		return e, err
	}
	e.refuse(cause, known, &meta)
	return e, nil
}

// askLog asks for the bounds of the log, and returns why they are not known.
func (e *Evidence) askLog(ctx context.Context, image *materializer.Image) (failed string) {
	var err error
	if e.Start, err = image.Log.Start(ctx, image.Journal); err == nil {
		e.End, err = image.Log.End(ctx, image.Journal)
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// refuse notes which choices would not help.
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

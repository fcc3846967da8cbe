package repair

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/materializer"
)

// This file looks for losses in the part of the log that a store was folded from, which nothing
// else reads. The store has what was there, so its worker serves correctly; but no other worker can
// fold that log.

// Inspection is the progress of an inspection of the log, and what it found.
type Inspection struct {
	// Next is the offset that it has reached, Until where it ends.
	Next, Until int64
	Over        bool
	// Damage is what the log has lost of what the store has; nil: nothing, as far as was read.
	Damage error
	// Failed is why the log could not be read. The inspection tries again.
	Failed error
}

// Inspector inspects the log of one partition below the store's position. Inspect and Conclude may
// run at the same time as all other methods, each of them once at a time.
type Inspector struct {
	image *materializer.Image
	// last is the last inspection; nil if there was none. suspected: one is wanted. repairs counts the
	// repairs that have made the result of an earlier inspection out of date.
	last      atomic.Pointer[Inspection]
	suspected atomic.Bool
	repairs   atomic.Uint64
}

// Finding is the result of an inspection.
type Finding struct {
	// Damage is what the log has lost; nil: nothing.
	Damage error
	// repairs is how many repairs there were when the inspection began.
	repairs uint64
}

// NewInspector returns the inspector of a partition. It takes over what an earlier worker on this
// store suspected or found.
func NewInspector(image *materializer.Image) *Inspector {
	i := &Inspector{image: image}
	damage, known, err := image.View().Suspected()
	// The next reader of a store that cannot be read gets the error.
	if err != nil || !known || mutation.On(mutation.Suspicion) {
		return i
	}
	i.suspected.Store(true)
	if damage != "" {
		i.last.Store(&Inspection{Damage: errors.New(damage)})
	}
	return i
}

// Last returns the last inspection; it is zero if there was none.
func (i *Inspector) Last() Inspection {
	if last := i.last.Load(); last != nil {
		return *last
	}
	return Inspection{}
}

// Suspected reports whether the log is to be inspected.
func (i *Inspector) Suspected() bool { return i.suspected.Load() }

// MarkSuspected marks the logs of some partitions, which have one store: they are to be inspected,
// by this worker or the next one on this store. After an error, a restart forgets it.
func MarkSuspected(store materializer.Store, all []*Inspector) error {
	var marked []materializer.Address
	for _, i := range all {
		if _, known, err := i.image.View().Suspected(); err != nil || !known { // a mark may have what was found
			marked = append(marked, i.image.Address)
		}
		i.suspected.Store(true)
	}
	if err := materializer.MarkSuspected(store, "", marked...); err != nil {
		return fmt.Errorf("that the logs must be checked for losses could not be stored, and a restart forgets it: %w", err)
	}
	return nil
}

// Inspect reads the log from its beginning to its end: a claim after the store's position may prove
// a loss before it. The caller passes the finding to Conclude, on the goroutine that changes the
// store. After an error the log is still suspected.
func (i *Inspector) Inspect(ctx context.Context) (Finding, error) {
	done, err := i.image.AwaitRebuild(ctx)
	if err != nil {
		return Finding{}, err
	}
	defer done()
	found := Finding{repairs: i.repairs.Load()}
	i.suspected.Store(false)
	meta, known, err := i.image.View().Meta()
	if err == nil && known && meta.Next > 0 && meta.TopicID == i.image.TopicID {
		found.Damage, err = i.lookThrough(ctx, &meta)
	}
	if err != nil {
		i.suspected.Store(true)
		i.progress(0, meta.Next, err)
	}
	return found, err
}

func (i *Inspector) lookThrough(ctx context.Context, meta *materializer.Meta) (damage, err error) {
	i.progress(0, meta.Next, nil)
	end, err := i.image.End(ctx)
	if err != nil {
		return nil, err
	}
	loss, err := i.image.Losses(ctx, meta, end, func(at int64) { i.progress(at, end, nil) })
	if loss != nil {
		damage = fmt.Errorf("the store of this worker has everything below offset %d, and its log has not: %w. It serves; "+
			"no other worker can take the partition over: keep this store, and find out who changed the topic", meta.Next, loss)
	}
	return damage, err
}

// progress publishes the progress of an inspection. What an earlier one has found stays until this
// one is over.
func (i *Inspector) progress(next, until int64, failed error) {
	i.last.Store(&Inspection{Next: next, Until: until, Failed: failed, Damage: i.Last().Damage})
}

// Conclude takes the result of an inspection and writes it to the store, so that a restart does not
// forget it. A result that a repair has made out of date is dropped. It calls alarm with what an
// operator should look at.
func (i *Inspector) Conclude(found Finding, alarm func(what string)) {
	if found.repairs != i.repairs.Load() {
		i.last.Store(nil)
		return
	}
	var err error
	if found.Damage == nil {
		err = materializer.ClearSuspected(i.image.Store, i.image.Address)
	} else {
		alarm(found.Damage.Error())
		err = materializer.MarkSuspected(i.image.Store, found.Damage.Error(), i.image.Address)
	}
	if err != nil {
		alarm("what the check of the log has found could not be stored: " + err.Error())
	}
	last := i.Last()
	i.last.Store(&Inspection{Next: last.Next, Until: last.Until, Damage: found.Damage, Over: true})
}

// Forget drops what was found, because a repair has read the log since.
func (i *Inspector) Forget() {
	i.repairs.Add(1)
	i.suspected.Store(false)
	i.last.Store(nil)
}

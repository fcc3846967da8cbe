package partitions

import (
	"context"
	"fmt"

	"github.com/millrace-io/millrace/materializer"
)

// This file looks for losses where nothing else looks: in the part of the log that a store was folded from. The store has what was
// there, so that its worker serves rightly; but no other worker can fold that log.

// Inspection is how far a look through the log is, and what was found.
type Inspection struct {
	// Next is where it stands, and Until where it ends.
	Next, Until int64
	Over        bool
	// Damage says what the log has lost of what the store has; nil: nothing, as far as was read.
	Damage error
	// Failed says why the log could not be read. It is tried again.
	Failed error
}

// suspectLog asks for an inspection. It does not wait.
func (m *Manager) suspectLog() {
	select {
	case m.suspected <- struct{}{}:
	default: // it is asked for already
	}
}

// inspectLogs reads the logs of all partitions that the store has, one after the other, whenever they are suspected, until ctx ends.
// Partitions are owned and followed meanwhile: what they fold themselves, they look at themselves.
func (m *Manager) inspectLogs(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.suspected:
		}
		failed := false
		for _, p := range m.partitions {
			failed = p.inspect(ctx) != nil || failed
		}
		if !failed {
			continue
		}
		again, stop := m.options.Clock.After(m.options.ContractEvery)
		select {
		case <-ctx.Done():
			stop()
			return
		case <-again:
			m.suspectLog()
		}
	}
}

// inspect looks at the log from its beginning to its end: what is lost before the store's position may be proved by a claim behind.
func (p *Partition) inspect(ctx context.Context) error {
	select {
	case p.rebuilds <- struct{}{}:
		defer func() { <-p.rebuilds }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	meta, known, err := p.view().Meta()
	if err != nil || !known || meta.Next == 0 || meta.TopicID != p.topicID {
		return err
	}
	p.inspection.Store(&Inspection{Until: meta.Next})
	damage, err := p.losses(ctx, &meta)
	i := *p.inspection.Load()
	i.Damage, i.Failed, i.Over = damage, err, err == nil
	p.inspection.Store(&i)
	if i.Damage != nil {
		p.post(input{kind: inDamaged, fail: i.Damage})
	}
	return i.Failed
}

// losses returns what the log has lost that a store was folded from; err says that it could not be read.
func (p *Partition) losses(ctx context.Context, meta *materializer.Meta) (damage, err error) {
	start, err := p.log.Start(ctx, p.journal)
	if err != nil {
		return nil, fmt.Errorf("ask for the start of %s: %w", p.address, err)
	}
	if start > meta.Start {
		return errDamaged(meta.Next, fmt.Errorf("%w: it begins at offset %d", materializer.ErrLost, start)), nil
	}
	end, err := p.log.End(ctx, p.journal)
	if err != nil {
		return nil, fmt.Errorf("ask for the end of %s: %w", p.address, err)
	}
	reader, err := p.log.Read(p.journal, meta.Start)
	if err != nil {
		return nil, fmt.Errorf("read %s from offset %d: %w", p.address, meta.Start, err)
	}
	defer reader.Close() //nolint:errcheck // only read
	fold := materializer.NewFold(p.address, p.topicID, materializer.MetaFrom(p.topicID, meta.Start))
	found, err := materializer.Inspect(ctx, reader, fold, end, func(at int64) { p.inspection.Store(&Inspection{Next: at, Until: end}) })
	if found.Loss != nil {
		return errDamaged(meta.Next, found.Loss), nil
	}
	return nil, err
}

func errDamaged(next int64, loss error) error {
	return fmt.Errorf("the store of this worker has everything below offset %d, and its log has not: %w. It serves; "+
		"no other worker can take the partition over: keep this store, and see who changed the topic", next, loss)
}

package partitions

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/internal/mutation"
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

// suspectLogs marks the logs of all partitions of which the store has something: they are to be looked through, by this worker or the
// next one on this store, when the topic is as it must be again.
func (m *Manager) suspectLogs() {
	var marked []materializer.Address
	for _, p := range m.partitions {
		if _, known, err := p.view().Suspected(); err != nil || !known { // a mark may have what was found
			marked = append(marked, p.address)
		}
		p.suspected.Store(true)
	}
	if err := materializer.MarkSuspected(m.options.Store, "", marked...); err != nil {
		m.partitions[0].post(input{kind: inAlarm, fail: fmt.Errorf("that the logs are to be looked through for losses could not be written down, so that a restart forgets it: %w", err)})
	}
}

// readSuspicion takes up what an earlier worker on this store suspected or found, and returns whether it did.
func (p *Partition) readSuspicion() bool {
	damage, known, err := p.view().Suspected()
	if err != nil || !known || mutation.On(mutation.Suspicion) { // a store that cannot be read is found out about where it matters
		return false
	}
	p.suspected.Store(true)
	if damage != "" {
		p.inspection.Store(&Inspection{Damage: errors.New(damage)})
	}
	return true
}

// inspectSuspected asks for a look through the logs that are suspected. It does not wait.
func (m *Manager) inspectSuspected() {
	select {
	case m.toInspect <- struct{}{}:
	default: // it is asked for already
	}
}

// inspectLogs reads the logs that are suspected, one after the other, whenever that is asked for, until ctx ends.
// Partitions are owned and followed meanwhile: what they fold themselves, they look at themselves.
func (m *Manager) inspectLogs(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.toInspect:
		}
		failed := false
		for _, p := range m.partitions {
			failed = p.suspected.Load() && p.inspect(ctx) != nil || failed
		}
		if !failed {
			continue
		}
		again, stop := m.options.Clock.After(m.options.Limits.ContractCheck)
		select {
		case <-ctx.Done():
			stop()
			return
		case <-again:
			m.inspectSuspected()
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
	repairs := p.repairs.Load()
	p.suspected.Store(false)
	meta, known, err := p.view().Meta()
	var damage error
	if err == nil && known && meta.Next > 0 && meta.TopicID == p.topicID {
		damage, err = p.lookThrough(ctx, &meta)
	}
	if err != nil {
		p.suspected.Store(true)
		p.looksAt(0, meta.Next, err)
		return err
	}
	p.post(input{kind: inInspected, fail: damage, incarnation: repairs})
	return nil
}

func (p *Partition) lookThrough(ctx context.Context, meta *materializer.Meta) (damage, err error) {
	p.looksAt(0, meta.Next, nil)
	end, err := p.log.End(ctx, p.journal)
	if err != nil {
		return nil, fmt.Errorf("ask for the end of %s: %w", p.address, err)
	}
	if damage, err = materializer.Losses(ctx, p.log, p.journal, p.address, meta, end, func(at int64) { p.looksAt(at, end, nil) }); damage != nil {
		damage = errDamaged(meta.Next, damage)
	}
	return damage, err
}

// looksAt shows how far a look is. What an earlier one has found stays until this one is over.
func (p *Partition) looksAt(next, until int64, failed error) {
	i := Inspection{Next: next, Until: until, Failed: failed}
	if was := p.inspection.Load(); was != nil {
		i.Damage = was.Damage
	}
	p.inspection.Store(&i)
}

// inspected takes what a look has found, nil: nothing, and writes it down, so that a restart does not forget it. repairs is how many
// there were when it began.
func (p *Partition) inspected(repairs uint64, damage error) {
	if repairs != p.repairs.Load() {
		p.inspection.Store(nil)
		return
	}
	i := Inspection{Damage: damage, Over: true}
	if was := p.inspection.Load(); was != nil {
		i.Next, i.Until = was.Next, was.Until
	}
	var err error
	if damage == nil {
		err = materializer.ClearSuspected(p.store, p.address)
	} else {
		p.alarm(damage.Error())
		err = materializer.MarkSuspected(p.store, damage.Error(), p.address)
	}
	if err != nil {
		p.alarm("what a look through the log has found could not be written down: " + err.Error())
	}
	p.inspection.Store(&i)
}

// trustLog forgets what was found in a log that a repair has looked at since.
func (p *Partition) trustLog(err error) {
	if err == nil {
		p.repairs.Add(1)
		p.suspected.Store(false)
		p.inspection.Store(nil)
	}
}

func errDamaged(next int64, loss error) error {
	return fmt.Errorf("the store of this worker has everything below offset %d, and its log has not: %w. It serves; "+
		"no other worker can take the partition over: keep this store, and see who changed the topic", next, loss)
}

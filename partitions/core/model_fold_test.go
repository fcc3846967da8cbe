//go:build !race

package core

import (
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
)

// The bounds that the arrays of the model have room for.
const (
	maxOps    = 4
	maxTries  = 3
	maxReads  = 2
	maxEvents = 2
)

// try names one sending of one increment: a client that does not know the outcome of a command
// sends it again under its id.
type try uint8

func tryOf(op, n int) try { return try(op*maxTries + n) }
func (t try) op() int     { return int(t) / maxTries }
func (t try) bit() uint8  { return 1 << (int(t) % maxTries) }
func (t try) number() int { return int(t)%maxTries + 1 }
func (t try) first() bool { return int(t)%maxTries == 0 }

// content is everything about a record that counts, as a key. The same content is the same *logged.
type content struct {
	kind         record.Kind
	epoch, nonce uint64
	index, count uint32
	sequence     uint64
	ordinal      uint64
	try, value   uint8
	hasData      bool
	answer       string
	// what a claim states about the log before it.
	readTo                       uint64
	previousEpoch, previousNonce uint64
}

// logged is a record as it stands in the modelled log and in requests to it. Never changed.
type logged struct {
	content
	env    record.Envelope
	number uint16
}

// records gives equal contents one number each, so that a state is encoded in few bytes.
type records map[content]*logged

func (r records) of(e *materializer.Entry) *logged {
	env := &e.Envelope
	c := content{
		kind: env.Kind, epoch: env.Epoch, nonce: env.Nonce, index: env.Index, count: env.Count,
		sequence: env.Sequence, ordinal: env.Ordinal, answer: string(env.Answer),
	}
	if env.Claim != nil {
		c.readTo, c.previousEpoch, c.previousNonce = env.Claim.ReadTo, env.Claim.PreviousEpoch, env.Claim.PreviousNonce
	}
	if len(e.Value) == 2 {
		c.try, c.value, c.hasData = e.Value[0], e.Value[1], true
	}
	l, known := r[c]
	if !known {
		l = &logged{content: c, env: *env, number: uint16(len(r))}
		r[c] = l
	}
	return l
}

func (l *logged) owner() record.Owner { return record.Owner{Epoch: l.epoch, Nonce: l.nonce} }

// dedup is the stored row of a command id.
type dedup struct {
	known  bool
	offset int64
	answer string
}

// folded is the state that the valid records result in: what materializer.Fold writes into rows,
// for one counter.
type folded struct {
	rule record.Rule
	next int64
	// pending are the records of the open group.
	pending  [maxEvents]*logged
	open     int
	count    uint8
	sequence uint64
	// values are what each increment made of the counter, tries the sendings of it that took
	// effect.
	values [maxOps]uint8
	tries  [maxOps]uint8
	ids    [maxOps]dedup
	// releasedBy is the last owner that released the partition.
	releasedBy record.Owner
	// lost is the first proof that the log has lost records.
	lost string
	// fault is the first thing in the log that no reader should ever find.
	fault string
}

// step folds one record by the real reader rule.
func (f *folded) step(l *logged, offset int64) record.Verdict {
	before := f.rule.Current
	verdict, dropped := f.rule.Step(&l.env)
	if dropped {
		f.open = 0
	}
	if verdict == record.Claimed && f.lost == "" {
		f.lost = before.Broken(l.env.Claim, offset, 0)
	}
	if verdict != record.Void && verdict != record.Claimed && l.owner() == f.releasedBy {
		f.blame("a record of an owner counts behind its release")
	}
	switch verdict {
	case record.Pending:
		f.pending[f.open] = l
		f.open++
	case record.Complete:
		for i := range f.open {
			f.event(f.pending[i], l)
		}
		f.open = 0
		f.event(l, l)
		f.complete(l, offset)
	case record.Control:
		if l.kind == record.Release {
			f.releasedBy = l.owner()
		}
	case record.Void, record.Foreign, record.Claimed:
	}
	f.next = offset + 1
	return verdict
}

func (f *folded) event(l, last *logged) {
	if l.try != last.try {
		f.blame("a group mixes records of two commands")
	}
	if l.kind != record.Event {
		return
	}
	f.sequence++
	if l.sequence != f.sequence {
		f.blame("the events of the entity have a gap")
	}
}

func (f *folded) complete(l *logged, offset int64) {
	f.count++
	t := try(l.try)
	op := t.op()
	if l.value != f.count {
		f.blame("an increment counts that was computed on another state than that before it")
	}
	if f.values[op] == 0 {
		f.values[op] = f.count
	} else if len(l.answer) > 0 {
		f.blame("a command id took effect twice")
	}
	f.tries[op] |= t.bit()
	if len(l.answer) > 0 {
		f.ids[op] = dedup{known: true, offset: offset, answer: l.answer}
	}
}

func (f *folded) blame(what string) {
	if f.fault == "" {
		f.fault = what
	}
}

// read folds the log from where f stands up to an offset.
func (f *folded) read(log []*logged, until int64) {
	for f.next < until {
		f.step(log[f.next], f.next)
	}
}

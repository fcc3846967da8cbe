package fire

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	"github.com/millrace-io/millrace/tests/kit"
)

// writerFaults are those of another writer to the journal: nonsense, forgeries, and the records of
// another owner.
func writerFaults() []fault {
	return []fault{
		{"foreign records", (*world).writeNonsense},
		{"forged records", (*world).writeForgeries},
		{"forged claim", (*world).forgeClaim},
		{"second owner", func(w *world) bool { return w.secondOwner(func(f func()) { f() }) }},
		{"second owner in a pause", func(w *world) bool {
			return w.secondOwner(func(f func()) { w.paused(f) })
		}},
		{"second owner before late appends", func(w *world) bool {
			return w.secondOwner(func(f func()) {
				p := w.kafka.proxy
				before := p.holds.Load()
				p.hold()
				kit.AwaitWithin(w.t, healing, "an append to be held", func() bool { return p.holds.Load() > before })
				f()
				p.heal()
			})
		}},
	}
}

// produce appends one record and returns its offset.
func (w *world) produce(id int32, key, value []byte, header *record.Envelope, raw []byte) int64 {
	w.t.Helper()
	r := &kgo.Record{Topic: topic, Partition: id, Key: key, Value: value}
	if header != nil {
		raw = header.Append(nil)
	}
	if raw != nil {
		r.Headers = []kgo.RecordHeader{{Key: record.HeaderKey, Value: raw}}
	}
	ctx, cancel := context.WithTimeout(w.ctx, healing)
	defer cancel()
	if err := w.kafka.client.ProduceSync(ctx, r).FirstErr(); err != nil {
		w.t.Fatalf("append to partition %d: %v", id, err)
	}
	return r.Offset
}

// noise is up to n random bytes.
func noise(rng *rand.Rand, n int) []byte {
	b := make([]byte, rng.IntN(n+1))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// writeNonsense appends what no worker can have written.
func (w *world) writeNonsense() bool {
	const most = 200
	for range 1 + w.rng.IntN(20) {
		id := w.rng.Int32N(partitions)
		switch w.rng.IntN(3) {
		case 0:
			w.produce(id, noise(w.rng, most), noise(w.rng, most), nil, nil)
		case 1:
			w.produce(id, nil, noise(w.rng, most), nil, noise(w.rng, most))
		default:
			w.produce(id, []byte("cart/x"), nil, nil, append([]byte{record.Version}, noise(w.rng, most)...))
		}
	}
	return true
}

// writeForgeries appends records that look as if a worker had written them, and do not count: of
// owners that there never were, of former ones, claims that come too late, and what was written
// before once more.
func (w *world) writeForgeries() bool {
	w.kafka.follow(w.t)
	written := 0
	for id := range int32(partitions) {
		p := w.kafka.log.part(id)
		owner := p.rule.Current
		if owner.Epoch == 0 {
			continue
		}
		forged := record.Envelope{
			Kind: record.State, TypeURL: stateURL, LogTime: time.Now().UnixNano(),
			Ordinal: p.rule.Ordinal + 1 + w.rng.Uint64N(3),
			Epoch:   owner.Epoch, Nonce: owner.Nonce + 1 + w.rng.Uint64N(5),
		}
		value := binary.AppendUvarint([]byte{1 << 3}, 1<<40) // State{value}
		w.produce(id, []byte("counter/"+w.name+"-3"), value, &forged, nil)
		forged.Epoch, forged.Nonce = owner.Epoch-1, owner.Nonce
		w.produce(id, []byte("counter/"+w.name+"-3"), value, &forged, nil)
		late := record.Envelope{
			Kind: record.Claim, Epoch: owner.Epoch, Nonce: w.rng.Uint64() | 1,
			Claim: &record.ClaimInfo{Worker: "forger"},
		}
		w.produce(id, nil, nil, &late, nil)
		if last := p.last; last != nil {
			w.produce(id, last.Key, last.Value, nil, last.Headers[0].Value)
		}
		written++
	}
	return written > 0
}

// forgeClaim takes a partition away from its owner and does nothing with it. The owner must
// recover.
func (w *world) forgeClaim() bool {
	id := w.rng.Int32N(partitions)
	w.kafka.follow(w.t)
	mine := w.claim(id)
	w.kafka.follow(w.t)
	kit.AwaitWithin(w.t, healing, "the worker to claim again", func() bool {
		w.kafka.follow(w.t)
		return w.kafka.log.part(id).rule.Current.Epoch > mine.Epoch
	})
	return true
}

// claim appends a claim over the present owner.
func (w *world) claim(id int32) record.Owner {
	w.t.Helper()
	p := w.kafka.log.part(id)
	mine := record.Owner{Epoch: p.rule.Current.Epoch + 1, Nonce: w.rng.Uint64() | 1}
	w.produce(id, nil, nil, &record.Envelope{
		Kind: record.Claim, Epoch: mine.Epoch, Nonce: mine.Nonce,
		Claim: &record.ClaimInfo{
			Worker: "second", ReadTo: uint64(p.next), PreviousEpoch: p.rule.Current.Epoch, PreviousNonce: p.rule.Current.Nonce,
		},
	}, nil)
	return mine
}

// stateURL is the type of a counter's state in the log.
const stateURL = "type.googleapis.com/counter.v1.State"

// secondOwner is another worker in short: it claims a partition, reads the log up to its claim, and
// changes one counter as its owner. during runs it while something else is going on. Then many read
// that counter at a time, through the worker, which must not answer from its memory.
func (w *world) secondOwner(during func(func())) bool {
	e, c := w.pool.beginGive(w.rng)
	if e == nil {
		return false
	}
	result := *c
	var looks sync.WaitGroup
	during(func() {
		result.called = w.now()
		result.fate = never
		if w.giveAsOwner(e, &result) {
			result.fate = done
		}
		result.returned = w.now()
		const several = 8
		for i := range several {
			looks.Go(func() { // bounded by callTimeout; waited for below
				at := w.pool.beginLook(e)
				seen := *at
				seen.called = w.now()
				seen.fate = w.call(e, &seen, rand.New(rand.NewPCG(w.seed, uint64(i))))
				seen.returned = w.now()
				w.pool.hand(w.pool.end(e, at, seen))
			})
		}
		w.wait(100 * time.Millisecond) // so that they are under way when the worker goes on
	})
	looks.Wait()
	w.pool.hand(w.pool.end(e, c, result))
	return result.fate == done
}

// giveAsOwner does what an owner does, and reports whether it counts. If it does not, it never
// will: validity does not change.
func (w *world) giveAsOwner(e *entity, c *command) bool {
	id := entities.Partition(e.id, partitions)
	log := w.kafka.log
	w.kafka.follow(w.t)
	mine := w.claim(id)
	w.kafka.follow(w.t)
	t := log.entities[e.name()]
	if log.part(id).rule.Current != mine || t == nil || t.state == nil {
		return false // another owner was faster, or there is nothing to add to
	}
	var state counterv1.State
	if err := proto.Unmarshal(t.state, &state); err != nil {
		w.t.Fatal(err)
	}
	state.Value += weight(c.slot)
	value, err := proto.Marshal(&state)
	if err != nil {
		w.t.Fatal(err)
	}
	w.produce(id, []byte(e.name()), value, &record.Envelope{
		Kind: record.State, Epoch: mine.Epoch, Nonce: mine.Nonce, Ordinal: 1, LogTime: time.Now().UnixNano(),
		TypeURL: stateURL,
	}, nil)
	c.showed = counted(state.GetValue())
	w.kafka.follow(w.t)
	return log.entities[e.name()].set.has(c.slot)
}

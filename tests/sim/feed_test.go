package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/materializer"
)

// feedBytes is so little that consumers fall behind what is in memory.
const feedBytes = 8 << 10

// pullPatience is how long a consumer waits for a log that shows less than its worker has written,
// in the time of the bubble.
const pullPatience = time.Millisecond

// tail is a consumer of one partition in one life of a worker, and what it got.
type tail struct {
	worker    string
	partition int
	feed      *materializer.Feed
	consumer  *materializer.Consumer
	got       []taken
	// typ is the entity type that it names now, "" for every record; before are those that it named
	// until some offset.
	typ    string
	before []named
}

// named are the records of a type below an offset.
type named struct {
	until int64
	typ   string
}

// typesOfCells are the entity types of the simulation; "" stands for every record.
var typesOfCells = []string{"", "cell", "remote"}

func typesNamed(typ string) materializer.Types {
	if typ == "" {
		return materializer.EveryType()
	}
	return materializer.TypesOf(typ)
}

// again replaces the consumer by one that goes on at its position, of another type perhaps.
func (t *tail) again(typ string) {
	old := t.consumer
	at := old.Position()
	t.before = append(t.before, named{at.Next, t.typ})
	t.typ, t.consumer = typ, t.feed.Consume(at, typesNamed(typ))
	old.Close()
}

// names reports whether the consumer named the type of a record when it passed it.
func (t *tail) names(r taken) bool {
	typ := t.typ
	for _, b := range t.before {
		if r.offset < b.until {
			typ = b.typ
			break
		}
	}
	return typ == "" || strings.HasPrefix(r.key, typ+"/")
}

// taken is a record that took effect.
type taken struct {
	offset     int64
	key, value string
}

func (t taken) String() string { return fmt.Sprintf("%d %s %q", t.offset, t.key, t.value) }

// tailAll makes the consumers of a worker.
func (w *world) tailAll(life *worker) {
	for p := range parts {
		feed := life.m.Partitions()[p].Replica().Feed()
		t := &tail{worker: life.name, partition: p, feed: feed}
		t.consumer = feed.Consume(materializer.Meta{}, materializer.EveryType())
		life.tails = append(life.tails, t)
		w.tails = append(w.tails, t)
	}
}

// pull lets some consumers go on. What they do is decided by a random source of their own, so that
// the seeds' stories do not depend on them.
func (w *world) pull() {
	for _, life := range w.workers {
		if life.dead {
			continue
		}
		for _, t := range life.tails {
			if w.lag.IntN(3) > 0 {
				continue
			}
			if w.lag.IntN(20) == 0 {
				t.again(typesOfCells[w.lag.IntN(len(typesOfCells))])
			}
			for range w.lag.IntN(8) {
				if !w.pullOne(t) {
					break
				}
			}
		}
	}
}

// pullOne takes one piece. It returns false if there is none, or the log does not show it.
func (w *world) pullOne(t *tail) bool {
	if next, open := t.feed.Position(); !open || t.consumer.Position().Next >= next {
		return false
	}
	ctx, cancel := context.WithTimeout(w.ctx, pullPatience)
	defer cancel()
	p, err := t.consumer.Next(ctx)
	if end, over := errors.AsType[*materializer.FeedError](err); over {
		if end.Reason == materializer.FeedDiverged {
			w.wrong("the feed of partition %d on %s: %v", t.partition, t.worker, err)
		}
		t.again(t.typ)
		return true
	}
	if err != nil {
		return false
	}
	for e := range p.Effective {
		t.got = append(t.got, taken{e.Offset, string(e.Key), string(e.Value)})
	}
	return true
}

// compareTails compares what consumers got, in this and earlier lives of the workers, with the log.
func (w *world) compareTails() {
	for p := range parts {
		var want []taken
		address := materializer.Address{Generation: 1, Partition: uint16(p)}
		fold := materializer.NewFold(address, topicID(w), materializer.Meta{})
		fold.Observe(func(e *materializer.Entry) {
			want = append(want, taken{e.Offset, string(e.Key), string(e.Value)})
		})
		records := w.log.Records(broker.Partition{Topic: topic, ID: int32(p)})
		for i := range records {
			if _, err := fold.Record(materializer.Discard{}, &records[i]); err != nil {
				w.wrong("fold partition %d from nothing: %v", p, err)
			}
		}
		for _, t := range w.tails {
			if t.partition != p {
				continue
			}
			for w.pullOne(t) {
			}
			at := t.consumer.Position().Next
			var named []taken
			for _, r := range want {
				if r.offset < at && t.names(r) {
					named = append(named, r)
				}
			}
			if !slices.Equal(t.got, named) {
				w.wrong("the consumer of partition %d on %s, at offset %d, has %v; the log has %v", p, t.worker, at, t.got, named)
			}
			w.taken += len(t.got)
		}
		t := w.workers[0].tails[p]
		if next, open := t.feed.Position(); !open || t.consumer.Position().Next != next {
			w.wrong("the consumer of partition %d on its owner is at offset %d, its feed (open: %v) at %d",
				p, t.consumer.Position().Next, open, next)
		}
	}
}

package fire

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities/record"
	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	shopv1 "github.com/millrace-io/millrace/examples/shoppingcart/shop/v1"
	"github.com/millrace-io/millrace/tests/conformance/proto/vemodel"
)

// journal is a log as a reader sees it that knows the reader rule and what the services write.
type journal struct {
	parts map[int32]*part
	// entities is what the valid records of each have, by key.
	entities map[string]*told
	// plain are keys and values of the records of carts, as a reader sees them that knows nothing of
	// millrace.
	plain map[string]bool
	// ids are the commands with an id that took effect.
	ids map[string]bool
	// void and foreign count records that do not count.
	records, void, foreign int
	found                  []violation
}

// part is one partition.
type part struct {
	rule   record.Rule
	parser record.Parser
	next   int64
	group  []entry
	// last is a valid record as it was read, for faults that write it once more.
	last *kgo.Record
}

// entry is one valid record whose group is not complete.
type entry struct {
	key   string
	value []byte
	env   record.Envelope
}

// told is what the log has of an entity.
type told struct {
	contents

	sequence uint64
	// state is the last value of a counter, as it was stored.
	state []byte
}

func newJournal() *journal {
	return &journal{
		parts: map[int32]*part{}, entities: map[string]*told{}, plain: map[string]bool{},
		ids: map[string]bool{},
	}
}

func (j *journal) part(id int32) *part {
	if j.parts[id] == nil {
		j.parts[id] = &part{}
	}
	return j.parts[id]
}

// add reads the next record of a partition.
func (j *journal) add(id int32, offset int64, key, value, header []byte) {
	p := j.part(id)
	if offset != p.next {
		j.name(lostWrite, fmt.Sprintf("partition %d", id), "after offset %d comes %d", p.next-1, offset)
	}
	p.next = offset + 1
	j.records++
	if bytes.HasPrefix(key, []byte("cart/")) {
		j.plain[string(key)+" "+string(value)] = true
	}
	var env record.Envelope
	if p.parser.Parse(header, &env) != nil {
		j.foreign++
		return
	}
	verdict, dropped := p.rule.Step(&env)
	if dropped {
		p.group = nil
	}
	switch verdict {
	case record.Void:
		j.void++
	case record.Pending, record.Complete:
		p.group = append(p.group, entry{string(key), bytes.Clone(value), env})
		p.last = &kgo.Record{
			Key: bytes.Clone(key), Value: bytes.Clone(value),
			Headers: []kgo.RecordHeader{{Key: record.HeaderKey, Value: bytes.Clone(header)}},
		}
		if verdict == record.Complete {
			for i := range p.group {
				j.apply(&p.group[i])
			}
			p.group = nil
		}
	case record.Foreign, record.Claimed, record.Control:
	}
}

// apply takes one valid record.
func (j *journal) apply(e *entry) {
	t := j.entities[e.key]
	if t == nil {
		t = &told{}
		j.entities[e.key] = t
	}
	switch e.env.Kind {
	case record.Event:
		if e.env.Sequence != t.sequence+1 {
			j.name(lostWrite, e.key, "after event %d comes %d", t.sequence, e.env.Sequence)
		}
		t.sequence = e.env.Sequence
		if err := t.event(e.env.TypeURL, e.value); err != nil {
			j.name(phantom, e.key, "event %d: %v", e.env.Sequence, err)
		}
	case record.State:
		if err := t.store(e.key, e.value); err != nil {
			j.name(phantom, e.key, "state: %v", err)
		}
	default:
	}
	if e.env.Kind == record.Answered { // what a forward was answered, kept with the id of the command that forwarded
		return
	}
	if e.env.CommandID != "" && e.env.Index+1 == e.env.Size() {
		if j.ids[e.key+" "+e.env.CommandID] {
			j.name(twice, e.key, "command %s has two outcomes in the log", e.env.CommandID)
		}
		j.ids[e.key+" "+e.env.CommandID] = true
	}
}

// store takes the value of an entity that is replaced as a whole.
func (t *told) store(key string, value []byte) error {
	if strings.HasPrefix(key, "script/") {
		var state vemodel.Persisted
		if err := proto.Unmarshal(value, &state); err != nil {
			return err
		}
		numbers, _, _ := strings.Cut(state.GetValue(), "|")
		t.contents = scripted(numbers)
		return nil
	}
	var state counterv1.State
	if err := proto.Unmarshal(value, &state); err != nil {
		return err
	}
	t.state, t.contents = value, counted(state.GetValue())
	return nil
}

// event applies an event to a cart.
func (t *told) event(typeURL string, value []byte) error {
	switch typeURL[strings.LastIndexByte(typeURL, '/')+1:] {
	case "shop.v1.ItemAdded":
		var e shopv1.ItemAdded
		if err := proto.Unmarshal(value, &e); err != nil {
			return err
		}
		slot, err := strconv.Atoi(e.GetItem().GetItemId())
		if err == nil && slot < slots && t.set.has(slot) {
			t.twice += fmt.Sprintf(" item %d again", slot)
		}
		t.add(e.GetItem().GetItemId(), int64(e.GetItem().GetQuantity()))
	case "shop.v1.ItemRemoved":
		var e shopv1.ItemRemoved
		if err := proto.Unmarshal(value, &e); err != nil {
			return err
		}
		slot, err := strconv.Atoi(e.GetItemId())
		if err != nil || slot < 0 || slot >= slots {
			return fmt.Errorf("item %q is removed", e.GetItemId())
		}
		t.set = t.set.without(slot)
	case "shop.v1.CheckedOut":
		t.closed = true
	default:
		return fmt.Errorf("a %s", typeURL)
	}
	return nil
}

func (j *journal) name(promise, entity, format string, args ...any) {
	j.found = append(j.found, violation{promise, entity, fmt.Sprintf(format, args...)})
}

// compare compares the log with what is known of every entity: what was acknowledged is there,
// under the ownership that counts, and what was denied is not.
func (j *journal) compare(finished map[string]remains) []violation {
	found := j.found
	for name, r := range finished {
		t := j.entities[name]
		if t == nil {
			t = &told{}
		}
		for _, v := range r.compare(name, t.contents) {
			if v.promise == lostWrite { // the worker shows it, and no valid record has it
				v.promise = notOwner
			}
			v.text = "in the log: " + v.text
			found = append(found, v)
		}
		if strings.HasPrefix(name, "cart/") {
			found = append(found, j.missing(name, r.must)...)
		}
	}
	return found
}

// missing are the items of a cart without a record that has the cart's key, and the event as the
// function wrote it.
func (j *journal) missing(name string, items set) (found []violation) {
	for slot := range slots {
		if !items.has(slot) {
			continue
		}
		event, err := proto.Marshal(&shopv1.ItemAdded{Item: &shopv1.Item{ItemId: strconv.Itoa(slot), Quantity: 1}})
		if err != nil || !j.plain[name+" "+string(event)] {
			found = append(found, violation{lostWrite, name, fmt.Sprintf("a plain reader of the log finds no event of item %d (%v)", slot, err)})
		}
	}
	return found
}

package core

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/mutation"
	effectv1 "github.com/millrace-io/millrace/proto/gen/millrace/effect/v1"
	recordv1 "github.com/millrace-io/millrace/proto/gen/millrace/record/v1"
)

// Effects that their targets refuse: the entity that asked is told, or the refusal is kept for an
// operator, or it was said not to matter.
//
//	E10 What the target of an effect refuses leaves a trace. (refused)

const (
	// MaxRefusals is how many refusals a partition keeps for an operator; newer ones take the
	// places of the oldest.
	MaxRefusals = 1000
	// MaxRefusalText bounds the text of a refusal in a record, in bytes.
	MaxRefusalText = 1024
)

// refusal is what a target said about an effect, until a record says so.
type refusal struct {
	delivery *Delivery
	err      *entities.Error
}

// refused takes a target's refusal. A forward whose caller waits is refused to the caller, who was
// answered by now.
func (c *Core) refused(d *Delivery, err *entities.Error, answered bool) {
	d.state = deliveryAnswered
	if d.Effect.IgnoreRefusal || (d.forward && answered) || mutation.On(mutation.Refused) {
		c.outbox.said.Done = append(c.outbox.said.Done, record.Unsigned(d.Offset))
		return
	}
	c.outbox.refusals = append(c.outbox.refusals, refusal{d, err})
	c.settleNow = true // the entity is to know, or the operator
}

// writeRefusal writes a refusal into the open batch: as a command to the entity that asked, in one
// group with the end of the effect, so that it is sent exactly once; or as a record for an
// operator.
func (c *Core) writeRefusal(r refusal) {
	d := r.delivery
	code, text := refusalText(r.err)
	s := settles{done: []uint64{record.Unsigned(d.Offset)}}
	if d.onRefused == "" {
		e := c.control(record.Refused)
		e.Key, e.Value = []byte(d.from.String()), d.Effect.Payload.Value
		e.Envelope.TypeURL, e.Envelope.Refuses = d.Effect.Payload.TypeURL, record.Unsigned(d.Offset)
		e.Envelope.Target = record.EncodeEffect(&d.Effect, "", d.forward)
		e.Envelope.Answer = mustMarshal("refusal", &recordv1.Answer{Code: code, Message: text})
		c.put(e)
		s.kept = append(s.kept, len(c.open.Entries)-1)
		c.open.settles = append(c.open.settles, s)
		return
	}
	told := entities.SideEffect{Target: refusedCommand(d, code, text)}
	at := c.putEffectAndSettle(d.from, &told, &recordv1.Settled{Done: s.done})
	s.told = append(s.told, followUp{entry: at, delivery: &Delivery{Effect: told, from: d.from}})
	c.open.settles = append(c.open.settles, s)
}

// putEffectAndSettle writes an effect, and what it puts an end to, as one group, and returns the
// effect's place in the open batch.
func (c *Core) putEffectAndSettle(from entities.Key, effect *entities.SideEffect, s *recordv1.Settled) int {
	e := c.control(record.Effect)
	e.Key, e.Value = []byte(from.String()), effect.Payload.Value
	e.Envelope.TypeURL, e.Envelope.Target, e.Envelope.Count = effect.Payload.TypeURL, record.EncodeEffect(effect, "", false), 2
	end := c.control(record.Settled)
	end.Value, end.Envelope.Index, end.Envelope.Count = record.EncodeSettled(s), 1, 2
	c.put(e, end)
	return len(c.open.Entries) - 2
}

// refusalText is code and text of a refusal as they are kept.
func refusalText(err *entities.Error) (code int32, text string) {
	code = int32(err.Code) //nolint:gosec // gRPC codes are small
	if code == 0 {
		code = int32(codes.Unknown)
	}
	return code, shortened(err.Message)
}

// shortened is as much of a refusal's text as a record takes.
func shortened(text string) string {
	if n := MaxRefusalText; len(text) > n {
		for n > 0 && !utf8.RuneStart(text[n]) {
			n--
		}
		text = text[:n]
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

// refusedCommand is the command that tells an entity of the refusal of its effect.
func refusedCommand(d *Delivery, code int32, text string) entities.Target {
	service, method, _ := strings.Cut(d.onRefused, "/")
	m := &effectv1.Refused{
		EntityId: d.from.ID, Service: d.Effect.Service, Method: d.Effect.Method, Code: code, Message: text,
		Payload: &anypb.Any{TypeUrl: d.Effect.Payload.TypeURL, Value: d.Effect.Payload.Value},
	}
	return entities.Target{Service: service, Method: method, Payload: entities.Payload{TypeURL: RefusedType, Value: mustMarshal("refused", m)}}
}

// RefusedType is the type URL of a effectv1.Refused.
const RefusedType = "type.googleapis.com/millrace.effect.v1.Refused"

// mustMarshal panics where only text that is not UTF-8 can fail; what reaches records was checked
// for that.
func mustMarshal(what string, m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("encode %s: %v", what, err))
	}
	return b
}

// followUp is an effect that the core itself asks for: entry is its record's place in the batch.
type followUp struct {
	entry    int
	delivery *Delivery
}

// RefusalsLoaded takes the offsets of the refusals that the store keeps, oldest first.
func (c *Core) RefusalsLoaded(offsets []int64) {
	c.outbox.kept = offsets
	c.limitRefusals()
}

// limitRefusals lets the oldest refusals go that are too many.
func (c *Core) limitRefusals() {
	o := &c.outbox
	if n := len(o.kept) - MaxRefusals; n > 0 {
		for _, offset := range o.kept[:n] {
			o.said.Refused = append(o.said.Refused, record.Unsigned(offset))
		}
		o.kept = append([]int64(nil), o.kept[n:]...)
		c.emit(DropRefusals{Count: n})
	}
}

// refusalsCommitted takes what a committed batch says about refusals. The commands that tell of
// them are in the outbox already.
func (c *Core) refusalsCommitted(b *Batch, s *settles) {
	o := &c.outbox
	for _, i := range s.kept {
		o.kept = append(o.kept, b.Entries[i].Offset)
	}
	c.limitRefusals()
}

// ResolveRefusal takes an operator's word about a refusal: it is forgotten, or its message is sent
// once more, as a new effect.
func (c *Core) ResolveRefusal(r *Resolution) {
	o := &c.outbox
	at, found := slices.BinarySearch(o.kept, r.Offset)
	if c.state != Active || !found || r.Again == nil {
		r.Done(false)
		return
	}
	o.kept = slices.Delete(o.kept, at, at+1)
	if r.Drop {
		o.said.Refused = append(o.said.Refused, record.Unsigned(r.Offset))
		o.resolved = append(o.resolved, r)
	} else {
		s := settles{resolved: []*Resolution{r}}
		at := c.putEffectAndSettle(r.Again.from, &r.Again.Effect, &recordv1.Settled{Refused: []uint64{record.Unsigned(r.Offset)}})
		s.told = append(s.told, followUp{entry: at, delivery: r.Again})
		c.open.settles = append(c.open.settles, s)
	}
	c.settleNow = true
}

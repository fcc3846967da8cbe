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

// Effects that their targets refuse: the entity that asked gets a command, or the refusal is kept
// for an operator, or the effect was marked so that refusals do not matter.
//
//	E10 A refusal of an effect by its target leaves a trace. (refused)

const (
	// MaxRefusals is how many refusals a partition keeps for an operator; newer ones replace the
	// oldest.
	MaxRefusals = 1000
	// MaxRefusalText bounds the text of a refusal in a record, in bytes.
	MaxRefusalText = 1024
)

// refusal is a target's refusal of an effect, until it is in a record.
type refusal struct {
	delivery *Delivery
	err      *entities.Error
}

// refused takes a target's refusal. The refusal of a forward goes to its caller, if one waits; it
// has been answered by now.
func (c *Core) refused(d *Delivery, err *entities.Error, answered bool) {
	d.state = deliveryAnswered
	if d.Effect.IgnoreRefusal || (d.forward && answered) || mutation.On(mutation.Refused) {
		c.outbox.results.Done = append(c.outbox.results.Done, record.Unsigned(d.Offset))
		return
	}
	c.outbox.refusals = append(c.outbox.refusals, refusal{d, err})
	c.settleNow = true // the entity or the operator waits for it
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
	effect := entities.SideEffect{Target: refusedCommand(d, code, text)}
	at := c.putEffectAndSettle(d.from, &effect, &recordv1.Settled{Done: s.done})
	s.followUps = append(s.followUps, followUp{entry: at, delivery: &Delivery{Effect: effect, from: d.from}})
	c.open.settles = append(c.open.settles, s)
}

// putEffectAndSettle writes an effect, and the settled record of what it replaces, as one group. It
// returns the effect's place in the open batch.
func (c *Core) putEffectAndSettle(from entities.Key, effect *entities.SideEffect, s *recordv1.Settled) int {
	e := c.control(record.Effect)
	e.Key, e.Value = []byte(from.String()), effect.Payload.Value
	e.Envelope.TypeURL, e.Envelope.Count = effect.Payload.TypeURL, 2
	e.Envelope.Target = record.EncodeEffect(effect, "", false)
	end := c.control(record.Settled)
	end.Value, end.Envelope.Index, end.Envelope.Count = record.EncodeSettled(s), 1, 2
	c.put(e, end)
	return len(c.open.Entries) - 2
}

// refusalText returns code and text of a refusal as they are kept.
func refusalText(err *entities.Error) (code int32, text string) {
	code = int32(err.Code) //nolint:gosec // gRPC codes are small
	if code == 0 {
		code = int32(codes.Unknown)
	}
	return code, shortened(err.Message)
}

// shortened cuts a refusal's text to what a record takes.
func shortened(text string) string {
	if n := MaxRefusalText; len(text) > n {
		for n > 0 && !utf8.RuneStart(text[n]) {
			n--
		}
		text = text[:n]
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

// refusedCommand returns the command that informs an entity of the refusal of its effect.
func refusedCommand(d *Delivery, code int32, text string) entities.Target {
	service, method, _ := strings.Cut(d.onRefused, "/")
	m := &effectv1.Refused{
		EntityId: d.from.ID, Service: d.Effect.Service, Method: d.Effect.Method, Code: code, Message: text,
		Payload: &anypb.Any{TypeUrl: d.Effect.Payload.TypeURL, Value: d.Effect.Payload.Value},
	}
	return entities.Target{
		Service: service, Method: method,
		Payload: entities.Payload{TypeURL: RefusedType, Value: mustMarshal("refused", m)},
	}
}

// RefusedType is the type URL of a effectv1.Refused.
const RefusedType = "type.googleapis.com/millrace.effect.v1.Refused"

// mustMarshal panics on an error. Only text that is not UTF-8 can fail, and text in records was
// checked for that.
func mustMarshal(what string, m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("encode %s: %v", what, err))
	}
	return b
}

// followUp is an effect that the core itself asks for; entry is the place of its record in the
// batch.
type followUp struct {
	entry    int
	delivery *Delivery
}

// RefusalsLoaded takes the offsets of the refusals that the store keeps, oldest first.
func (c *Core) RefusalsLoaded(offsets []int64) {
	c.outbox.kept = offsets
	c.limitRefusals()
}

// limitRefusals drops the oldest refusals when there are too many.
func (c *Core) limitRefusals() {
	o := &c.outbox
	if n := len(o.kept) - MaxRefusals; n > 0 {
		for _, offset := range o.kept[:n] {
			o.results.Refused = append(o.results.Refused, record.Unsigned(offset))
		}
		o.kept = append([]int64(nil), o.kept[n:]...)
		c.emit(DropRefusals{Count: n})
	}
}

// refusalsCommitted applies the part of a committed batch about refusals. The commands that inform
// entities of them are in the outbox already.
func (c *Core) refusalsCommitted(b *Batch, s *settles) {
	o := &c.outbox
	for _, i := range s.kept {
		o.kept = append(o.kept, b.Entries[i].Offset)
	}
	c.limitRefusals()
}

// ResolveRefusal resolves a refusal as an operator chose: it is forgotten, or its message is sent
// once more, as a new effect.
func (c *Core) ResolveRefusal(r *Resolution) {
	o := &c.outbox
	at, found := slices.BinarySearch(o.kept, r.Offset)
	if c.state != Active || !found || r.Again == nil {
		c.report(r, false)
		return
	}
	o.kept = slices.Delete(o.kept, at, at+1)
	if r.Drop {
		o.results.Refused = append(o.results.Refused, record.Unsigned(r.Offset))
		o.resolved = append(o.resolved, r)
	} else {
		s := settles{resolved: []*Resolution{r}}
		done := &recordv1.Settled{Refused: []uint64{record.Unsigned(r.Offset)}}
		at := c.putEffectAndSettle(r.Again.from, &r.Again.Effect, done)
		s.followUps = append(s.followUps, followUp{entry: at, delivery: r.Again})
		c.open.settles = append(c.open.settles, s)
	}
	c.settleNow = true
}

package query

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/millrace-io/millrace/entities"
	projectionv1 "github.com/millrace-io/millrace/proto/gen/millrace/projection/v1"
)

// The fields that responses have in common, see projections/definition.
const (
	rowsField    protowire.Number = 1
	nextField    protowire.Number = 2
	tokenField   protowire.Number = 3
	staleField   protowire.Number = 4
	explainField protowire.Number = 5
	// The frames of a watch, of which a message has one.
	frameUpsert                    = rowsField
	frameDelete                    = nextField
	frameSynced   protowire.Number = 6
	frameBookmark protowire.Number = 7
	frameReset    protowire.Number = 8
	// Of a group, behind its fields.
	countField    protowire.Number = 51
	firstSumField protowire.Number = 52
)

// masked appends the fields of a row that a mask names; all of them for nil.
func masked(buf, row []byte, mask []protoreflect.FieldNumber) ([]byte, error) {
	if mask == nil {
		return append(buf, row...), nil
	}
	err := eachField(row, func(number protowire.Number, _ protowire.Type, _, whole []byte) {
		if _, ok := slices.BinarySearch(mask, number); ok {
			buf = append(buf, whole...)
		}
	})
	return buf, err
}

// appendMessage appends a field with an encoded message.
func appendMessage(buf []byte, number protowire.Number, message []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(buf, number, protowire.BytesType), message)
}

// appendDuration appends a google.protobuf.Duration.
func appendDuration(buf []byte, number protowire.Number, d time.Duration) []byte {
	content := appendWhole(nil, 1, uint64(d/time.Second))    //nolint:gosec // not negative
	content = appendWhole(content, 2, uint64(d%time.Second)) //nolint:gosec // not negative
	return appendMessage(buf, number, content)
}

func appendText(buf []byte, number protowire.Number, text string) []byte {
	if text == "" {
		return buf
	}
	return protowire.AppendString(protowire.AppendTag(buf, number, protowire.BytesType), text)
}

func appendWhole(buf []byte, number protowire.Number, n uint64) []byte {
	if n == 0 {
		return buf
	}
	return protowire.AppendVarint(protowire.AppendTag(buf, number, protowire.VarintType), n)
}

// encodeRows writes rows as the field of a response, with what is looked up.
func (c *call) encodeRows(ctx context.Context, rows [][]byte) ([]byte, error) {
	if err := c.lookUp(ctx, rows); err != nil {
		return nil, err
	}
	var buf []byte
	for _, row := range rows {
		wanted, err := masked(nil, row, c.request.mask)
		if err != nil {
			return nil, err
		}
		buf = appendMessage(buf, rowsField, wanted)
	}
	return buf, nil
}

// finish makes the reply of what is in buf: with token, stale and explain.
func (c *call) finish(buf []byte) (*entities.Reply, error) {
	token := c.token()
	buf = appendText(buf, tokenField, token)
	if c.stale {
		buf = appendWhole(buf, staleField, 1)
	}
	if c.request.explain {
		encoded, err := proto.Marshal(c.explained())
		if err != nil {
			return nil, entities.AsError(err)
		}
		buf = appendMessage(buf, explainField, encoded)
	}
	reply := &entities.Reply{
		Payload: entities.Payload{TypeURL: c.method.outputType, Value: buf}, Token: token,
	}
	if c.dropped.Load() {
		reply.Metadata = entities.Metadata{{Key: entities.SessionDropped, Text: "true"}}
	}
	return reply, nil
}

// explained says how the answer came about.
func (c *call) explained() *projectionv1.Explain {
	e := &projectionv1.Explain{
		Index: c.plan.index, Bounds: c.plan.bounds, Residual: strings.Join(c.plan.residual, " && "),
		EntriesExamined: c.examined, Rows: c.returned,
	}
	for _, p := range c.read {
		e.Partitions = append(e.Partitions, &projectionv1.ExplainPartition{
			Partition: p.partition, Worker: p.at.Worker, Position: p.at.Position,
			Lag: max(p.at.End-p.at.Position, 0), Age: durationpb.New(max(p.at.Age, 0).Truncate(time.Microsecond)),
		})
	}
	return e
}

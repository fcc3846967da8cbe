package peer

import (
	"errors"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/fields"
)

// The frames of a link are the messages of peer.proto, written and read by hand. A test compares
// every byte with what protobuf itself writes.

// The fields of LinkRequest and LinkResponse. Their tags are one byte.
const (
	fieldHello     = 1
	fieldCalls     = 2
	fieldCancels   = 3
	fieldWithdrawn = 4

	fieldWelcome = 1
	fieldAnswers = 2
	fieldLeave   = 3
)

// The fields of the other messages, as in peer.proto.
const (
	callID          = 1
	callService     = 2
	callMethod      = 3
	callEntityType  = 4
	callEntityID    = 5
	callTypeURL     = 6
	callPayload     = 7
	callMetadata    = 8
	callCommandID   = 9
	callPrincipal   = 10
	callConsistency = 11
	callTraceParent = 12
	callSource      = 13
	callHops        = 14
	callTimeout     = 15
	callBound       = 16
	callAfter       = 17

	positionPartition = 1
	positionNext      = 2

	sourceGeneration = 1
	sourcePartition  = 2
	sourceOffset     = 3
	sourceIndex      = 4
	sourceSettled    = 5
	sourceOpen       = 7

	answerID        = 1
	answerTypeURL   = 2
	answerPayload   = 3
	answerMetadata  = 4
	answerToken     = 5
	answerNoPayload = 6
	answerFailure   = 7

	failureReason     = 1
	failureCode       = 2
	failureMessage    = 3
	failureOutcome    = 4
	failureRetryAfter = 5
	failureChecked    = 6
	failureReference  = 7

	entryKey    = 1
	entryText   = 2
	entryBinary = 3
)

// tagWithdrawn takes the place of the tag of a call that is given up while it waits to be sent. It
// is of the same length and wire type, so that a reader passes over the frame like any unknown
// field.
const tagWithdrawn = byte(fieldWithdrawn<<3 | protowire.BytesType)

var errWire = errors.New("not a message of the peer protocol")

// appendCall writes a command as a field of the message before it. Fields with their zero value are
// left out, as protobuf does; the id comes first in every frame, see idOf.
func appendCall(
	b []byte, field protowire.Number, id uint64, cmd *entities.Command, hops int, timeout time.Duration,
) []byte {
	b, at := fields.Begin(b, field)
	b = fields.AppendUint(b, callID, id)
	b = fields.AppendString(b, callService, cmd.Service)
	b = fields.AppendString(b, callMethod, cmd.Method)
	b = fields.AppendString(b, callEntityType, cmd.Key.Type)
	b = fields.AppendString(b, callEntityID, cmd.Key.ID)
	b = fields.AppendString(b, callTypeURL, cmd.Payload.TypeURL)
	b = fields.AppendBytes(b, callPayload, cmd.Payload.Value)
	b = appendMetadata(b, callMetadata, cmd.Metadata)
	b = fields.AppendString(b, callCommandID, cmd.ID)
	b = fields.AppendString(b, callPrincipal, cmd.Principal)
	b = fields.AppendUint(b, callConsistency, uint64(cmd.Consistency))
	b = fields.AppendString(b, callTraceParent, cmd.TraceParent)
	if s := cmd.Source; s != nil {
		var inner int
		b, inner = fields.Begin(b, callSource)
		b = fields.AppendUint(b, sourceGeneration, uint64(s.Generation))
		b = fields.AppendUint(b, sourcePartition, uint64(s.Partition))
		b = fields.AppendUint(b, sourceOffset, uint64(s.Offset)) //nolint:gosec // as protobuf writes an int64
		b = fields.AppendUint(b, sourceIndex, uint64(s.Index))
		b = fields.AppendUint(b, sourceSettled, uint64(s.Settled)) //nolint:gosec // as protobuf writes an int64
		if len(s.Open) > 0 {
			var packed int
			b, packed = fields.Begin(b, sourceOpen)
			for _, offset := range s.Open {
				b = protowire.AppendVarint(b, uint64(offset)) //nolint:gosec // as protobuf writes an int64
			}
			b = fields.End(b, packed)
		}
		b = fields.End(b, inner)
	}
	b = fields.AppendUint(b, callHops, uint64(hops))       //nolint:gosec // counted from 0
	b = fields.AppendUint(b, callTimeout, uint64(timeout)) //nolint:gosec // not negative
	b = fields.AppendUint(b, callBound, uint64(cmd.Bound)) //nolint:gosec // not negative
	for _, p := range cmd.After {
		var inner int
		b, inner = fields.Begin(b, callAfter)
		b = fields.AppendUint(b, positionPartition, uint64(p.Partition)) //nolint:gosec // not negative
		b = fields.AppendUint(b, positionNext, uint64(p.Next))           //nolint:gosec // as protobuf writes an int64
		b = fields.End(b, inner)
	}
	return fields.End(b, at)
}

// appendMetadata writes entries in their order, in which callers may have given a key twice. Text
// and bytes are a oneof: an empty one is written as well.
func appendMetadata(b []byte, field protowire.Number, md entities.Metadata) []byte {
	for i := range md {
		entry, at := fields.Begin(b, field)
		entry = fields.AppendString(entry, entryKey, md[i].Key)
		if md[i].IsBinary {
			entry = protowire.AppendBytes(protowire.AppendTag(entry, entryBinary, protowire.BytesType), md[i].Binary)
		} else {
			entry = protowire.AppendString(protowire.AppendTag(entry, entryText, protowire.BytesType), md[i].Text)
		}
		b = fields.End(entry, at)
	}
	return b
}

// appendCancel writes that the caller of a command has left.
func appendCancel(b []byte, id uint64) []byte {
	b, at := fields.Begin(b, fieldCancels)
	return fields.End(fields.AppendUint(b, callID, id), at)
}

// appendAnswer writes a reply, or a failure where that is not nil.
func appendAnswer(b []byte, field protowire.Number, id uint64, reply *entities.Reply, failure *entities.Error) []byte {
	b, at := fields.Begin(b, field)
	b = fields.AppendUint(b, answerID, id)
	if failure != nil {
		var inner int
		b, inner = fields.Begin(b, answerFailure)
		b = fields.AppendUint(b, failureReason, uint64(failure.Reason))
		b = fields.AppendUint(b, failureCode, uint64(failure.Code))
		b = fields.AppendString(b, failureMessage, failure.Message)
		b = fields.AppendUint(b, failureOutcome, uint64(failure.Outcome))
		b = fields.AppendUint(b, failureRetryAfter, uint64(max(0, failure.RetryAfter)))
		b = fields.AppendBool(b, failureChecked, failure.Checked)
		b = fields.AppendString(b, failureReference, failure.Reference)
		return fields.End(fields.End(b, inner), at)
	}
	b = fields.AppendString(b, answerTypeURL, reply.Payload.TypeURL)
	b = fields.AppendBytes(b, answerPayload, reply.Payload.Value)
	b = appendMetadata(b, answerMetadata, reply.Metadata)
	b = fields.AppendString(b, answerToken, reply.Token)
	b = fields.AppendBool(b, answerNoPayload, reply.NoPayload)
	return fields.End(b, at)
}

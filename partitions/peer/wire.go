package peer

import (
	"errors"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/millrace-io/millrace/entities"
)

// The frames of a link are the messages of peer.proto, written and read by hand: without a message object in between, and
// so that a frame can be appended to the one before it. A test compares every byte with what protobuf itself writes.

// The fields of LinkRequest and LinkResponse. Their tags are one byte.
const (
	fieldHello     = 1
	fieldCalls     = 2
	fieldCancels   = 3
	fieldWithdrawn = 4

	fieldWelcome = 1
	fieldAnswers = 2
	fieldGoodbye = 3
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

	entryKey    = 1
	entryText   = 2
	entryBinary = 3
)

// tagWithdrawn takes the place of the tag of a call that is given up while it waits to be sent.
const tagWithdrawn = byte(fieldWithdrawn<<3 | protowire.BytesType)

var errWire = errors.New("not a message of the peer protocol")

// begin opens a nested message with room for a length of two bytes, which most have. end closes it.
func begin(b []byte, field protowire.Number) ([]byte, int) {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return append(b, 0, 0), len(b)
}

func end(b []byte, at int) []byte {
	n := len(b) - at - 2
	switch width := protowire.SizeVarint(uint64(n)); width { //nolint:gosec // a length
	case 2:
	case 1:
		copy(b[at+1:], b[at+2:])
		b = b[:len(b)-1]
	default:
		var room [8]byte // a length is an int
		b = append(b, room[:width-2]...)
		copy(b[at+width:], b[at+2:at+2+n])
	}
	protowire.AppendVarint(b[:at], uint64(n)) //nolint:gosec // a length
	return b
}

func appendString(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

func appendBytes(b []byte, field protowire.Number, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
}

func appendUint(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

func appendBool(b []byte, field protowire.Number, v bool) []byte {
	if !v {
		return b
	}
	return appendUint(b, field, 1)
}

// appendCall writes a command as a field of the message before it.
func appendCall(b []byte, field protowire.Number, id uint64, cmd *entities.Command, hops int, timeout time.Duration) []byte {
	b, at := begin(b, field)
	b = appendUint(b, callID, id)
	b = appendString(b, callService, cmd.Service)
	b = appendString(b, callMethod, cmd.Method)
	b = appendString(b, callEntityType, cmd.Key.Type)
	b = appendString(b, callEntityID, cmd.Key.ID)
	b = appendString(b, callTypeURL, cmd.Payload.TypeURL)
	b = appendBytes(b, callPayload, cmd.Payload.Value)
	b = appendMetadata(b, callMetadata, cmd.Metadata)
	b = appendString(b, callCommandID, cmd.ID)
	b = appendString(b, callPrincipal, cmd.Principal)
	b = appendUint(b, callConsistency, uint64(cmd.Consistency))
	b = appendString(b, callTraceParent, cmd.TraceParent)
	if s := cmd.Source; s != nil {
		var inner int
		b, inner = begin(b, callSource)
		b = appendUint(b, sourceGeneration, uint64(s.Generation))
		b = appendUint(b, sourcePartition, uint64(s.Partition))
		b = appendUint(b, sourceOffset, uint64(s.Offset)) //nolint:gosec // as protobuf writes an int64
		b = appendUint(b, sourceIndex, uint64(s.Index))
		b = appendUint(b, sourceSettled, uint64(s.Settled)) //nolint:gosec // as protobuf writes an int64
		if len(s.Open) > 0 {
			var packed int
			b, packed = begin(b, sourceOpen)
			for _, offset := range s.Open {
				b = protowire.AppendVarint(b, uint64(offset)) //nolint:gosec // as protobuf writes an int64
			}
			b = end(b, packed)
		}
		b = end(b, inner)
	}
	b = appendUint(b, callHops, uint64(hops))       //nolint:gosec // counted from 0
	b = appendUint(b, callTimeout, uint64(timeout)) //nolint:gosec // not negative
	b = appendUint(b, callBound, uint64(cmd.Bound)) //nolint:gosec // not negative
	for _, p := range cmd.After {
		var inner int
		b, inner = begin(b, callAfter)
		b = appendUint(b, positionPartition, uint64(p.Partition)) //nolint:gosec // not negative
		b = appendUint(b, positionNext, uint64(p.Next))           //nolint:gosec // as protobuf writes an int64
		b = end(b, inner)
	}
	return end(b, at)
}

func appendMetadata(b []byte, field protowire.Number, md entities.Metadata) []byte {
	for i := range md {
		entry, at := begin(b, field)
		entry = appendString(entry, entryKey, md[i].Key)
		if md[i].IsBinary {
			entry = protowire.AppendBytes(protowire.AppendTag(entry, entryBinary, protowire.BytesType), md[i].Binary)
		} else {
			entry = protowire.AppendString(protowire.AppendTag(entry, entryText, protowire.BytesType), md[i].Text)
		}
		b = end(entry, at)
	}
	return b
}

func appendCancel(b []byte, id uint64) []byte {
	b, at := begin(b, fieldCancels)
	return end(appendUint(b, callID, id), at)
}

// appendAnswer writes a reply, or a failure where that is not nil.
func appendAnswer(b []byte, field protowire.Number, id uint64, reply *entities.Reply, failure *entities.Error) []byte {
	b, at := begin(b, field)
	b = appendUint(b, answerID, id)
	if failure != nil {
		var inner int
		b, inner = begin(b, answerFailure)
		b = appendUint(b, failureReason, uint64(failure.Reason))
		b = appendUint(b, failureCode, uint64(failure.Code))
		b = appendString(b, failureMessage, failure.Message)
		b = appendUint(b, failureOutcome, uint64(failure.Outcome))
		b = appendUint(b, failureRetryAfter, uint64(max(0, failure.RetryAfter)))
		b = appendBool(b, failureChecked, failure.Checked)
		return end(end(b, inner), at)
	}
	b = appendString(b, answerTypeURL, reply.Payload.TypeURL)
	b = appendBytes(b, answerPayload, reply.Payload.Value)
	b = appendMetadata(b, answerMetadata, reply.Metadata)
	b = appendString(b, answerToken, reply.Token)
	b = appendBool(b, answerNoPayload, reply.NoPayload)
	return end(b, at)
}

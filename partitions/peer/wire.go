package peer

import (
	"errors"
	"fmt"
	"math"
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

	sourceGeneration = 1
	sourcePartition  = 2
	sourceOffset     = 3
	sourceIndex      = 4
	sourceSettled    = 5

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
	switch width := protowire.SizeVarint(uint64(n)); width {
	case 2:
	case 1:
		copy(b[at+1:], b[at+2:])
		b = b[:len(b)-1]
	default:
		var room [8]byte // a length is an int
		b = append(b, room[:width-2]...)
		copy(b[at+width:], b[at+2:at+2+n])
	}
	protowire.AppendVarint(b[:at], uint64(n))
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
		b = end(b, inner)
	}
	b = appendUint(b, callHops, uint64(hops))       //nolint:gosec // counted from 0
	b = appendUint(b, callTimeout, uint64(timeout)) //nolint:gosec // not negative
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
		b = appendUint(b, failureRetryAfter, uint64(max(0, failure.RetryAfter))) //nolint:gosec // not negative
		return end(end(b, inner), at)
	}
	b = appendString(b, answerTypeURL, reply.Payload.TypeURL)
	b = appendBytes(b, answerPayload, reply.Payload.Value)
	b = appendMetadata(b, answerMetadata, reply.Metadata)
	b = appendString(b, answerToken, reply.Token)
	b = appendBool(b, answerNoPayload, reply.NoPayload)
	return end(b, at)
}

// fields reads a message field by field: number is that of the present one, n its value if it is a number, s if it is not.
type fields struct {
	rest   []byte
	number protowire.Number
	n      uint64
	s      []byte
	err    error
}

// next goes on to the next field; false at the end and where the bytes are no message.
func (f *fields) next() bool {
	if len(f.rest) == 0 || f.err != nil {
		return false
	}
	number, kind, size := protowire.ConsumeTag(f.rest)
	if size < 0 {
		return f.fail(size)
	}
	f.number, f.n, f.s = number, 0, nil
	value := f.rest[size:]
	switch kind {
	case protowire.VarintType:
		f.n, size = protowire.ConsumeVarint(value)
	case protowire.BytesType:
		f.s, size = protowire.ConsumeBytes(value)
	default: // a field that this version does not know
		f.number = 0
		size = protowire.ConsumeFieldValue(number, kind, value)
	}
	if size < 0 {
		return f.fail(size)
	}
	f.rest = value[size:]
	return true
}

func (f *fields) fail(code int) bool {
	f.err = fmt.Errorf("%w: %w", errWire, protowire.ParseError(code))
	return false
}

// names keeps strings that come again and again, such as those of methods. It belongs to one reader.
type names map[string]string

const (
	maxNames     = 1024
	maxNameBytes = 256
)

func (n names) of(b []byte) string {
	if s, known := n[string(b)]; known {
		return s
	}
	s := string(b)
	if len(n) < maxNames && len(s) <= maxNameBytes {
		n[s] = s
	}
	return s
}

// received is a command as it came from another worker.
type received struct {
	id      uint64
	target  entities.Target
	key     entities.Key
	command entities.Command // what does not come from the target
	hops    int
	timeout time.Duration
}

// parse reads a Call. What it keeps it copies.
func (r *received) parse(b []byte, known names) error {
	*r = received{}
	f := fields{rest: b}
	for f.next() {
		switch f.number {
		case callID:
			r.id = f.n
		case callService:
			r.target.Service = known.of(f.s)
		case callMethod:
			r.target.Method = known.of(f.s)
		case callEntityType:
			r.key.Type = known.of(f.s)
		case callEntityID:
			r.key.ID = string(f.s)
		case callTypeURL:
			r.target.Payload.TypeURL = known.of(f.s)
		case callPayload:
			r.target.Payload.Value = append([]byte(nil), f.s...)
		case callMetadata:
			entry, err := parseEntry(f.s, known)
			if err != nil {
				return err
			}
			r.target.Metadata = append(r.target.Metadata, entry)
		case callCommandID:
			r.command.ID = string(f.s)
		case callPrincipal:
			r.command.Principal = string(f.s)
		case callConsistency:
			if f.n > uint64(entities.Local) {
				return fmt.Errorf("%w: consistency %d", errWire, f.n)
			}
			r.command.Consistency = entities.Consistency(f.n)
		case callTraceParent:
			r.command.TraceParent = string(f.s)
		case callSource:
			source, err := parseSource(f.s)
			if err != nil {
				return err
			}
			r.command.Source = source
		case callHops:
			r.hops = int(min(f.n, math.MaxInt32)) //nolint:gosec // bounded
		case callTimeout:
			r.timeout = time.Duration(min(f.n, math.MaxInt64)) //nolint:gosec // bounded
		}
	}
	return f.err
}

func parseSource(b []byte) (*entities.Source, error) {
	s := &entities.Source{}
	f := fields{rest: b}
	for f.next() {
		switch f.number {
		case sourceGeneration:
			if f.n > math.MaxUint16 {
				return nil, fmt.Errorf("%w: generation %d", errWire, f.n)
			}
			s.Generation = uint16(f.n) //nolint:gosec // checked
		case sourcePartition:
			if f.n > math.MaxUint16 {
				return nil, fmt.Errorf("%w: partition %d", errWire, f.n)
			}
			s.Partition = uint16(f.n) //nolint:gosec // checked
		case sourceOffset:
			s.Offset = int64(f.n) //nolint:gosec // as protobuf reads an int64
		case sourceIndex:
			if f.n > math.MaxUint32 {
				return nil, fmt.Errorf("%w: index %d", errWire, f.n)
			}
			s.Index = uint32(f.n) //nolint:gosec // checked
		case sourceSettled:
			s.Settled = int64(f.n) //nolint:gosec // as protobuf reads an int64
		}
	}
	return s, f.err
}

func parseEntry(b []byte, known names) (entities.MetadataEntry, error) {
	var e entities.MetadataEntry
	f := fields{rest: b}
	for f.next() {
		switch f.number {
		case entryKey:
			e.Key = known.of(f.s)
		case entryText:
			e.Text, e.Binary, e.IsBinary = string(f.s), nil, false
		case entryBinary:
			e.Text, e.Binary, e.IsBinary = "", append([]byte(nil), f.s...), true
		}
	}
	return e, f.err
}

// parseAnswer reads an Answer. What it keeps it copies.
func parseAnswer(b []byte, known names, reply *entities.Reply) (failure *entities.Error, err error) {
	f := fields{rest: b}
	for f.next() {
		switch f.number {
		case answerTypeURL:
			reply.Payload.TypeURL = known.of(f.s)
		case answerPayload:
			reply.Payload.Value = append([]byte(nil), f.s...)
		case answerMetadata:
			entry, err := parseEntry(f.s, known)
			if err != nil {
				return nil, err
			}
			reply.Metadata = append(reply.Metadata, entry)
		case answerToken:
			reply.Token = string(f.s)
		case answerNoPayload:
			reply.NoPayload = f.n != 0
		case answerFailure:
			if failure, err = parseFailure(f.s); err != nil {
				return nil, err
			}
		}
	}
	return failure, f.err
}

func parseFailure(b []byte) (*entities.Error, error) {
	e := &entities.Error{}
	var reason, outcome uint64
	f := fields{rest: b}
	for f.next() {
		switch f.number {
		case failureReason:
			reason = f.n
		case failureCode:
			e.Code = uint32(min(f.n, math.MaxUint32)) //nolint:gosec // bounded
		case failureMessage:
			e.Message = string(f.s)
		case failureOutcome:
			outcome = f.n
		case failureRetryAfter:
			e.RetryAfter = time.Duration(min(f.n, math.MaxInt64)) //nolint:gosec // bounded
		}
	}
	setReason(e, reason, outcome)
	return e, f.err
}

// setReason takes what this version does not know for the worst that it can mean.
func setReason(e *entities.Error, reason, outcome uint64) {
	e.Reason, e.Outcome = entities.Internal, entities.Unknown
	if reason <= uint64(entities.Internal) {
		e.Reason = entities.Reason(reason)
	}
	if outcome <= uint64(entities.Unknown) {
		e.Outcome = entities.OutcomeClass(outcome)
	}
}

// idOf finds the id of a Call, a Cancel or an Answer, in all of which it is the first field.
func idOf(b []byte) (uint64, error) {
	f := fields{rest: b}
	for f.next() {
		if f.number == callID {
			return f.n, nil
		}
	}
	if f.err != nil {
		return 0, f.err
	}
	return 0, fmt.Errorf("%w: a frame without an id", errWire)
}

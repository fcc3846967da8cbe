package peer

import (
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/millrace-io/millrace/entities"
)

// This file reads what wire.go writes.

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
			if f.n > uint64(entities.AtLeast) {
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
			r.hops = int(min(f.n, math.MaxInt32))
		case callTimeout:
			r.timeout = time.Duration(min(f.n, math.MaxInt64))
		case callBound:
			r.command.Bound = time.Duration(min(f.n, math.MaxInt64))
		case callAfter:
			position, err := parsePosition(f.s)
			if err != nil {
				return err
			}
			r.command.After = append(r.command.After, position)
		}
	}
	return f.err
}

func parsePosition(b []byte) (entities.Position, error) {
	var p entities.Position
	f := fields{rest: b}
	for f.next() {
		switch f.number {
		case positionPartition:
			if f.n > math.MaxInt32 {
				return p, fmt.Errorf("%w: partition %d", errWire, f.n)
			}
			p.Partition = int32(f.n)
		case positionNext:
			p.Next = int64(f.n) //nolint:gosec // as protobuf reads an int64
		}
	}
	return p, f.err
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
			s.Generation = uint16(f.n)
		case sourcePartition:
			if f.n > math.MaxUint16 {
				return nil, fmt.Errorf("%w: partition %d", errWire, f.n)
			}
			s.Partition = uint16(f.n)
		case sourceOffset:
			s.Offset = int64(f.n) //nolint:gosec // as protobuf reads an int64
		case sourceIndex:
			if f.n > math.MaxUint32 {
				return nil, fmt.Errorf("%w: index %d", errWire, f.n)
			}
			s.Index = uint32(f.n)
		case sourceSettled:
			s.Settled = int64(f.n) //nolint:gosec // as protobuf reads an int64
		case sourceOpen:
			if err := parseOpen(s, f.s); err != nil {
				return nil, err
			}
		}
	}
	return s, f.err
}

// parseOpen reads the exceptions of a source's progress.
func parseOpen(s *entities.Source, packed []byte) error {
	for len(packed) > 0 {
		v, n := protowire.ConsumeVarint(packed)
		last := len(s.Open) - 1
		if n < 0 || len(s.Open) == entities.MaxOpen || (last >= 0 && int64(v) <= s.Open[last]) { //nolint:gosec // as protobuf reads an int64
			return fmt.Errorf("%w: open effects of a source", errWire)
		}
		s.Open, packed = append(s.Open, int64(v)), packed[n:] //nolint:gosec // as protobuf reads an int64
	}
	return nil
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
			e.Code = uint32(min(f.n, math.MaxUint32))
		case failureMessage:
			e.Message = string(f.s)
		case failureOutcome:
			outcome = f.n
		case failureRetryAfter:
			e.RetryAfter = time.Duration(min(f.n, math.MaxInt64))
		case failureChecked:
			e.Checked = f.n != 0
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
	if outcome <= uint64(entities.Applied) {
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

package peer

import (
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/fields"
)

// This file reads what wire.go writes.

// names keeps strings that repeat, such as those of methods, so that each of them is allocated once
// for a link. It belongs to one reader. What another process sends bounds nothing here, so the
// number and the size of what is kept are bounded.
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

// received is a command from another worker.
type received struct {
	id      uint64
	target  entities.Target
	key     entities.Key
	command entities.Command // the fields that do not come from the target
	hops    int
	timeout time.Duration
}

// parse reads a Call. It copies what it keeps.
func (r *received) parse(b []byte, known names) error {
	*r = received{}
	f := fields.Of(b, errWire)
	for f.Next() {
		switch f.Number {
		case callID:
			r.id = f.N
		case callService:
			r.target.Service = known.of(f.B)
		case callMethod:
			r.target.Method = known.of(f.B)
		case callEntityType:
			r.key.Type = known.of(f.B)
		case callEntityID:
			r.key.ID = string(f.B)
		case callTypeURL:
			r.target.Payload.TypeURL = known.of(f.B)
		case callPayload:
			r.target.Payload.Value = append([]byte(nil), f.B...)
		case callMetadata:
			entry, err := parseEntry(f.B, known)
			if err != nil {
				return err
			}
			r.target.Metadata = append(r.target.Metadata, entry)
		case callCommandID:
			r.command.ID = string(f.B)
		case callPrincipal:
			r.command.Principal = string(f.B)
		case callConsistency:
			if f.N > uint64(entities.AtLeast) {
				return fmt.Errorf("%w: consistency %d", errWire, f.N)
			}
			r.command.Consistency = entities.Consistency(f.N)
		case callTraceParent:
			r.command.TraceParent = string(f.B)
		case callSource:
			source, err := parseSource(f.B)
			if err != nil {
				return err
			}
			r.command.Source = source
		case callHops:
			r.hops = int(min(f.N, math.MaxInt32))
		case callTimeout:
			r.timeout = time.Duration(min(f.N, math.MaxInt64))
		case callBound:
			r.command.Bound = time.Duration(min(f.N, math.MaxInt64))
		case callAfter:
			position, err := parsePosition(f.B)
			if err != nil {
				return err
			}
			r.command.After = append(r.command.After, position)
		}
	}
	return f.Err
}

// parsePosition reads one position of a token that the command brings.
func parsePosition(b []byte) (entities.Position, error) {
	var p entities.Position
	f := fields.Of(b, errWire)
	for f.Next() {
		switch f.Number {
		case positionPartition:
			if f.N > math.MaxInt32 {
				return p, fmt.Errorf("%w: partition %d", errWire, f.N)
			}
			p.Partition = int32(f.N)
		case positionNext:
			p.Next = int64(f.N) //nolint:gosec // as protobuf reads an int64
		}
	}
	return p, f.Err
}

// parseSource reads the address of the effect that the command is. Numbers that an address cannot
// have are refused rather than cut: another effect could have the address that remains.
func parseSource(b []byte) (*entities.Source, error) {
	s := &entities.Source{}
	f := fields.Of(b, errWire)
	for f.Next() {
		switch f.Number {
		case sourceGeneration:
			if f.N > math.MaxUint16 {
				return nil, fmt.Errorf("%w: generation %d", errWire, f.N)
			}
			s.Generation = uint16(f.N)
		case sourcePartition:
			if f.N > math.MaxUint16 {
				return nil, fmt.Errorf("%w: partition %d", errWire, f.N)
			}
			s.Partition = uint16(f.N)
		case sourceOffset:
			s.Offset = int64(f.N) //nolint:gosec // as protobuf reads an int64
		case sourceIndex:
			if f.N > math.MaxUint32 {
				return nil, fmt.Errorf("%w: index %d", errWire, f.N)
			}
			s.Index = uint32(f.N)
		case sourceSettled:
			s.Settled = int64(f.N) //nolint:gosec // as protobuf reads an int64
		case sourceOpen:
			if err := parseOpen(s, f.B); err != nil {
				return nil, err
			}
		}
	}
	return s, f.Err
}

// parseOpen reads the exceptions of a source's progress: offsets that rise, entities.MaxOpen at
// most.
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
	f := fields.Of(b, errWire)
	for f.Next() {
		switch f.Number {
		case entryKey:
			e.Key = known.of(f.B)
		case entryText:
			e.Text, e.Binary, e.IsBinary = string(f.B), nil, false
		case entryBinary:
			e.Text, e.Binary, e.IsBinary = "", append([]byte(nil), f.B...), true
		}
	}
	return e, f.Err
}

// parseAnswer reads an Answer. It copies what it keeps.
func parseAnswer(b []byte, known names, reply *entities.Reply) (failure *entities.Error, err error) {
	f := fields.Of(b, errWire)
	for f.Next() {
		switch f.Number {
		case answerTypeURL:
			reply.Payload.TypeURL = known.of(f.B)
		case answerPayload:
			reply.Payload.Value = append([]byte(nil), f.B...)
		case answerMetadata:
			entry, err := parseEntry(f.B, known)
			if err != nil {
				return nil, err
			}
			reply.Metadata = append(reply.Metadata, entry)
		case answerToken:
			reply.Token = string(f.B)
		case answerNoPayload:
			reply.NoPayload = f.N != 0
		case answerFailure:
			if failure, err = parseFailure(f.B); err != nil {
				return nil, err
			}
		}
	}
	return failure, f.Err
}

// parseFailure reads an error as the other worker returned it, whose outcome holds for the command.
func parseFailure(b []byte) (*entities.Error, error) {
	e := &entities.Error{}
	var reason, outcome uint64
	f := fields.Of(b, errWire)
	for f.Next() {
		switch f.Number {
		case failureReason:
			reason = f.N
		case failureCode:
			e.Code = uint32(min(f.N, math.MaxUint32))
		case failureMessage:
			e.Message = string(f.B)
		case failureOutcome:
			outcome = f.N
		case failureRetryAfter:
			e.RetryAfter = time.Duration(min(f.N, math.MaxInt64))
		case failureChecked:
			e.Checked = f.N != 0
		case failureReference:
			e.Reference = string(f.B)
		}
	}
	setReason(e, reason, outcome)
	return e, f.Err
}

// setReason replaces reasons and outcomes that this version does not know by the worst that they
// can mean: that the command may have taken effect.
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
	f := fields.Of(b, errWire)
	for f.Next() {
		if f.Number == callID {
			return f.N, nil
		}
	}
	if f.Err != nil {
		return 0, f.Err
	}
	return 0, fmt.Errorf("%w: a frame without an id", errWire)
}

package record

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/millrace-io/millrace/entities"
	recordv1 "github.com/millrace-io/millrace/proto/gen/millrace/record/v1"
)

// HeaderKey is the name of the one header that carries the envelope.
const HeaderKey = "mr"

// Version is the first byte of every envelope that this package writes.
const Version = 1

// Kind says what a record is.
type Kind = recordv1.Kind

// The kinds that this version writes or reads. Others are kept for later and skipped by the fold with an error that names
// them.
const (
	Event    = recordv1.Kind_KIND_EVENT
	State    = recordv1.Kind_KIND_STATE
	Delete   = recordv1.Kind_KIND_DELETE
	Snapshot = recordv1.Kind_KIND_SNAPSHOT
	Effect   = recordv1.Kind_KIND_EFFECT
	Settled  = recordv1.Kind_KIND_SETTLED

	TimerSet       = recordv1.Kind_KIND_TIMER_SET
	TimerCancelled = recordv1.Kind_KIND_TIMER_CANCELLED
	TimerFired     = recordv1.Kind_KIND_TIMER_FIRED

	Claim   = recordv1.Kind_KIND_CLAIM
	Barrier = recordv1.Kind_KIND_BARRIER
	Release = recordv1.Kind_KIND_RELEASE

	Answered = recordv1.Kind_KIND_ANSWERED
	Refused  = recordv1.Kind_KIND_REFUSED
)

// Errors of Parse. A record that cannot be parsed is foreign: rule R4.
var (
	// ErrNoEnvelope: the record has no header mr.
	ErrNoEnvelope = errors.New("record has no envelope")
	// ErrVersion: the envelope was written by a newer version.
	ErrVersion = errors.New("envelope version is not known")
	// ErrMalformed: the envelope's bytes make no sense.
	ErrMalformed = errors.New("envelope is malformed")
)

// Envelope is what a record says beside its value. The zero value of a field is an absent field.
type Envelope struct {
	Kind Kind
	// Epoch and Nonce name the ownership under which it was written.
	Epoch, Nonce uint64
	// LogTime is in nanoseconds since the Unix epoch, by the log's own clock.
	LogTime int64
	// Index and Count place it in the group of its command; Count 0 means 1.
	Index, Count uint32
	// Sequence is that of the event, or of the last event that a snapshot covers.
	Sequence uint64
	TypeURL  string
	// PreviousSnapshot is the sequence of the snapshot that this one replaces.
	PreviousSnapshot uint64
	// Ordinal counts the records of the ownership from 1. A claim has none.
	Ordinal uint64

	CommandID   string
	Principal   string
	PayloadHash uint64
	// Answer is an encoded millrace.record.v1.Answer.
	Answer        []byte
	Cause         *Cause
	CorrelationID string
	TraceParent   string
	Claim         *ClaimInfo
	// Target is an encoded millrace.record.v1.Target, Timer an encoded millrace.record.v1.Timer.
	Target, Timer []byte
	// Restores is the offset at which the log had the record for which this one stands, since a repair; 0: it stands for itself.
	Restores uint64
	// Refuses is, of a refused record, the offset of the effect; Answer then has code and text of the refusal.
	Refuses uint64
}

// Address returns the offset by which a record at offset is known: to the targets of its effects, and to those who repeat its
// command. Only what a repair wrote again has another one than its own.
func (e *Envelope) Address(offset int64) int64 {
	if e.Restores > 0 {
		return int64(e.Restores) //nolint:gosec // offsets are positive
	}
	return offset
}

// Cause is the record or command that a record follows from.
type Cause struct {
	Generation, Partition uint32
	Offset                uint64
	Index                 uint32
	CommandID             string
	// Settled is the offset below which every entry of the cause's outbox is done, except those in
	// Open, which are in ascending order.
	Settled uint64
	Open    []uint64
}

// ClaimInfo is the content of a claim.
type ClaimInfo struct {
	Worker                       string
	ReadTo                       uint64
	PreviousEpoch, PreviousNonce uint64
	// Floor is set by a repair: offsets below it were used before the log lost them.
	Floor uint64
	// Layout is that of the claimant; zero in claims of older versions.
	Layout entities.Layout
	// Lost is set by a repair: how many records the log proves to have lost before the claim. An operator has accepted that.
	Lost uint64
	// Types are the entity types that the claimant serves.
	Types []string
}

// fieldClaimTypes is ClaimInfo.Types in millrace.record.v1.Claim.
const fieldClaimTypes = 8

// Size returns the number of records in the envelope's group.
func (e *Envelope) Size() uint32 { return max(e.Count, 1) }

// Field numbers of millrace.record.v1.Envelope.
const (
	fieldKind             = 1
	fieldEpoch            = 2
	fieldNonce            = 3
	fieldLogTime          = 4
	fieldIndex            = 5
	fieldCount            = 6
	fieldSequence         = 7
	fieldTypeURL          = 8
	fieldPreviousSnapshot = 9
	fieldOrdinal          = 10
	fieldCommandID        = 16
	fieldPrincipal        = 17
	fieldPayloadHash      = 18
	fieldAnswer           = 19
	fieldCause            = 20
	fieldCorrelationID    = 21
	fieldTraceParent      = 22
	fieldClaim            = 27
	fieldTarget           = 28
	fieldTimer            = 29
	fieldRestores         = 30
	fieldRefuses          = 31
)

// Append appends the encoded envelope to buf, version byte first, and returns the extended buffer.
func (e *Envelope) Append(buf []byte) []byte {
	buf = append(buf, Version)
	buf = appendUint(buf, fieldKind, uint64(e.Kind)) //nolint:gosec // kinds are small and positive
	buf = appendUint(buf, fieldEpoch, e.Epoch)
	buf = appendFixed(buf, fieldNonce, e.Nonce)
	buf = appendFixed(buf, fieldLogTime, uint64(e.LogTime)) //nolint:gosec // sfixed64 keeps the bits
	buf = appendUint(buf, fieldIndex, uint64(e.Index))
	buf = appendUint(buf, fieldCount, uint64(e.Count))
	buf = appendUint(buf, fieldSequence, e.Sequence)
	buf = appendText(buf, fieldTypeURL, e.TypeURL)
	buf = appendUint(buf, fieldPreviousSnapshot, e.PreviousSnapshot)
	buf = appendUint(buf, fieldOrdinal, e.Ordinal)
	buf = appendText(buf, fieldCommandID, e.CommandID)
	buf = appendText(buf, fieldPrincipal, e.Principal)
	buf = appendFixed(buf, fieldPayloadHash, e.PayloadHash)
	buf = appendMessage(buf, fieldAnswer, e.Answer)
	if e.Cause != nil {
		buf = protowire.AppendTag(buf, fieldCause, protowire.BytesType)
		buf = protowire.AppendBytes(buf, e.Cause.append(nil))
	}
	buf = appendText(buf, fieldCorrelationID, e.CorrelationID)
	buf = appendText(buf, fieldTraceParent, e.TraceParent)
	if e.Claim != nil {
		buf = protowire.AppendTag(buf, fieldClaim, protowire.BytesType)
		buf = protowire.AppendBytes(buf, e.Claim.append(nil))
	}
	buf = appendMessage(buf, fieldTarget, e.Target)
	buf = appendMessage(buf, fieldTimer, e.Timer)
	buf = appendUint(buf, fieldRestores, e.Restores)
	return appendUint(buf, fieldRefuses, e.Refuses)
}

// EncodedSize returns the number of bytes that Append appends.
func (e *Envelope) EncodedSize() int {
	n := 1 + sizeUint(fieldKind, uint64(e.Kind)) + sizeUint(fieldEpoch, e.Epoch) + sizeFixed(fieldNonce, e.Nonce) + //nolint:gosec // as in Append
		sizeFixed(fieldLogTime, uint64(e.LogTime)) + sizeUint(fieldIndex, uint64(e.Index)) + sizeUint(fieldCount, uint64(e.Count)) + //nolint:gosec // as in Append
		sizeUint(fieldSequence, e.Sequence) + sizeBytes(fieldTypeURL, len(e.TypeURL)) + sizeUint(fieldPreviousSnapshot, e.PreviousSnapshot) +
		sizeUint(fieldOrdinal, e.Ordinal) + sizeBytes(fieldCommandID, len(e.CommandID)) + sizeBytes(fieldPrincipal, len(e.Principal)) +
		sizeFixed(fieldPayloadHash, e.PayloadHash) + sizeBytes(fieldAnswer, len(e.Answer)) +
		sizeBytes(fieldCorrelationID, len(e.CorrelationID)) + sizeBytes(fieldTraceParent, len(e.TraceParent)) +
		sizeBytes(fieldTarget, len(e.Target)) + sizeBytes(fieldTimer, len(e.Timer)) + sizeUint(fieldRestores, e.Restores) + sizeUint(fieldRefuses, e.Refuses)
	if e.Cause != nil {
		n += protowire.SizeTag(fieldCause) + protowire.SizeBytes(e.Cause.size())
	}
	if e.Claim != nil {
		n += protowire.SizeTag(fieldClaim) + protowire.SizeBytes(e.Claim.size())
	}
	return n
}

func (c *Cause) size() int {
	return sizeUint(1, uint64(c.Generation)) + sizeUint(2, uint64(c.Partition)) + sizeUint(3, c.Offset) + sizeUint(4, uint64(c.Index)) +
		sizeBytes(5, len(c.CommandID)) + sizeUint(6, c.Settled) + sizeBytes(8, c.sizeOpen())
}

func (c *Cause) sizeOpen() int {
	size := 0
	for _, offset := range c.Open {
		size += protowire.SizeVarint(offset)
	}
	return size
}

func (c *ClaimInfo) size() int {
	size := sizeBytes(1, len(c.Worker)) + sizeUint(2, c.ReadTo) + sizeUint(3, c.PreviousEpoch) + sizeFixed(4, c.PreviousNonce) + sizeUint(5, c.Floor) + sizeUint(7, c.Lost)
	if c.Layout != (entities.Layout{}) {
		size += sizeBytes(6, len(AppendLayout(nil, c.Layout)))
	}
	for _, t := range c.Types {
		size += sizeBytes(fieldClaimTypes, len(t))
	}
	return size
}

func sizeUint(num protowire.Number, v uint64) int {
	if v == 0 {
		return 0
	}
	return protowire.SizeTag(num) + protowire.SizeVarint(v)
}

func sizeFixed(num protowire.Number, v uint64) int {
	if v == 0 {
		return 0
	}
	return protowire.SizeTag(num) + protowire.SizeFixed64()
}

func sizeBytes(num protowire.Number, n int) int {
	if n == 0 {
		return 0
	}
	return protowire.SizeTag(num) + protowire.SizeBytes(n)
}

func (c *Cause) append(buf []byte) []byte {
	buf = appendUint(buf, 1, uint64(c.Generation))
	buf = appendUint(buf, 2, uint64(c.Partition))
	buf = appendUint(buf, 3, c.Offset)
	buf = appendUint(buf, 4, uint64(c.Index))
	buf = appendText(buf, 5, c.CommandID)
	buf = appendUint(buf, 6, c.Settled)
	if len(c.Open) == 0 {
		return buf
	}
	buf = protowire.AppendVarint(protowire.AppendTag(buf, 8, protowire.BytesType), uint64(c.sizeOpen())) //nolint:gosec // a length
	for _, offset := range c.Open {
		buf = protowire.AppendVarint(buf, offset)
	}
	return buf
}

func (c *ClaimInfo) append(buf []byte) []byte {
	buf = appendText(buf, 1, c.Worker)
	buf = appendUint(buf, 2, c.ReadTo)
	buf = appendUint(buf, 3, c.PreviousEpoch)
	buf = appendFixed(buf, 4, c.PreviousNonce)
	buf = appendUint(buf, 5, c.Floor)
	if c.Layout != (entities.Layout{}) {
		buf = appendMessage(buf, 6, AppendLayout(nil, c.Layout))
	}
	buf = appendUint(buf, 7, c.Lost)
	for _, t := range c.Types {
		buf = appendText(buf, fieldClaimTypes, t)
	}
	return buf
}

// AppendLayout appends an encoded millrace.record.v1.Layout.
func AppendLayout(buf []byte, l entities.Layout) []byte {
	buf = appendText(buf, 1, l.App)
	buf = appendUint(buf, 2, uint64(l.Generation))
	buf = appendUint(buf, 3, uint64(max(l.Partitions, 0)))
	buf = appendUint(buf, 4, uint64(max(l.Slots, 0)))
	return appendText(buf, 5, l.Hash)
}

// ParseLayout decodes what AppendLayout encodes. Numbers that a Layout has no room for become its largest; what is no layout becomes
// one that nothing has.
func ParseLayout(b []byte) entities.Layout {
	var l entities.Layout
	if eachField(b, func(num protowire.Number, n uint64, b []byte) {
		switch num {
		case 1:
			l.App = string(b)
		case 2:
			l.Generation = uint16(min(n, math.MaxUint16))
		case 3:
			l.Partitions = int32(min(n, math.MaxInt32))
		case 4:
			l.Slots = int32(min(n, math.MaxInt32))
		case 5:
			l.Hash = string(b)
		}
	}) != nil {
		return entities.Layout{Partitions: math.MaxInt32}
	}
	return l
}

func appendUint(buf []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return buf
	}
	return protowire.AppendVarint(protowire.AppendTag(buf, num, protowire.VarintType), v)
}

func appendFixed(buf []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return buf
	}
	return protowire.AppendFixed64(protowire.AppendTag(buf, num, protowire.Fixed64Type), v)
}

func appendMessage(buf []byte, num protowire.Number, encoded []byte) []byte {
	if len(encoded) == 0 {
		return buf
	}
	return protowire.AppendBytes(protowire.AppendTag(buf, num, protowire.BytesType), encoded)
}

func appendText(buf []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return buf
	}
	return protowire.AppendString(protowire.AppendTag(buf, num, protowire.BytesType), s)
}

// Parser decodes envelopes. It remembers type URLs, so that a rebuild of a million events does not allocate a million
// equal strings. The zero value is ready.
type Parser struct {
	types map[string]string
}

// maxTypes bounds what a Parser remembers; beyond it, type URLs are allocated.
const maxTypes = 4096

// Parse decodes the value of a header mr into e, replacing what e held. header nil or empty is ErrNoEnvelope. e.Answer,
// e.Target and e.Timer alias header.
func (p *Parser) Parse(header []byte, e *Envelope) error {
	*e = Envelope{}
	if len(header) == 0 {
		return ErrNoEnvelope
	}
	if header[0] != Version {
		return fmt.Errorf("%w: %d", ErrVersion, header[0])
	}
	err := eachField(header[1:], func(num protowire.Number, n uint64, b []byte) {
		switch num {
		case fieldKind:
			e.Kind = Kind(n) //nolint:gosec // an unknown kind stays unknown
		case fieldEpoch:
			e.Epoch = n
		case fieldNonce:
			e.Nonce = n
		case fieldLogTime:
			e.LogTime = int64(n) //nolint:gosec // sfixed64 keeps the bits
		case fieldIndex:
			e.Index = uint32(n) //nolint:gosec // checked by the reader rule
		case fieldCount:
			e.Count = uint32(n) //nolint:gosec // checked by the reader rule
		case fieldSequence:
			e.Sequence = n
		case fieldTypeURL:
			e.TypeURL = p.intern(b)
		case fieldPreviousSnapshot:
			e.PreviousSnapshot = n
		case fieldOrdinal:
			e.Ordinal = n
		case fieldCommandID:
			e.CommandID = string(b)
		case fieldPrincipal:
			e.Principal = string(b)
		case fieldPayloadHash:
			e.PayloadHash = n
		case fieldAnswer:
			e.Answer = b
		case fieldCause:
			e.Cause = parseCause(b)
		case fieldCorrelationID:
			e.CorrelationID = string(b)
		case fieldTraceParent:
			e.TraceParent = string(b)
		case fieldClaim:
			e.Claim = parseClaim(b)
		case fieldTarget:
			e.Target = b
		case fieldTimer:
			e.Timer = b
		case fieldRestores:
			e.Restores = n
		case fieldRefuses:
			e.Refuses = n
		}
	})
	if err != nil {
		return err
	}
	if e.Kind == recordv1.Kind_KIND_UNSPECIFIED || e.Index >= e.Size() {
		return fmt.Errorf("%w: kind %d, index %d of %d", ErrMalformed, e.Kind, e.Index, e.Count)
	}
	return nil
}

func (p *Parser) intern(b []byte) string {
	if s, known := p.types[string(b)]; known {
		return s
	}
	s := string(b)
	if p.types == nil {
		p.types = make(map[string]string)
	}
	if len(p.types) < maxTypes {
		p.types[s] = s
	}
	return s
}

func parseCause(b []byte) *Cause {
	c, whole := &Cause{}, true
	if eachField(b, func(num protowire.Number, n uint64, b []byte) {
		switch num {
		case 1:
			c.Generation = uint32(n) //nolint:gosec // diagnosis only
		case 2:
			c.Partition = uint32(n) //nolint:gosec // diagnosis only
		case 3:
			c.Offset = n
		case 4:
			c.Index = uint32(n) //nolint:gosec // diagnosis only
		case 5:
			c.CommandID = string(b)
		case 6:
			c.Settled = n
		case 8:
			c.Open, whole = appendVarints(c.Open, b)
		}
	}) != nil || !whole {
		return nil
	}
	return c
}

// appendVarints appends the numbers of a packed field; whole is false where the bytes are none.
func appendVarints(to []uint64, packed []byte) (_ []uint64, whole bool) {
	for len(packed) > 0 {
		v, n := protowire.ConsumeVarint(packed)
		if n < 0 {
			return nil, false
		}
		to, packed = append(to, v), packed[n:]
	}
	return to, true
}

func parseClaim(b []byte) *ClaimInfo {
	c := &ClaimInfo{}
	if eachField(b, func(num protowire.Number, n uint64, b []byte) {
		switch num {
		case 1:
			c.Worker = string(b)
		case 2:
			c.ReadTo = n
		case 3:
			c.PreviousEpoch = n
		case 4:
			c.PreviousNonce = n
		case 5:
			c.Floor = n
		case 6:
			c.Layout = ParseLayout(b)
		case 7:
			c.Lost = n
		case fieldClaimTypes:
			c.Types = append(c.Types, string(b))
		}
	}) != nil {
		return nil
	}
	return c
}

// eachField calls on for every field of an encoded message: n for numbers, b for bytes. Unknown fields reach on too.
func eachField(msg []byte, on func(num protowire.Number, n uint64, b []byte)) error {
	for len(msg) > 0 {
		num, typ, size := protowire.ConsumeTag(msg)
		if size < 0 {
			return fmt.Errorf("%w: %w", ErrMalformed, protowire.ParseError(size))
		}
		msg = msg[size:]
		var n uint64
		var b []byte
		switch typ {
		case protowire.VarintType:
			n, size = protowire.ConsumeVarint(msg)
		case protowire.Fixed64Type:
			n, size = protowire.ConsumeFixed64(msg)
		case protowire.BytesType:
			b, size = protowire.ConsumeBytes(msg)
		default:
			size = protowire.ConsumeFieldValue(num, typ, msg)
		}
		if size < 0 {
			return fmt.Errorf("%w: field %d: %w", ErrMalformed, num, protowire.ParseError(size))
		}
		on(num, n, b)
		msg = msg[size:]
	}
	return nil
}

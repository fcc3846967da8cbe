package record

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/fields"
	recordv1 "github.com/millrace-io/millrace/proto/gen/millrace/record/v1"
)

// Offset converts an offset in a record to one of the log. Records have them unsigned, the log
// signed; neither is negative.
func Offset(n uint64) int64 { return int64(n) } //nolint:gosec // offsets are positive

// Unsigned converts an offset of the log to one in a record.
func Unsigned(offset int64) uint64 { return uint64(offset) } //nolint:gosec // offsets are positive

// HeaderKey is the name of the header that carries the envelope.
const HeaderKey = "mr"

// TypeHeader is the name of the header that says the type of an event or of a value, as text, for
// readers who have the proto files of the function and nothing of millrace. Nothing here reads it:
// the envelope has the type as well.
const TypeHeader = "type"

// protobufTypes begins the type URL of every protobuf message.
const protobufTypes = "type.googleapis.com/"

// Version is the first byte of every envelope that this package writes.
const Version = 1

// Kind says what a record is.
type Kind = recordv1.Kind

// The kinds that this version writes or reads. Others are reserved; the fold skips them with an
// error that names them.
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
	// ErrMalformed: the envelope cannot be decoded.
	ErrMalformed = errors.New("envelope is malformed")
)

// Envelope is the metadata of a record. The zero value of a field is an absent field.
type Envelope struct {
	Kind Kind
	// Epoch and Nonce identify the ownership under which it was written.
	Epoch, Nonce uint64
	// LogTime is in nanoseconds since the Unix epoch, by the log's own clock.
	LogTime int64
	// Index and Count are its position in, and the size of, the group of its command; Count 0 means
	// 1.
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
	// Restores is set by a repair: the offset at which the log had the record that this one
	// replaces. 0: it replaces none.
	Restores uint64
	// Refuses is set in refused records: the offset of the effect. Answer then has code and text of
	// the refusal.
	Refuses uint64
}

// Address returns the offset that identifies a record: to the targets of its effects, and for
// deduplication. It is the record's own offset, except for records that a repair has written again.
func (e *Envelope) Address(offset int64) int64 {
	if e.Restores > 0 {
		return Offset(e.Restores)
	}
	return offset
}

// TypeName returns the value of the header type, and an empty string for a record without one. It
// is the full name of the message, as in shop.v1.ItemAdded, of an event or of the value of a value
// entity; of a type that is not below type.googleapis.com it is the whole type URL. Snapshots have
// none, because a reader of events needs no copy of them, and neither have effects and timers,
// whose contents are commands.
func (e *Envelope) TypeName() string {
	if e.Kind != Event && e.Kind != State {
		return ""
	}
	return strings.TrimPrefix(e.TypeURL, protobufTypes)
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

// Source returns the address of the effect that a record follows from.
func (c *Cause) Source() entities.Source {
	return entities.Source{
		Generation: uint16(c.Generation), Partition: uint16(c.Partition), //nolint:gosec // at most 4096 partitions, few generations
		Offset: Offset(c.Offset), Index: c.Index,
	}
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
	// Lost is set by a repair: how many records the log provably lost before the claim, as accepted
	// by an operator.
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
	buf = fields.AppendUint(buf, fieldKind, uint64(e.Kind)) //nolint:gosec // kinds are small and positive
	buf = fields.AppendUint(buf, fieldEpoch, e.Epoch)
	buf = fields.AppendFixed(buf, fieldNonce, e.Nonce)
	buf = fields.AppendFixed(buf, fieldLogTime, uint64(e.LogTime)) //nolint:gosec // sfixed64 keeps the bits
	buf = fields.AppendUint(buf, fieldIndex, uint64(e.Index))
	buf = fields.AppendUint(buf, fieldCount, uint64(e.Count))
	buf = fields.AppendUint(buf, fieldSequence, e.Sequence)
	buf = fields.AppendString(buf, fieldTypeURL, e.TypeURL)
	buf = fields.AppendUint(buf, fieldPreviousSnapshot, e.PreviousSnapshot)
	buf = fields.AppendUint(buf, fieldOrdinal, e.Ordinal)
	buf = fields.AppendString(buf, fieldCommandID, e.CommandID)
	buf = fields.AppendString(buf, fieldPrincipal, e.Principal)
	buf = fields.AppendFixed(buf, fieldPayloadHash, e.PayloadHash)
	buf = fields.AppendBytes(buf, fieldAnswer, e.Answer)
	if e.Cause != nil {
		buf = protowire.AppendTag(buf, fieldCause, protowire.BytesType)
		buf = protowire.AppendBytes(buf, e.Cause.append(nil))
	}
	buf = fields.AppendString(buf, fieldCorrelationID, e.CorrelationID)
	buf = fields.AppendString(buf, fieldTraceParent, e.TraceParent)
	if e.Claim != nil {
		buf = protowire.AppendTag(buf, fieldClaim, protowire.BytesType)
		buf = protowire.AppendBytes(buf, e.Claim.append(nil))
	}
	buf = fields.AppendBytes(buf, fieldTarget, e.Target)
	buf = fields.AppendBytes(buf, fieldTimer, e.Timer)
	buf = fields.AppendUint(buf, fieldRestores, e.Restores)
	return fields.AppendUint(buf, fieldRefuses, e.Refuses)
}

// EncodedSize returns the number of bytes that Append appends.
func (e *Envelope) EncodedSize() int {
	n := 1 + sizeUint(fieldKind, uint64(e.Kind)) + sizeUint(fieldEpoch, e.Epoch) + sizeFixed(fieldNonce, e.Nonce) + //nolint:gosec // as in Append
		sizeFixed(fieldLogTime, uint64(e.LogTime)) + //nolint:gosec // as in Append
		sizeUint(fieldIndex, uint64(e.Index)) + sizeUint(fieldCount, uint64(e.Count)) +
		sizeUint(fieldSequence, e.Sequence) + sizeBytes(fieldTypeURL, len(e.TypeURL)) +
		sizeUint(fieldPreviousSnapshot, e.PreviousSnapshot) +
		sizeUint(fieldOrdinal, e.Ordinal) + sizeBytes(fieldCommandID, len(e.CommandID)) +
		sizeBytes(fieldPrincipal, len(e.Principal)) +
		sizeFixed(fieldPayloadHash, e.PayloadHash) + sizeBytes(fieldAnswer, len(e.Answer)) +
		sizeBytes(fieldCorrelationID, len(e.CorrelationID)) + sizeBytes(fieldTraceParent, len(e.TraceParent)) +
		sizeBytes(fieldTarget, len(e.Target)) + sizeBytes(fieldTimer, len(e.Timer)) +
		sizeUint(fieldRestores, e.Restores) + sizeUint(fieldRefuses, e.Refuses)
	if e.Cause != nil {
		n += protowire.SizeTag(fieldCause) + protowire.SizeBytes(e.Cause.size())
	}
	if e.Claim != nil {
		n += protowire.SizeTag(fieldClaim) + protowire.SizeBytes(e.Claim.size())
	}
	return n
}

func (c *Cause) size() int {
	return sizeUint(1, uint64(c.Generation)) + sizeUint(2, uint64(c.Partition)) + sizeUint(3, c.Offset) +
		sizeUint(4, uint64(c.Index)) +
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
	size := sizeBytes(1, len(c.Worker)) + sizeUint(2, c.ReadTo) + sizeUint(3, c.PreviousEpoch) +
		sizeFixed(4, c.PreviousNonce) + sizeUint(5, c.Floor) + sizeUint(7, c.Lost)
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
	buf = fields.AppendUint(buf, 1, uint64(c.Generation))
	buf = fields.AppendUint(buf, 2, uint64(c.Partition))
	buf = fields.AppendUint(buf, 3, c.Offset)
	buf = fields.AppendUint(buf, 4, uint64(c.Index))
	buf = fields.AppendString(buf, 5, c.CommandID)
	buf = fields.AppendUint(buf, 6, c.Settled)
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
	buf = fields.AppendString(buf, 1, c.Worker)
	buf = fields.AppendUint(buf, 2, c.ReadTo)
	buf = fields.AppendUint(buf, 3, c.PreviousEpoch)
	buf = fields.AppendFixed(buf, 4, c.PreviousNonce)
	buf = fields.AppendUint(buf, 5, c.Floor)
	if c.Layout != (entities.Layout{}) {
		buf = fields.AppendBytes(buf, 6, AppendLayout(nil, c.Layout))
	}
	buf = fields.AppendUint(buf, 7, c.Lost)
	for _, t := range c.Types {
		buf = fields.AppendString(buf, fieldClaimTypes, t)
	}
	return buf
}

// AppendLayout appends an encoded millrace.record.v1.Layout.
func AppendLayout(buf []byte, l entities.Layout) []byte {
	buf = fields.AppendString(buf, 1, l.App)
	buf = fields.AppendUint(buf, 2, uint64(l.Generation))
	buf = fields.AppendUint(buf, 3, uint64(max(l.Partitions, 0)))
	buf = fields.AppendUint(buf, 4, uint64(max(l.Slots, 0)))
	return fields.AppendString(buf, 5, l.Hash)
}

// ParseLayout decodes what AppendLayout encodes. Numbers that are too large for a Layout become its
// largest value; invalid bytes become a layout that equals no other.
func ParseLayout(b []byte) entities.Layout {
	var l entities.Layout
	f := fields.Of(b, ErrMalformed)
	for f.Next() {
		switch f.Number {
		case 1:
			l.App = string(f.B)
		case 2:
			l.Generation = uint16(min(f.N, math.MaxUint16))
		case 3:
			l.Partitions = int32(min(f.N, math.MaxInt32))
		case 4:
			l.Slots = int32(min(f.N, math.MaxInt32))
		case 5:
			l.Hash = string(f.B)
		}
	}
	if f.Err != nil {
		return entities.Layout{Partitions: math.MaxInt32}
	}
	return l
}

// Parser decodes envelopes. It interns type URLs, so that a rebuild of a million events does not
// allocate a million equal strings. The zero value is ready.
type Parser struct {
	types map[string]string
}

// maxTypes bounds what a Parser interns; beyond it, type URLs are allocated.
const maxTypes = 4096

// Parse decodes the value of a header mr into e, replacing what e held. header nil or empty is
// ErrNoEnvelope. e.Answer, e.Target and e.Timer alias header.
func (p *Parser) Parse(header []byte, e *Envelope) error {
	*e = Envelope{}
	if len(header) == 0 {
		return ErrNoEnvelope
	}
	if header[0] != Version {
		return fmt.Errorf("%w: %d", ErrVersion, header[0])
	}
	f := fields.Of(header[1:], ErrMalformed)
	for f.Next() {
		switch f.Number {
		case fieldKind:
			e.Kind = Kind(f.N) //nolint:gosec // an unknown kind stays unknown
		case fieldEpoch:
			e.Epoch = f.N
		case fieldNonce:
			e.Nonce = f.N
		case fieldLogTime:
			e.LogTime = int64(f.N) //nolint:gosec // sfixed64 keeps the bits
		case fieldIndex:
			e.Index = uint32(f.N) //nolint:gosec // checked by the reader rule
		case fieldCount:
			e.Count = uint32(f.N) //nolint:gosec // checked by the reader rule
		case fieldSequence:
			e.Sequence = f.N
		case fieldTypeURL:
			e.TypeURL = p.intern(f.B)
		case fieldPreviousSnapshot:
			e.PreviousSnapshot = f.N
		case fieldOrdinal:
			e.Ordinal = f.N
		case fieldCommandID:
			e.CommandID = string(f.B)
		case fieldPrincipal:
			e.Principal = string(f.B)
		case fieldPayloadHash:
			e.PayloadHash = f.N
		case fieldAnswer:
			e.Answer = f.B
		case fieldCause:
			e.Cause = parseCause(f.B)
		case fieldCorrelationID:
			e.CorrelationID = string(f.B)
		case fieldTraceParent:
			e.TraceParent = string(f.B)
		case fieldClaim:
			e.Claim = parseClaim(f.B)
		case fieldTarget:
			e.Target = f.B
		case fieldTimer:
			e.Timer = f.B
		case fieldRestores:
			e.Restores = f.N
		case fieldRefuses:
			e.Refuses = f.N
		}
	}
	if f.Err != nil {
		return f.Err
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
	f := fields.Of(b, ErrMalformed)
	for f.Next() {
		switch f.Number {
		case 1:
			c.Generation = uint32(f.N) //nolint:gosec // diagnosis only
		case 2:
			c.Partition = uint32(f.N) //nolint:gosec // diagnosis only
		case 3:
			c.Offset = f.N
		case 4:
			c.Index = uint32(f.N) //nolint:gosec // diagnosis only
		case 5:
			c.CommandID = string(f.B)
		case 6:
			c.Settled = f.N
		case 8:
			c.Open, whole = appendVarints(c.Open, f.B)
		}
	}
	if f.Err != nil || !whole {
		return nil
	}
	return c
}

// appendVarints appends the numbers of a packed field; whole is false if the bytes are malformed.
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
	f := fields.Of(b, ErrMalformed)
	for f.Next() {
		switch f.Number {
		case 1:
			c.Worker = string(f.B)
		case 2:
			c.ReadTo = f.N
		case 3:
			c.PreviousEpoch = f.N
		case 4:
			c.PreviousNonce = f.N
		case 5:
			c.Floor = f.N
		case 6:
			c.Layout = ParseLayout(f.B)
		case 7:
			c.Lost = f.N
		case fieldClaimTypes:
			c.Types = append(c.Types, string(f.B))
		}
	}
	if f.Err != nil {
		return nil
	}
	return c
}

package record

import (
	"fmt"

	"github.com/millrace-io/millrace/internal/mutation"
)

// Owner identifies one ownership of a partition. The zero Owner means that there is no owner.
type Owner struct {
	Epoch, Nonce uint64
}

// EpochStep is how far above the owner's epoch a valid claim may be (R1). Claims count up by one,
// those of a repair by the claims that the log has lost. A claim further above was not made by a
// worker, and would exhaust the epochs (ADR 19).
const EpochStep = 1 << 32

// YieldsTo reports whether a claim of this epoch ends the ownership (R1).
func (o Owner) YieldsTo(epoch uint64) bool {
	if o.Jumps(epoch) && !mutation.On(mutation.Epoch) {
		return false
	}
	return epoch > o.Epoch || (mutation.On(mutation.StrictClaim) && epoch == o.Epoch)
}

// Jumps reports whether a claim of this epoch is void because it is too far above the owner's.
func (o Owner) Jumps(epoch uint64) bool { return epoch > o.Epoch && epoch-o.Epoch > EpochStep }

// Broken returns how a valid claim at this offset proves that the log has lost records before it;
// "" if it proves nothing. o is the owner before the claim according to the log, and start is where
// reading began.
//
// A claim names the owner that its claimant had folded when it had read up to ReadTo. Claims of
// other workers may come between ReadTo and the claim; they have higher epochs than the named
// owner. So the owner before the claim is the named one or a later one. An earlier one, or another
// one of the same epoch (of two claims of one epoch only the first is valid), means that the claim
// of the named owner is gone. And no claim can be at an offset that its claimant had already read.
//
// A log that is read from the middle, because an operator accepted that it has lost its beginning,
// has no owner before its first claim.
func (o Owner) Broken(c *ClaimInfo, offset, start int64) string {
	switch {
	case c == nil || mutation.On(mutation.Previous):
		return ""
	case c.ReadTo > Unsigned(offset):
		return fmt.Sprintf("the claim at offset %d says that the log was read up to offset %d", offset, c.ReadTo)
	case o == (Owner{}) && start > 0:
		return ""
	case c.PreviousEpoch > o.Epoch, c.PreviousEpoch == o.Epoch && c.PreviousNonce != o.Nonce &&
		!mutation.On(mutation.StrictClaim):
		return fmt.Sprintf("the claim at offset %d follows owner %d (%016x), and the log has owner %d (%016x) before it: a record between is lost",
			offset, c.PreviousEpoch, c.PreviousNonce, o.Epoch, o.Nonce)
	default:
		return ""
	}
}

// Verdict is what the reader rule says about one record.
type Verdict uint8

const (
	// Void: not written by the owner at that offset, a claim that came too late, or a record of the
	// owner that does not follow on its last one (R1, R2). A no-op.
	Void Verdict = iota
	// Foreign: no readable envelope (R4). A no-op, and an alarm.
	Foreign
	// Claimed: a valid claim. It changes the owner.
	Claimed
	// Control: a valid barrier or release. It changes no state.
	Control
	// Pending: valid, and its group is not complete yet (R3).
	Pending
	// Complete: valid, and the last one of its group. The group takes effect now.
	Complete
)

// Rule is the reader rule: a pure fold over the records of one partition in offset order. Whether a
// record is valid depends on the records before it only, so validity never changes once it is
// known. The zero value is the state before offset 0.
//
// In addition, the records of one ownership must follow each other without a gap: each has an
// ordinal. So a record that depends on one which the log never stored is void for all readers,
// whatever a client library did between the failure and the moment when the owner learned of it
// (ADR 0008).
type Rule struct {
	// Current is the owner after the records seen so far, Ordinal the number of its valid records.
	Current Owner
	Ordinal uint64
	// open is how many records of the open group were seen, size how many it has; both 0 when no
	// group is open.
	open, size uint32
}

// Open says whether a group has begun and is not complete: then the records since its first one
// have no effect yet.
func (r *Rule) Open() bool { return r.open > 0 }

// Presumed returns the rule before a record when the records before it are unknown: its writer is
// taken for the owner.
func Presumed(e *Envelope) Rule {
	return Rule{Current: Owner{e.Epoch, e.Nonce}, Ordinal: e.Ordinal - 1}
}

// Step returns the verdict on the next record. dropped is true if the record ended an incomplete
// group: for a claim that is normal (the former owner died in the middle of an append), otherwise
// it is an alarm.
func (r *Rule) Step(e *Envelope) (v Verdict, dropped bool) {
	owner := Owner{e.Epoch, e.Nonce}
	if e.Kind == Claim {
		if !r.Current.YieldsTo(e.Epoch) {
			return Void, false
		}
		dropped = r.drop()
		r.Current, r.Ordinal = owner, 0
		return Claimed, dropped
	}
	if mutation.On(mutation.Nonce) {
		owner.Nonce = r.Current.Nonce
	}
	if (owner != r.Current || owner == (Owner{})) && !mutation.On(mutation.Reader) {
		return Void, false
	}
	if e.Ordinal != r.Ordinal+1 && !mutation.On(mutation.Ordinal) {
		return Void, false
	}
	r.Ordinal = e.Ordinal
	if e.Kind == Barrier || e.Kind == Release {
		return Control, false
	}
	if e.Index != r.open || (r.open > 0 && e.Size() != r.size) {
		dropped = r.drop()
		if e.Index != 0 {
			return Void, true
		}
	}
	r.open, r.size = r.open+1, e.Size()
	if r.open < r.size {
		return Pending, dropped
	}
	r.drop()
	return Complete, dropped
}

func (r *Rule) drop() bool {
	was := r.open > 0
	r.open, r.size = 0, 0
	return was
}

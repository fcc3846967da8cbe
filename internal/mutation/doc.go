// Package mutation takes safety lines out of the code, one at a time, to show that a test notices. In a normal build On is
// false and costs nothing. In a build with tag mutation it is true for the line that the environment variable
// MILLRACE_MUTATION names. It starts no goroutine.
package mutation

// Variable is the environment variable that names the line to take out.
const Variable = "MILLRACE_MUTATION"

// The safety lines. docs/reliability.md says which layers of tests notice each.
const (
	// Contiguity: an acknowledgement counts only if it is where the last one ended (log protocol, section 4, rules 1 and 2).
	Contiguity = "contiguity"
	// ReadBack: an acknowledged claim counts only after the log was folded up to it.
	ReadBack = "readback"
	// Reader: records of others than the owner do not count (rule R2).
	Reader = "reader"
	// Ordinal: a record of the owner counts only if it follows on its last one (ADR 8).
	Ordinal = "ordinal"
	// Nonce: an ownership is named by epoch and nonce, not by the epoch alone.
	Nonce = "nonce"
	// Barrier: an answer that wrote nothing waits for an append that was sent after it.
	Barrier = "barrier"
	// Gap: an own record in a gap ends the ownership.
	Gap = "gap"
	// Durable: answers wait for the log (I3).
	Durable = "durable"
	// Repeat: a command id that took effect gets the stored answer.
	Repeat = "repeat"
	// Delivered: an effect that took effect gets the stored answer.
	Delivered = "delivered"
	// Watermark: what is known of a source's progress never goes back.
	Watermark = "watermark"
	// Settle: an effect leaves the outbox only when a committed record says so.
	Settle = "settle"
	// Stale: a timer fires only as it was last set.
	Stale = "stale"
)

// Lines are all of them.
func Lines() []string {
	return []string{Contiguity, ReadBack, Reader, Ordinal, Nonce, Barrier, Gap, Durable, Repeat, Delivered, Watermark, Settle, Stale}
}

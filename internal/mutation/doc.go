// Package mutation takes safety lines out of the code to show that a test notices. In a normal build On is false and costs
// nothing. In a build with tag mutation it is true for the lines that the environment variable MILLRACE_MUTATION names,
// separated by commas. It starts no goroutine.
package mutation

// Variable is the environment variable that names the lines to take out.
const Variable = "MILLRACE_MUTATION"

// The safety lines. docs/reliability.md says which layers of tests notice each.
const (
	// Contiguity: an acknowledgement counts only if it is where the last one ended (log protocol, section 4, rules 1 and 2).
	Contiguity = "contiguity"
	// ReadBack: an acknowledged claim counts only after the log was folded up to it.
	ReadBack = "readback"
	// Regress: an acknowledged claim must not stand before what the store has folded.
	Regress = "regress"
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
	// Kept: what a forward was answered takes the place of the forward in the row of the command's id.
	Kept = "kept"
	// Caused: an error of an action that has caused something says so.
	Caused = "caused"
	// Watermark: what is known of a source's progress never goes back.
	Watermark = "watermark"
	// Settle: an effect leaves the outbox only when a committed record says so.
	Settle = "settle"
	// Refused: what the target of an effect refuses leaves a trace.
	Refused = "refused"
	// Look: the topic's settings are looked at as soon as the log fails an append.
	Look = "look"
	// Hopeless: a timer whose command can never be run is parked.
	Hopeless = "hopeless"
	// Stale: a timer fires only as it was last set.
	Stale = "stale"
	// Reuse: after a loss no offset is used again with another content (ADR 12).
	Reuse = "reuse"
	// Doubt: after an attempt that may have been applied, nobody but an owner says that a command was not.
	Doubt = "doubt"
	// Fresh: a follower calls its image as fresh as the owner has confirmed, not as it seems.
	Fresh = "fresh"
	// Sent: of a command that was given to a connection, nobody says that it was not applied.
	Sent = "sent"
	// Tail: a reader shares a client only where that has nothing left from behind the reader's position.
	Tail = "tail"
	// Cut: a batch is cut at what the log takes in one append.
	Cut = "cut"
	// Layout: a log that was written by another layout is not folded, and a table of another layout is not used (ADR 18).
	Layout = "layout"
	// Hole: an offset without a record ends the fold.
	Hole = "hole"
	// Suspicion: what was suspected of a log, or found in it, outlives a restart.
	Suspicion = "suspicion"
	// OnlyCopy: an image of another format is kept while the log cannot replace it.
	OnlyCopy = "onlycopy"
	// Stranger: what an owner of another layout has written is not folded, also where a repair has accepted its claim.
	Stranger = "stranger"
	// Previous: a claim that follows on an owner that the log does not have ends the fold.
	Previous = "previous"
	// Epoch: a claim that jumps far above the owner's epoch is void.
	Epoch = "epoch"
	// Announced: whose command a function was sent ahead of its turn does not leave before that.
	Announced = "announced"
	// Horizon: timers that were dropped from memory during a load are read again.
	Horizon = "horizon"
	// Crowd: due timers of one entity type leave room in memory for those of others.
	Crowd = "crowd"
	// Exceptions: a source tells its targets which effects below its progress are open.
	Exceptions = "exceptions"
	// Lane: a target that fails or is slow holds up only what is for it.
	Lane = "lane"
	// Slow: an effect whose target does not answer holds a place of its lane only.
	Slow = "slow"
	// Shared: a command that several attempts have decided together is not taken back by one of them.
	Shared = "shared"
	// Stalled: what waits behind attempts that do not end leaves memory.
	Stalled = "stalled"
	// ParkedPlace: an effect that waits for an operator leaves memory.
	ParkedPlace = "parkedplace"
	// Refusal: what stands beside a refusal is neither stored nor sent.
	Refusal = "refusal"
	// Services: a worker whose services do not belong to the app takes nothing.
	Services = "services"
	// Suspend: when the machine's clock has jumped, the log is asked for owner and time anew.
	Suspend = "suspend"
	// Promote: a caller that left does not get the turn of the call that it followed.
	Promote = "promote"
	// Verdict: "not applied" is said of a command, not of one attempt at it.
	Verdict = "verdict"
	// Applied: a command that stored something is not told as refused because its forward was.
	Applied = "applied"
	// Shortened: a refusal with a long text is kept as a refusal.
	Shortened = "shortened"
	// Patience: what waits for a partition without an active owner is answered in time.
	Patience = "patience"
	// ForeignPage: a page of another origin cannot call the admin service from a browser.
	ForeignPage = "foreignpage"
)

// What is no safety line: the log protocol could as well be without it, and its model must be as sound.
const (
	// GapScan: a gap is read, and ends the ownership only if there is a reason in it.
	GapScan = "gapscan"
	// StrictClaim: of two claims of one epoch, the first wins.
	StrictClaim = "strictclaim"
)

// Lines are all of them, and what is no safety line.
func Lines() []string {
	return []string{
		Contiguity,
		ReadBack,
		Regress,
		Reader,
		Ordinal,
		Nonce,
		Barrier,
		Gap,
		Durable,
		Repeat,
		Delivered,
		Kept,
		Caused,
		Watermark,
		Settle,
		Refused,
		Look,
		Hopeless,
		Stale,
		Reuse,
		Doubt,
		Fresh,
		Sent,
		Tail,
		Cut,
		Layout,
		Hole,
		Suspicion,
		OnlyCopy,
		Stranger,
		Previous,
		Epoch,
		Announced,
		Horizon,
		Crowd,
		Exceptions,
		Lane,
		Slow,
		Shared,
		Stalled,
		ParkedPlace,
		Refusal,
		Services,
		Suspend,
		Promote,
		Verdict,
		Applied,
		Shortened,
		Patience,
		ForeignPage,
		GapScan,
		StrictClaim,
	}
}

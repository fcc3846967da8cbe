// Package mutation removes safety lines from the code, to show that a test then fails. In a normal
// build On is false and costs nothing. In a build with tag mutation it is true for the lines named
// in the environment variable MILLRACE_MUTATION, separated by commas. It starts no goroutine.
package mutation

// Variable is the environment variable that names the lines to remove.
const Variable = "MILLRACE_MUTATION"

// The safety lines. docs/reliability.md says which layers of tests detect the absence of each.
const (
	// Contiguity: an acknowledgement counts only if it is where the last one ended (log protocol,
	// section 4, rules 1 and 2).
	Contiguity = "contiguity"
	// ReadBack: an acknowledged claim is in force only after the log was folded up to it.
	ReadBack = "readback"
	// Regress: an acknowledged claim must not be at an offset that the store has folded.
	Regress = "regress"
	// Reader: records of other workers than the owner are void (rule R2).
	Reader = "reader"
	// Ordinal: a record of the owner is effective only if it follows on its last one (ADR 8).
	Ordinal = "ordinal"
	// Nonce: an ownership is identified by epoch and nonce, not by the epoch alone.
	Nonce = "nonce"
	// Barrier: a read waits for an append that was sent after it.
	Barrier = "barrier"
	// Gap: a record of its own in a gap ends an ownership.
	Gap = "gap"
	// Durable: answers wait for the log (I3).
	Durable = "durable"
	// Repeat: a command id that took effect gets the stored answer.
	Repeat = "repeat"
	// Delivered: an effect that took effect gets the stored answer.
	Delivered = "delivered"
	// Kept: the answer of a forward replaces the forward in the row of the command's id.
	Kept = "kept"
	// Caused: an error of an action that had effects says so.
	Caused = "caused"
	// Watermark: the known progress of a source never goes back.
	Watermark = "watermark"
	// Settle: an effect leaves the outbox only when a committed record says so.
	Settle = "settle"
	// Refused: a refusal of an effect by its target is kept.
	Refused = "refused"
	// Recheck: the topic's settings are checked as soon as the log fails an append.
	Recheck = "recheck"
	// Hopeless: a timer whose command can never be run is parked.
	Hopeless = "hopeless"
	// Superseded: a timer fires only as it was last set.
	Superseded = "superseded"
	// Reuse: after a loss no offset is used again with another content (ADR 12).
	Reuse = "reuse"
	// Doubt: after an attempt that may have been applied, only an owner may say that a command was
	// not applied.
	Doubt = "doubt"
	// Early: a feed shows what was folded only after the store took it.
	Early = "early"
	// Adjoin: a consumer takes a piece of a feed only where it begins at the consumer's position.
	Adjoin = "adjoin"
	// Covered: a consumer takes a piece of a feed only if that has all types that it names.
	Covered = "covered"
	// MapOrder: expressions go through a map by its sorted keys, so that replicas have equal rows.
	MapOrder = "maporder"
	// WholeRecord: a record that cannot be folded changes no row.
	WholeRecord = "wholerecord"
	// LatePoll: the answer to a read does not set the cookie with the token of a browser's writes.
	LatePoll = "latepoll"
	// Chosen: a worker reads rows of the dataset that it was asked for, and of no other.
	Chosen = "chosen"
	// Fresh: a follower's image is only as fresh as the owner has confirmed.
	Fresh = "fresh"
	// Sent: a command that was passed to a connection is not reported as not applied.
	Sent = "sent"
	// Tail: a reader shares a client only if that has nothing from before the reader's position.
	Tail = "tail"
	// Cut: a batch is split at what the log takes in one append.
	Cut = "cut"
	// Layout: a log that was written by another layout is not folded, and a table of another layout
	// is not used (ADR 18).
	Layout = "layout"
	// NoRecord: an offset without a record ends the fold.
	NoRecord = "norecord"
	// Suspicion: what was suspected of a log, or found in it, outlives a restart.
	Suspicion = "suspicion"
	// OnlyCopy: an image of another format is kept while the log cannot replace it.
	OnlyCopy = "onlycopy"
	// OtherLayout: records of an owner of another layout are not folded, even if a repair has
	// accepted its claim.
	OtherLayout = "otherlayout"
	// Previous: a claim that follows on an owner that the log does not have ends the fold.
	Previous = "previous"
	// Epoch: a claim that jumps far above the owner's epoch is void.
	Epoch = "epoch"
	// Announced: a command that was sent to a function before its turn is not withdrawn.
	Announced = "announced"
	// Midway: a caller that leaves while the function has its command is not told that nothing was
	// applied.
	Midway = "midway"
	// Horizon: timers that were dropped from memory during a load are read again.
	Horizon = "horizon"
	// Crowd: due timers of one entity type leave space in memory for those of others.
	Crowd = "crowd"
	// Exceptions: a source sends its targets which effects below its progress are open.
	Exceptions = "exceptions"
	// Lane: a target that fails or is slow delays only its own effects.
	Lane = "lane"
	// Slow: an effect whose target does not answer occupies only a place of its lane.
	Slow = "slow"
	// Shared: a command that several attempts share is not withdrawn by one of them.
	Shared = "shared"
	// Stalled: effects that wait for attempts that do not end leave memory.
	Stalled = "stalled"
	// ParkedPlace: an effect that waits for an operator leaves memory.
	ParkedPlace = "parkedplace"
	// Refusal: other parts of an outcome with a refusal are neither stored nor sent.
	Refusal = "refusal"
	// Services: a worker whose services do not belong to the app takes no partition.
	Services = "services"
	// Suspend: when the machine's clock has jumped, the owner asks the log for owner and time
	// again.
	Suspend = "suspend"
	// Promote: a caller that left does not get the turn of the call whose duplicate it was.
	Promote = "promote"
	// Gone: a caller whose context has ended gets no turn.
	Gone = "gone"
	// Verdict: "not applied" is about a command, not about one attempt.
	Verdict = "verdict"
	// Applied: a command that stored something is not reported as refused because its forward was.
	Applied = "applied"
	// Shortened: a refusal with a long text is kept as a refusal.
	Shortened = "shortened"
	// Counted: whether a command is too large does not depend on its id.
	Counted = "counted"
	// Patience: commands that wait for a partition without an active owner are answered in time.
	Patience = "patience"
	// ForeignPage: a page of another origin cannot call the admin service from a browser.
	ForeignPage = "foreignpage"
	// Ended: a request whose body has ended gets no deadline, which would end its connection.
	Ended = "ended"
	// Members: of the fields of a oneof, a path and a query set one.
	Members = "members"
	// Semicolons: a query with a semicolon is refused.
	Semicolons = "semicolons"
	// OneDocument: a body that is one field is one JSON value, and cannot set other fields.
	OneDocument = "onedocument"
	// GivenTwice: a parameter that is given twice is refused.
	GivenTwice = "giventwice"
	// Panics: a panic while a request is handled is answered.
	Panics = "panics"
	// Visible: text of others is printed without what a terminal obeys.
	Visible = "visible"
	// Position: rows of views and their position are in one batch.
	Position = "position"
	// Ahead: a consumer that is ahead of its image is not taken for one of the image's history.
	Ahead = "ahead"
	// Heard: a follower looks for what was committed before it began.
	Heard = "heard"
	// Cursor: while an aggregate is made, changes of rows behind the cursor do not count.
	Cursor = "cursor"
	// Before: an entry of the log of changes says where the row was, too, so that a watch learns that
	// it has left.
	Before = "before"
	// Skipped: a record that an operator leaves out is not folded, wherever the rows stand.
	Skipped = "skipped"
	// Waited: a wait for a position is over when the consumer is there, not when a record was applied.
	Waited = "waited"
	// TypeHeader: a record of an event or a value has its type as a text header (ADR 29).
	TypeHeader = "typeheader"
	// Immutable: a version of a definition that is applied never gets other content.
	Immutable = "immutable"
	// NumberOnce: the number of an index that no version has any more is not given again.
	NumberOnce = "numberonce"
	// Expected: what was decided by an old revision of the definitions does not happen.
	Expected = "expected"
	// Held: a version that was rolled back is promoted by an operator only.
	Held = "held"
	// Hint: the definitions that a process knew before its start count only until others answer.
	Hint = "hint"
	// DeltaWhole: a replicated command that cannot be applied whole is void as a whole (R1).
	DeltaWhole = "deltawhole"
	// DeltaObserved: a removal takes what its writer had observed (R2).
	DeltaObserved = "deltaobserved"
	// DeltaWindow: a replicated command behind the window is void (R3).
	DeltaWindow = "deltawindow"
	// DeltaSquash: only contributions behind the window become one (R3).
	DeltaSquash = "deltasquash"
	// DeltaAnswer: a replicated command is answered after this holder has folded it (R4).
	DeltaAnswer = "deltaanswer"
	// DeltaEnd: a holder is complete only where a fetch returned the end (R5).
	DeltaEnd = "deltaend"
	// DeltaGap: a missing offset ends a holder's completeness (R6).
	DeltaGap = "deltagap"
	// DeltaLag: so does half of the compaction lag away from the end (R6).
	DeltaLag = "deltalag"
	// DeltaReadBack: only a snapshot that was read back covers deltas (R7).
	DeltaReadBack = "deltareadback"
	// DeltaHighest: a reader takes the highest snapshot (R7).
	DeltaHighest = "deltahighest"
	// DeltaParts: a snapshot counts when all its parts were read (R7).
	DeltaParts = "deltaparts"
	// DeltaNonce: parts of two snapshots are never put together (R7).
	DeltaNonce = "deltanonce"
	// DeltaID: a replicated command with a known id is void (R8).
	DeltaID = "deltaid"
	// DeltaRows: known ids stand in the snapshot (R8).
	DeltaRows = "deltarows"
	// DeltaOwed: a snapshot stays below effects that were not adopted (R9).
	DeltaOwed = "deltaowed"
	// DeltaNumber: a writer's number counts once (R10).
	DeltaNumber = "deltanumber"
	// DeltaVersion: a delta of a newer version is not folded (R11).
	DeltaVersion = "deltaversion"
	// DeltaRegress: a log that ends before what was read halts the holder (R12).
	DeltaRegress = "deltaregress"
)

// These are not safety lines: the log protocol is safe without them, as its model shows.
const (
	// GapScan: a gap is read, and ends the ownership only if a record in it does.
	GapScan = "gapscan"
	// StrictClaim: of two claims of one epoch, the first wins.
	StrictClaim = "strictclaim"
)

// Lines returns all of them, those that are not safety lines included.
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
		Recheck,
		Hopeless,
		Superseded,
		Reuse,
		Doubt,
		Early,
		Adjoin,
		Covered,
		Fresh,
		Sent,
		Tail,
		Cut,
		Layout,
		NoRecord,
		Suspicion,
		OnlyCopy,
		OtherLayout,
		Previous,
		Epoch,
		Announced,
		Midway,
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
		Gone,
		Verdict,
		Applied,
		Shortened,
		Counted,
		Patience,
		ForeignPage,
		Ended,
		Members,
		Semicolons,
		OneDocument,
		GivenTwice,
		Panics,
		Visible,
		Position,
		Ahead,
		Cursor, Heard,
		Skipped,
		Waited,
		Before,
		Chosen,
		LatePoll,
		MapOrder,
		WholeRecord,
		TypeHeader,
		Immutable,
		NumberOnce,
		Expected,
		Held,
		Hint,
		DeltaWhole,
		DeltaObserved,
		DeltaWindow,
		DeltaSquash,
		DeltaAnswer,
		DeltaEnd,
		DeltaGap,
		DeltaLag,
		DeltaReadBack,
		DeltaHighest,
		DeltaParts,
		DeltaNonce,
		DeltaID,
		DeltaRows,
		DeltaOwed,
		DeltaNumber,
		DeltaVersion,
		DeltaRegress,
		GapScan,
		StrictClaim,
	}
}

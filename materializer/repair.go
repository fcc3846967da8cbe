package materializer

import "github.com/millrace-io/millrace/entities/record"

// Choice is what an operator wants to be done about a halted partition.
type Choice uint8

const (
	// Retry checks again: the log was restored. Nothing is written unless the log is what the store
	// was folded from.
	Retry Choice = iota
	// AcceptLoss takes the log as it is now, and drops what the store had beyond it.
	AcceptLoss
	// AppendImage writes what the store has beyond the log into the log again.
	AppendImage
	// Preview counts what AppendImage would write.
	Preview
)

var choiceNames = [...]string{"retry", "accept-loss", "append-image", "preview"} //nolint:gochecknoglobals // a constant table

// String returns the choice as the command line has it.
func (c Choice) String() string { return choiceNames[c] }

// Survey is what a repair finds before it changes anything.
type Survey struct {
	// Start and End are the bounds of the log; Owner owns the partition by it.
	Start, End int64
	Owner      record.Owner
	// Epoch is the highest one that log or store know; Floor is the offset after the last one that was
	// ever known to be used.
	Epoch uint64
	Floor int64
	// Lost is how many losses the log shows.
	Lost uint64
	// Restored is what is to be written again.
	Restored Restored
}

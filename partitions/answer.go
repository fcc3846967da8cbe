package partitions

import (
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/mutation"
)

// encodeAnswer returns what is stored with a command's records so that a repeat under the same id gets the same answer;
// nil for a command without an id.
func encodeAnswer(call *Call) []byte {
	if !call.named() {
		return nil
	}
	return record.EncodeAnswer(call.outcome)
}

// unkept is what is kept instead of an outcome whose answer has too many bytes: a refusal with the
// beginning of its text, else that the command took effect.
func unkept(out *entities.Outcome, entity string, size, limit int) *entities.Outcome {
	if e := out.Failure; e != nil && e.Reason == entities.FunctionRefused && !mutation.On(mutation.Shortened) {
		short := *e
		short.Message = shortened(e.Message)
		return &entities.Outcome{Failure: &short}
	}
	return &entities.Outcome{Failure: errAnswerTooLarge(entity, size, limit)}
}

// askerOf is the asker of a call's forward; nil where the command is known by no name.
func askerOf(entity []byte, call *Call) *record.Asker {
	if !call.named() {
		return nil
	}
	return &record.Asker{
		Entity: entity, CommandID: call.cmd.ID, Principal: call.cmd.Principal, PayloadHash: call.hash,
		Source: call.cmd.Source, Wrote: call.outcome.Wrote(),
	}
}

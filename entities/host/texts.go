package host

import (
	"github.com/millrace-io/millrace/entities"
)

// texts are what callers read when the conversation about an entity breaks. Cloudstate's users know them.
type texts struct {
	// reply: an answer to no command, or to another one.
	reply string
	// failure: the function gave up the stream.
	failure string
	// message: something that is no answer at all.
	message string
	// termination: the stream ended or broke.
	termination string
	// terminated: the session had ended before the command came.
	terminated string
}

//nolint:gochecknoglobals // constants
var (
	eventSourcedTexts = texts{
		reply:       "Unexpected entity reply",
		failure:     "Unexpected entity failure",
		message:     "Unexpected entity message",
		termination: "Unexpected entity termination",
		terminated:  "Entity terminated",
	}
	valueTexts = texts{
		reply:       "Unexpected Value entity reply",
		failure:     "Unexpected Value entity failure",
		message:     "Unexpected Value entity failure",
		termination: "Unexpected Value entity termination",
		terminated:  "Value entity terminated",
	}
)

// textsOf returns the texts of a stateful kind.
func textsOf(kind entities.Kind) *texts {
	if kind == entities.Value {
		return &valueTexts
	}
	return &eventSourcedTexts
}

// functionFailed is the end of a session: nothing is stored, and the cause is for the log.
func functionFailed(text string, cause error) *entities.Error {
	return &entities.Error{Reason: entities.FunctionFailed, Outcome: entities.NotApplied, Message: text, Cause: cause}
}

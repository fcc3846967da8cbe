package host

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	sessionv1 "github.com/millrace-io/millrace/proto/gen/millrace/session/v1"
)

// kind is what differs between the kinds of entities here. Each has a file with its value, and a
// line in kinds; nothing else in this package depends on a kind.
type kind interface {
	// texts are what callers read when the conversation about an entity breaks.
	texts() *texts
	// stream opens a stream of its own for one session.
	stream(ctx context.Context, conn grpc.ClientConnInterface) (grpc.ClientStream, error)
	// messages returns those of one session. If they are a framed too, the session can be on a
	// link.
	messages() messages
	// outcome adds to an outcome what only this kind has in a reply.
	outcome(a *answer, out *entities.Outcome)
	// check says why an outcome cannot be stored: a part of it is not valid, is more than most
	// events (0: any number), or is one that the kind does not have.
	check(out *entities.Outcome, most int) error
	// weigh returns the size of an entity's state after an outcome, in bytes; it was size before.
	weigh(size int64, out *entities.Outcome) int64
}

// messages are what one session sends and receives, in the types of its kind. Each is used again
// and again. One goroutine sends and one receives.
type messages interface {
	// load sends the stored state to the function.
	load(s *session, loaded entities.Loaded) error
	// command makes a command the next message.
	command(*cloudstate.Command)
	// next is the next message, as a stream of the session's own sends it.
	next() proto.Message
	// receive reads the next message of a stream.
	receive(stream grpc.ClientStream, a *answer) error
}

// framed are messages that a link carries.
type framed interface {
	// frame makes the next message the content of a frame.
	frame(*sessionv1.Request)
	// unframe reads a frame of the function.
	unframe(*sessionv1.Response, *answer)
}

// texts are what callers read when the conversation about an entity breaks. Cloudstate's users know
// them. What they read when it had ended before is in entities.KindSpec.
type texts struct {
	// reply: an answer to no command, or to another one.
	reply string
	// failure: the function ended the stream with a failure.
	failure string
	// message: something that is no answer at all.
	message string
	// termination: the stream ended or broke.
	termination string
}

// kinds are the kinds that can be hosted, by number.
var kinds = [256]kind{ //nolint:gochecknoglobals // a table
	entities.EventSourced: eventSourced{},
	entities.Value:        value{},
}

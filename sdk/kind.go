package sdk

import (
	"fmt"

	"google.golang.org/grpc"

	sessionv1 "github.com/millrace-io/millrace/proto/gen/millrace/session/v1"
)

// Kind says how the state of a service is made.
type Kind uint8

// The kinds of services.
const (
	KindEventSourced Kind = 1
	KindValue        Kind = 2
	KindAction       Kind = 3
)

// kinds are the kinds of services, by number.
var kinds = []kind{ //nolint:gochecknoglobals // a table
	KindEventSourced: eventSourced{},
	KindValue:        value{},
	KindAction:       action{},
}

// kind is what differs between the kinds of services, beside how a service of each is declared. The
// value of each is in its server's file; nothing else in this package depends on a kind.
type kind interface {
	// name is for people, constructor what a user calls to make a service, both as they are
	// written.
	name() string
	constructor() string
	// option is what a user calls to handle a method that streams in these directions.
	option(shape) string
	// streams reports whether methods may stream in these directions.
	streams(shape) bool
	// hasEntities: it has entities, and so a persistence id. hasEvents: their state is the sum of
	// events.
	hasEntities() bool
	hasEvents() bool

	// protocol is the full name of the protocol service by which discovery declares the kind,
	// register serves it.
	protocol() string
	register(registrar grpc.ServiceRegistrar, server *Server)
	// session returns the session of a place that begins with this frame, nil if the frame is not
	// one of this kind.
	session(p *place, first *sessionv1.Request) step
}

// step works on one message of a session. over: it was the last one.
type step func(*sessionv1.Request) (over bool, err error)

func (k Kind) spec() kind { return kinds[k] }

// String returns the kind as shown to people.
func (k Kind) String() string {
	if int(k) >= len(kinds) || kinds[k] == nil {
		return fmt.Sprintf("kind %d", uint8(k))
	}
	return k.spec().name()
}

// HasEntities reports whether services of the kind have entities, whose state is stored. Others are
// called.
func (k Kind) HasEntities() bool { return k.spec().hasEntities() }

// HasEvents reports whether an entity's state is the sum of stored events. The state of others is
// stored as a whole.
func (k Kind) HasEvents() bool { return k.spec().hasEvents() }

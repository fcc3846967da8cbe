package entities

import (
	"cmp"
	"fmt"
	"slices"
)

// Kind says how the state of a service's entities comes about: by events, by values that replace
// each other, or that it has none. It is a number because it is durable: it stands in the first row
// of each entity, and in what workers tell each other of their services. So a number is never used
// for another kind.
//
// All that depends on a kind is a value in a table, found by the number, with a file for each kind:
//
//	entities       KindSpec    names, whose the commands are, which methods may stream
//	entities/host  kind        the conversation with a remote function: its stream or its frames on a
//	                           shared one, how stored state is sent, how a reply is read; what of an
//	                           outcome may be stored; what callers read when the conversation breaks
//	materializer   entityKind  an outcome as records, records as rows, rows as what a session begins
//	                           with, and what a repair writes again
//	sdk            kindSpec    how a service is declared and checked, and its side of the conversation
//
// Between them, every package passes on a Command, an Outcome and a Loaded without asking for the
// kind; what must be known elsewhere is asked of KindSpec. Outcome and Loaded have the parts of all
// kinds, and a kind uses its own: a kind whose state is a sum (of events, of deltas) has Events and
// now and then a Snapshot, one whose state is replaced has a State.
//
// A kind that is not Owned, such as Replicated, is decided wherever a replica is. Its function may
// speak unasked, and its changes lie on another topic, so the one-question-one-answer Session, the
// core and the fold of the journal are not for it: it has an interface beside each of these. The
// tables are: the words of its conversation, its checks and texts, and its place in the sdk are
// found by the number like those of the others.
type Kind uint8

// The kinds of the Cloudstate protocol. The numbers are durable.
const (
	KindUnspecified Kind = 0
	EventSourced    Kind = 1
	Value           Kind = 2
	Action          Kind = 3
	Replicated      Kind = 4
)

// KindSpec is what all packages may know of a kind.
type KindSpec struct {
	// Name is for people: event sourced.
	Name string
	// Protocol is the full name of the protocol service by which a function declares the kind.
	Protocol string
	// HasEntities: its services have entities, and so keys, an entity type and state. Others are
	// called.
	HasEntities bool
	// Owned: commands of an entity go to the owner of its partition, one at a time. No version
	// serves a kind that has entities and is not owned yet.
	Owned bool
	// Events: the history of an entity is events and snapshots. That of other kinds which have
	// entities is values that replace each other.
	Events bool
	// Streams says which methods may stream.
	Streams Streams
	// Terminated is the error of commands that wait for a conversation which ends before their
	// turn.
	Terminated string
}

// Streams says in which directions the methods of a kind may carry any number of messages.
type Streams uint8

// What methods may be, from unary methods only to all.
const (
	UnaryOnly Streams = iota
	OutputStreams
	AllStreams
)

// Served says whether this version runs the commands of the kind.
func (s *KindSpec) Served() bool { return s.Owned || !s.HasEntities && s.Protocol != "" }

// kinds is the table, by number.
var kinds = [256]*KindSpec{ //nolint:gochecknoglobals // a table; only Register adds to it
	EventSourced: {
		Name: "event sourced", Protocol: "cloudstate.eventsourced.EventSourced", HasEntities: true, Owned: true,
		Events: true, Terminated: "Entity terminated",
	},
	Value: {
		Name: "value", Protocol: "cloudstate.valueentity.ValueEntity", HasEntities: true, Owned: true,
		Terminated: "Value entity terminated",
	},
	Action: {
		Name: "action", Protocol: "cloudstate.action.ActionProtocol", Streams: AllStreams,
	},
	Replicated: {
		Name: "replicated", Protocol: "cloudstate.crdt.Crdt", HasEntities: true, Streams: OutputStreams,
		Terminated: "Entity terminated",
	},
}

// Register adds a kind to the table, before anything else uses it: in an init function, as a test
// does that has a kind of its own. It panics if number or protocol have a kind.
func Register(k Kind, s *KindSpec) {
	if k == KindUnspecified || kinds[k] != nil || KindOf(s.Protocol) != KindUnspecified {
		panic(fmt.Sprintf("kind %d (%s, %s): the number or the protocol is taken", k, s.Name, s.Protocol))
	}
	kinds[k] = s
}

// KindOf returns the kind with that protocol service, KindUnspecified if there is none.
func KindOf(protocol string) Kind {
	for k, s := range kinds {
		if s != nil && s.Protocol == protocol {
			return Kind(k)
		}
	}
	return KindUnspecified
}

// Kinds returns the kinds of the table, by the name of their protocol service.
func Kinds() []Kind {
	var all []Kind
	for k, s := range kinds {
		if s != nil {
			all = append(all, Kind(k))
		}
	}
	slices.SortFunc(all, func(a, b Kind) int { return cmp.Compare(kinds[a].Protocol, kinds[b].Protocol) })
	return all
}

// Spec returns the row of a kind, which must not be changed. A number without a kind is one of a
// newer version: it has entities, and is not served.
func (k Kind) Spec() *KindSpec {
	if s := kinds[k]; s != nil {
		return s
	}
	return &KindSpec{Name: fmt.Sprintf("kind %d", uint8(k)), HasEntities: true, Terminated: "Entity terminated"}
}

// String returns the kind as shown to people.
func (k Kind) String() string { return k.Spec().Name }

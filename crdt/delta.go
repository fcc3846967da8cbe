package crdt

import (
	"cmp"
	"slices"
	"strconv"
)

// FoldVersion is the newest form of deltas and snapshots that this package understands.
const FoldVersion = 1

// Type is the type of a replicated value. The numbers are durable.
type Type uint8

// The types.
const (
	GCounter    Type = 1
	PNCounter   Type = 2
	GSet        Type = 3
	ORSet       Type = 4
	LWWRegister Type = 5
	Flag        Type = 6
	Vote        Type = 7
	ORMap       Type = 8
)

// String returns the name of the type.
func (t Type) String() string {
	names := [...]string{"", "GCounter", "PNCounter", "GSet", "ORSet", "LWWRegister", "Flag", "Vote", "ORMap"}
	if t.known() {
		return names[t]
	}
	return "type " + strconv.Itoa(int(t))
}

func (t Type) known() bool { return t >= GCounter && t <= ORMap }

// Writer is one run of one worker: the worker's name, and a random number that no other run has.
type Writer struct {
	Name        string
	Incarnation uint64
}

func compareWriters(a, b Writer) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Incarnation, b.Incarnation))
}

// Element is an element of a set, a key of a map or the value of a register. Two are equal if their
// type URLs and their bytes are: a stable encoding is the function's duty.
type Element struct {
	TypeURL string
	// Value holds bytes, not text.
	Value string
}

func compareElements(a, b Element) int {
	return cmp.Or(cmp.Compare(a.TypeURL, b.TypeURL), cmp.Compare(a.Value, b.Value))
}

// Step leads from a map to the value under one of its keys. Values of several types may lie under
// one key; the lowest type shows.
type Step struct {
	Key  Element
	Type Type
}

// Op is what a change does. The numbers are durable.
type Op uint8

// The operations. Those of removal take what the writer had observed.
const (
	// OpIncrement adds Amount to a counter; a GCounter takes no negative one.
	OpIncrement Op = 1
	// OpAdd adds Element to a set.
	OpAdd Op = 2
	// OpRemove removes Element from an ORSet, or the key Element from an ORMap.
	OpRemove Op = 3
	// OpClear removes all elements of an ORSet, or all keys of an ORMap.
	OpClear Op = 4
	// OpSet sets an LWWRegister to Element at Clock.
	OpSet Op = 5
	// OpEnable sets a Flag, for good.
	OpEnable Op = 6
	// OpVote votes For or against in the name of the writer's worker.
	OpVote Op = 7
	// OpTouch makes the key at the end of Path present with an empty value, of any type.
	OpTouch Op = 8
)

// Change is one change of a value.
type Change struct {
	// Path leads to the changed value; empty: it is the entity itself.
	Path    []Step
	Op      Op
	Element Element
	Amount  int64
	// Clock orders values of a register; Reverse: of equal ones the earlier in the log wins.
	Clock   int64
	Reverse bool
	For     bool
}

// ID is the id under which a caller sent a command; the zero ID is none.
type ID struct {
	Principal, ID string
}

func compareIDs(a, b ID) int {
	return cmp.Or(cmp.Compare(a.Principal, b.Principal), cmp.Compare(a.ID, b.ID))
}

// Command is what one command changed.
type Command struct {
	// N numbers the commands of a writer in a partition, from 1.
	N uint64
	// Seen is the offset up to which, exclusive, the function had been told of the partition.
	Seen    int64
	Changes []Change
	ID      ID
	// Hash is that of the payload, Answer what the caller was answered; kept with ID.
	Hash, Answer []byte
	// Owes: the command has effects or timers, which the owner adopts.
	Owes bool
}

// Delta is one record of the log: commands of one writer for one entity.
type Delta struct {
	// Version is the lowest FoldVersion that understands the delta.
	Version  int
	Type     Type
	Writer   Writer
	Commands []Command
}

// at tells the place of a record in the log.
type at struct {
	offset int64
	millis int64
}

// valid reports whether the change can be applied to an entity of a type. It depends on the change
// alone, so that all holders agree.
func (c *Change) valid(root Type) bool {
	leaf := root
	for i := range c.Path {
		if leaf != ORMap || !c.Path[i].Type.known() {
			return false
		}
		leaf = c.Path[i].Type
	}
	switch c.Op {
	case OpIncrement:
		return leaf == PNCounter || leaf == GCounter && c.Amount >= 0
	case OpAdd:
		return leaf == GSet || leaf == ORSet
	case OpRemove, OpClear:
		return leaf == ORSet || leaf == ORMap
	case OpSet:
		return leaf == LWWRegister
	case OpEnable:
		return leaf == Flag
	case OpVote:
		return leaf == Vote
	case OpTouch:
		return len(c.Path) > 0
	default:
		return false
	}
}

func samePath(a, b []Step) bool { return slices.Equal(a, b) }

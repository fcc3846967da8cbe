package partitions

import (
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer"
)

// entity is what the core knows of one active entity. Its state is the session's and the store's.
type entity struct {
	key      entities.Key
	keyBytes []byte
	typ      *entities.EntityType

	// session is nil until the first command opened one.
	session entities.Session
	// size is what the session was last counted with.
	size int
	// position is behind the last decided event and snapshot.
	position materializer.Position

	// running is the command that is not decided yet; at most one.
	running *Call
	queue   []*Call
	// uncommitted counts decided commands of this entity whose records are not committed: as long as there are any, the
	// store is behind and no session can be opened.
	uncommitted int
	// timers counts, by name, the changes that are decided and not committed.
	timers map[string]int
	// opening: a session is being opened ahead of the next command. passivating: the session is being closed in order.
	opening, passivating bool
	// reopen asks for a session ahead of the next command as soon as nothing is uncommitted; ending is the one before it, still
	// to be closed.
	reopen bool
	ending entities.Session

	lastUsed time.Duration
	// prev and next link all entities in the order of their activation; idle is the list of idle ones that it is in.
	prev, next *entity
	idle       *idleList
	idlePrev   *entity
	idleNext   *entity
}

// quiet says whether nothing happens to the entity.
func (e *entity) quiet() bool {
	return e.running == nil && len(e.queue) == 0 && e.uncommitted == 0 && !e.opening && !e.passivating && !e.reopen
}

// waiting are the calls that wait behind the one whose turn it is.
func (e *entity) waiting() []*Call { return e.queue }

// entityList is the list of all active entities, oldest first.
type entityList struct{ first, last *entity }

func (l *entityList) add(e *entity) {
	e.prev, e.next = l.last, nil
	if l.last == nil {
		l.first = e
	} else {
		l.last.next = e
	}
	l.last = e
}

func (l *entityList) remove(e *entity) {
	if e.prev == nil {
		l.first = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		l.last = e.prev
	} else {
		e.next.prev = e.prev
	}
	e.prev, e.next = nil, nil
}

// idleList holds idle entities with the same passivation time, least recently used first.
type idleList struct {
	after       time.Duration
	first, last *entity
}

func (l *idleList) add(e *entity) {
	e.idle, e.idlePrev, e.idleNext = l, l.last, nil
	if l.last == nil {
		l.first = e
	} else {
		l.last.idleNext = e
	}
	l.last = e
}

func (l *idleList) remove(e *entity) {
	if e.idlePrev == nil {
		l.first = e.idleNext
	} else {
		e.idlePrev.idleNext = e.idleNext
	}
	if e.idleNext == nil {
		l.last = e.idlePrev
	} else {
		e.idleNext.idlePrev = e.idlePrev
	}
	e.idle, e.idlePrev, e.idleNext = nil, nil, nil
}

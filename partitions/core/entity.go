package core

import (
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/invariant"
	"github.com/millrace-io/millrace/materializer"
)

// Entity is the core's view of one active entity. Its state is in the session and in the store.
type Entity struct {
	Key      entities.Key
	keyBytes []byte
	Type     *entities.EntityType

	// session is nil until the first command opened one.
	session entities.Session
	// size is the last measured size of the session.
	size int
	// position is after the last decided event and snapshot.
	position materializer.Position

	// running is the command that is not decided yet; at most one.
	running *Call
	queue   []*Call
	// uncommitted counts decided commands of this entity whose records are not committed. Until it is
	// 0 the store is behind, and no session can be opened.
	uncommitted int
	// timers counts, by name, the changes that are decided and not committed.
	timers map[string]int
	// opening: a session is being opened ahead of the next command. passivating: the session is being
	// closed in order.
	opening, passivating bool
	// reopen asks for a session ahead of the next command, as soon as nothing is uncommitted; ending
	// is the previous session, which is still to be closed.
	reopen bool
	ending entities.Session

	lastUsed time.Duration
	// prev and next link all entities in the order of their activation; idle is the list of idle
	// entities that it is in.
	prev, next *Entity
	idle       *idleList
	idlePrev   *Entity
	idleNext   *Entity
}

// quiet reports whether nothing happens to the entity.
func (e *Entity) quiet() bool {
	return e.running == nil && len(e.queue) == 0 && e.uncommitted == 0 && !e.opening && !e.passivating && !e.reopen
}

// entityList is the list of all active entities, oldest first.
type entityList struct{ first, last *Entity }

func (l *entityList) add(e *Entity) {
	e.prev, e.next = l.last, nil
	if l.last == nil {
		l.first = e
	} else {
		l.last.next = e
	}
	l.last = e
}

func (l *entityList) remove(e *Entity) {
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
	first, last *Entity
}

func (l *idleList) add(e *Entity) {
	e.idle, e.idlePrev, e.idleNext = l, l.last, nil
	if l.last == nil {
		l.first = e
	} else {
		l.last.idleNext = e
	}
	l.last = e
}

func (l *idleList) remove(e *Entity) {
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

// rest puts an entity among the idle ones, as the most recently used.
func (c *Core) rest(e *Entity) {
	if e.idle != nil {
		e.idle.remove(e)
	}
	e.lastUsed = c.now.Mono
	after := e.Type.PassivateAfter
	if after == 0 {
		after = c.limits.PassivateAfter
	}
	for _, l := range c.idle {
		if l.after == after {
			l.add(e)
			return
		}
	}
	l := &idleList{after: after}
	c.idle = append(c.idle, l)
	l.add(e)
}

func (c *Core) leastRecent() *Entity {
	var oldest *Entity
	for _, l := range c.idle {
		if l.first != nil && (oldest == nil || l.first.lastUsed < oldest.lastUsed) {
			oldest = l.first
		}
	}
	return oldest
}

func (c *Core) passivate(e *Entity) {
	e.idle.remove(e)
	e.passivating = true
	c.emit(Passivate{Entity: e, Session: e.session})
	c.detach(e)
}

// Passivated reports that an entity's session was closed in order.
func (c *Core) Passivated(e *Entity, incarnation uint64) {
	if incarnation != c.incarnation {
		return
	}
	e.passivating = false
	c.advance(e)
}

func (c *Core) forget(e *Entity) {
	invariant.Check(c.entities[e.Key] == e, "%s is forgotten and was not known", e.Key)
	if e.idle != nil {
		e.idle.remove(e)
	}
	c.active -= e.size
	c.all.remove(e)
	delete(c.entities, e.Key)
}

package pebblestore

import (
	"math"
	"sync/atomic"
)

// gate admits calls until it is closed, and lets the closer wait for those inside. Unlike a read
// lock it can be passed again from inside while a closer waits.
type gate struct {
	inside atomic.Int64  // calls inside, plus closedGate once the gate is closed
	empty  chan struct{} // signalled when the last call has left a closed gate
}

const closedGate = math.MinInt64 / 2

func newGate() gate { return gate{empty: make(chan struct{}, 1)} }

// enter admits a call, which must then leave; false means that the gate is closed.
func (g *gate) enter() bool {
	if g.inside.Add(1) > 0 {
		return true
	}
	g.leave()
	return false
}

func (g *gate) leave() {
	if g.inside.Add(-1) == closedGate {
		select {
		case g.empty <- struct{}{}:
		default:
		}
	}
}

// close refuses further calls and returns when none is inside. It must be called once.
func (g *gate) close() {
	if g.inside.Add(closedGate) != closedGate {
		<-g.empty
	}
}

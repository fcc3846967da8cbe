package sim

import (
	"context"
	"fmt"
	"hash/fnv"

	"github.com/millrace-io/millrace/entities"
)

const (
	// One in aheadOf seeds has functions that take commands before their turn. No seed of testdata
	// is one of them.
	aheadOf, aheadSeed = 3, 1
	// room is how many they take; one in promptly is left for its turn.
	room, promptly = 4, 3
)

// imagined is a session that can decide at any time.
type imagined interface {
	entities.Session
	decide(text string) *entities.Outcome
}

// ahead is a session that takes commands before their turn, like functions on a shared stream. It
// decides some of them right after the previous one; the others wait at the gate when it is their
// turn.
type ahead struct {
	imagined

	functions *functions
	announced []entities.Invocation
	// decided are the outcomes of the first of announced.
	decided []*entities.Outcome
}

var _ entities.Ahead = (*ahead)(nil)

func (a *ahead) Room() int {
	if len(a.announced) > 0 {
		return 0
	}
	return room
}

func (a *ahead) Announce(invs []entities.Invocation) { a.announced = invs }
func (a *ahead) Ready() bool                         { return len(a.decided) > 0 }

// Handle decides, or returns what it has decided. The command must be the announced one.
func (a *ahead) Handle(ctx context.Context, inv entities.Invocation) (*entities.Outcome, error) {
	if len(a.announced) > 0 {
		if a.announced[0].Command != inv.Command {
			panic(fmt.Sprintf("%q was announced, and %q was handled", a.announced[0].Payload.Value, inv.Payload.Value))
		}
		a.announced = a.announced[1:]
	}
	if a.Ready() {
		outcome := a.decided[0]
		a.decided = a.decided[1:]
		return outcome, nil
	}
	outcome, err := a.imagined.Handle(ctx, inv)
	if err != nil {
		return outcome, err
	}
	for _, next := range a.announced {
		h := fnv.New32a()
		fmt.Fprintf(h, "%s %s", next.ID, next.Payload.Value)
		if h.Sum32()%promptly == 0 {
			break
		}
		a.decided = append(a.decided, a.decide(string(next.Payload.Value)))
	}
	a.functions.mu.Lock()
	a.functions.early += len(a.decided)
	a.functions.mu.Unlock()
	return outcome, nil
}

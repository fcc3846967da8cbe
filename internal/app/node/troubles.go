package node

import (
	"sync"
	"time"

	"github.com/millrace-io/millrace/internal/clock"
)

// troubles holds the last error of each task that goes on in spite of it.
type troubles struct {
	clock clock.Clock

	mu   sync.Mutex
	last map[string]trouble
}

// trouble is one error; counted are all of its task. Err is nil when it is over.
type trouble struct {
	err     error
	at      time.Time
	counted uint64
}

// note keeps what went wrong in a task; nil says that it is over.
func (t *troubles) note(task string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == nil {
		t.last = map[string]trouble{}
	}
	now := trouble{err: err, counted: t.last[task].counted}
	if err != nil {
		now.at = t.clock.Now()
		now.counted++
	}
	t.last[task] = now
}

// of returns what is wrong with a task.
func (t *troubles) of(task string) trouble {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last[task]
}

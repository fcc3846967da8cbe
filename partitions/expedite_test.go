package partitions

import (
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/partitions/core"
)

// expeditedLog counts the readers that ask for records without the pause between fetches: all of
// them, and the present ones.
type expeditedLog struct {
	broker.Log

	all, now atomic.Int32
}

func (l *expeditedLog) Expedite() (end func()) {
	l.all.Add(1)
	l.now.Add(1)
	below := l.Log.Expedite()
	return func() { l.now.Add(-1); below() }
}

// TestWhoIsInAHurry: a log that lets records wait for readers must not let a take-over wait.
func TestWhoIsInAHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &expeditedLog{}
		f := start(t, setup{world: alone, log: func(l broker.Log) broker.Log { log.Log = l; return log }})
		want := func(what string, all int32) {
			t.Helper()
			f.until(what+": no reader asks for records without the pause", func() bool { return log.now.Load() == 0 })
			if n := log.all.Load(); n != all {
				t.Errorf("%s: %d read without the pause, want %d", what, n, all)
			}
		}
		f.await(core.Active)
		want("caught up, and read the claim back", 2)
	})
}

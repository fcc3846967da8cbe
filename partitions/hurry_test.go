package partitions

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/millrace-io/millrace/broker-adapter"
)

// hurriedLog counts those who were in a hurry, and those who still are.
type hurriedLog struct {
	broker.Log

	all, now atomic.Int32
}

func (l *hurriedLog) Hurry() (end func()) {
	l.all.Add(1)
	l.now.Add(1)
	below := l.Log.Hurry()
	return func() { l.now.Add(-1); below() }
}

// TestWhoIsInAHurry: a log that lets records wait for readers must not let a take-over wait, nor a read that waits for an image.
func TestWhoIsInAHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &hurriedLog{}
		f := start(t, setup{world: alone, log: func(l broker.Log) broker.Log { log.Log = l; return log }})
		want := func(what string, all int32) {
			t.Helper()
			f.until(what+": nobody is in a hurry any more", func() bool { return log.now.Load() == 0 })
			if n := log.all.Load(); n != all {
				t.Errorf("%s: %d were in a hurry, want %d", what, n, all)
			}
		}
		f.await(Active)
		want("caught up, and read the claim back", 2)

		f.p.setImage(&image{next: 5})
		defer f.p.setImage(nil)
		if !f.p.reaches(t.Context(), 5) {
			t.Error("an image that is there was not enough")
		}
		want("an image that is there", 2)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if f.p.reaches(gone, 6) {
			t.Error("an image reached what it has not")
		}
		want("an image that was waited for", 3)
	})
}

package replica

import (
	"context"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/internal/clock/clocktest"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
)

// expeditedLog counts the readers that ask for records without the pause between fetches: all of
// them, and the present ones.
type expeditedLog struct {
	broker.Log

	all, now int
}

func (l *expeditedLog) Expedite() (end func()) {
	l.all++
	l.now++
	return func() { l.now-- }
}

// TestReachesAsksForNoPause: a log that lets records wait for readers must not let a read wait that
// waits for an image.
func TestReachesAsksForNoPause(t *testing.T) {
	log := &expeditedLog{Log: simlog.New(simlog.Options{}).Client("w")}
	image := &materializer.Image{Log: log, Store: memstore.New(), Address: materializer.Address{Generation: 1}}
	r := New(Options{
		Image: image, Feed: materializer.NewFeeds(1 << 20).Feed(image),
		Clock: clocktest.NewManual(time.Unix(1_700_000_000, 0)),
	})
	r.position.Store(&Position{Next: 5})
	if !r.Reaches(t.Context(), 5) || log.all != 0 {
		t.Errorf("an image that is there was not enough, or %d read without the pause for it", log.all)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if r.Reaches(gone, 6) {
		t.Error("an image reached what it has not")
	}
	if log.all != 1 || log.now != 0 {
		t.Errorf("%d read without the pause and %d do now, want 1 and none", log.all, log.now)
	}
}

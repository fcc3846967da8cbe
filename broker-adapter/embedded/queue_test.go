package embedded

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// TestFullQueueBlocks fills the queue while a callback blocks the committer: an Append beyond the
// bound waits until there is space, in order.
func TestFullQueueBlocks(t *testing.T) {
	log := mustOpen(t, Options{Ephemeral: true, QueueAppends: 2})
	createTestTopic(t, log)
	p := broker.Partition{Topic: testTopic}
	entered, release := make(chan struct{}), make(chan struct{})
	results := make(chan int64, 10)
	add := func(value int, done func(broker.AppendResult)) {
		log.Append(p, []broker.Record{{Value: fmt.Append(nil, value)}}, done)
	}
	note := func(r broker.AppendResult) { results <- r.Base }
	add(0, func(r broker.AppendResult) { close(entered); <-release; note(r) })
	<-entered // the committer is held up, the queue is empty
	add(1, note)
	add(2, note)
	var blocked sync.WaitGroup
	blocked.Go(func() { add(3, note) })
	if s := log.Stats(); s.QueuedAppends != 2 {
		t.Errorf("%d appends wait, the bound is 2", s.QueuedAppends)
	}
	close(release)
	blocked.Wait()
	for want := range int64(4) {
		if got := <-results; got != want {
			t.Errorf("result %d has offset %d", want, got)
		}
	}
}

// TestCloseReleasesBlockedAppends closes while appends wait for space: each gets ErrClosed before
// Close returns, or at once after.
func TestCloseReleasesBlockedAppends(t *testing.T) {
	log := mustOpen(t, Options{Ephemeral: true, QueueAppends: 1})
	createTestTopic(t, log)
	p := broker.Partition{Topic: testTopic}
	entered, release := make(chan struct{}), make(chan struct{})
	log.Append(p, []broker.Record{{Value: []byte("first")}}, func(broker.AppendResult) { close(entered); <-release })
	<-entered
	const callers = 20
	results := make(chan error, callers)
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			log.Append(p, []broker.Record{{Value: []byte("x")}}, func(r broker.AppendResult) { results <- r.Err })
		})
	}
	all.Go(func() { _ = log.Close() })
	<-log.closing
	close(release)
	all.Wait()
	for range callers {
		if err := <-results; err != nil && !errors.Is(err, broker.ErrClosed) {
			t.Error(err)
		}
	}
}

// TestTakeSplitsGroups takes what fits, at least one, and leaves the rest in order.
func TestTakeSplitsGroups(t *testing.T) {
	q := newQueue(1000, 100)
	for i, bytes := range []int{60, 30, 20, 500, 1} {
		q.put(request{bytes: bytes, result: broker.AppendResult{Base: int64(i)}})
	}
	next := int64(0)
	for _, want := range []int{2, 1, 1, 1} {
		<-q.ready
		group := q.take(100)
		if len(group) != want {
			t.Fatalf("took %d at request %d, want %d", len(group), next, want)
		}
		for i := range group {
			if group[i].result.Base != next {
				t.Fatalf("took request %d, want %d", group[i].result.Base, next)
			}
			next++
		}
	}
	if appends, bytes := q.depth(); appends != 0 || bytes != 0 {
		t.Errorf("%d appends of %d bytes are left", appends, bytes)
	}
}

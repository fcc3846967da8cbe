package partitions

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/clock/clocktest"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/partitions/core"
	"github.com/millrace-io/millrace/partitions/routing"
)

const topic = "app.journal"

// fixture is one worker on one simulated log with one partition.
type fixture struct {
	t     *testing.T
	world *simlog.World
	clock *clocktest.Manual
	store materializer.Store
	words *words
	p     *Partition
	m     *Manager
	// router is the manager's.
	router *routing.Router
	stop   func() error
	// seen gets the states that the partition goes through.
	seen chan core.State
	// bubble: the test runs in a synctest bubble.
	bubble bool
}

type setup struct {
	world  simlog.Options
	limits Limits
	store  materializer.Store
	on     *simlog.World
	clock  *clocktest.Manual
	name   string
	peers  routing.Peers
	group  broker.Group
	// words is the function; nil: a new one.
	words *words
	// parts is the number of partitions; 0: one.
	parts int32
	// log wraps the simulated log; nil: it is used as it is.
	log func(broker.Log) broker.Log
}

var partition0 = broker.Partition{Topic: topic, ID: 0}

func start(t *testing.T, s setup) *fixture {
	t.Helper()
	f := &fixture{
		t: t, clock: clocktest.NewManual(time.Unix(1_700_000_000, 0)), store: s.store, words: newWords(),
		seen: make(chan core.State, 1024), world: s.on, bubble: inBubble(),
	}
	if s.clock != nil {
		f.clock = s.clock
	}
	if s.words != nil {
		f.words = s.words
	}
	s.world.Clock = f.clock
	if f.world == nil {
		f.world = simlog.New(s.world)
	}
	if f.store == nil {
		f.store = memstore.New()
	}
	if s.name == "" {
		s.name = "w"
	}
	log := f.world.Client(s.name)
	if err := log.Create(t.Context(), broker.TopicSpec{
		Name: topic, Partitions: max(s.parts, 1), MaxRecordBytes: 1 << 20,
	}); err != nil {
		t.Fatal(err)
	}
	info, err := log.Describe(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	var between broker.Log = log
	if s.log != nil {
		between = s.log(log)
	}
	f.m = NewManager(Options{
		App: "app", Worker: s.name, Topic: info, Membership: broker.Membership{Group: s.name, Worker: s.name, Topic: topic},
		Log: between, Store: f.store, Functions: f.words, Limits: s.limits, Clock: f.clock, Group: s.group, Peers: s.peers,
		Hooks: Hooks{StateChanged: func(p int32, _, to core.State, _ string) {
			if p == 0 {
				f.seen <- to
			}
		}},
	})
	f.p = f.m.Partitions()[0]
	f.router = f.m.Router()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- f.m.Run(ctx) }() // ended by stop
	var once sync.Once
	f.stop = func() error {
		var err error
		once.Do(func() {
			cancel()
			err = errors.Join(<-ended, log.Close())
		})
		return err
	}
	t.Cleanup(func() {
		if f.world != nil {
			f.stopWorld()
		}
		if err := f.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return f
}

// gateway is a gateway without a function of the same app.
func (f *fixture) gateway(table *routing.Table, peers routing.Peers) *routing.RemoteRouter {
	return routing.NewRemoteRouter(routing.Options{
		Layout: f.m.options.Layout, Table: table, Peers: peers, MaxWaiting: f.m.options.Limits.MaxWaiting,
		Patience: time.Minute, Clock: f.clock,
	})
}

// stopWorld stops the worker while a manual world delivers by itself, so that the end of a test
// does not hang.
func (f *fixture) stopWorld() {
	f.t.Helper()
	done := make(chan struct{})
	stopped := make(chan struct{})
	go func() { // ended below
		defer close(stopped)
		for {
			select {
			case <-done:
				return
			default:
				f.world.DeliverAll()
			}
		}
	}()
	_ = f.stop()
	close(done)
	<-stopped
}

// header makes the header of a record of another writer.
func header(env record.Envelope) []broker.Header {
	return []broker.Header{{Key: record.HeaderKey, Value: env.Append(nil)}}
}

// foreignClaim is another worker's claim.
func foreignClaim(epoch uint64) broker.Record {
	return broker.Record{Headers: header(record.Envelope{
		Kind: record.Claim, Epoch: epoch, Nonce: 99, Claim: &record.ClaimInfo{Worker: "other"},
	})}
}

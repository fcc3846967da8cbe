package main

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

const (
	// recordLimit is the default of message.max.bytes, less the frame of a batch with one record.
	recordLimit = 1_048_588 - 100
	// deathNoticed is how long a peer takes to detect a dead process and to evict it.
	deathNoticed = 50 * time.Millisecond
	// pause is the time from the end of a process to its next join.
	pause = 5 * time.Second
	// pingAfter is the silence after which a link between workers is pinged, as in package peer.
	pingAfter = 10 * time.Second
)

// play simulates a group and returns the results.
func play(o options, workers, partitions int) (*figures, error) {
	g := newGroup(o, partitions)
	f := &figures{Workers: workers, Partitions: partitions}
	for i := range workers {
		g.start(fmt.Sprintf("worker-%04d", i), nil)
	}
	for _, act := range []struct {
		name string
		do   func() error
	}{
		{"start", g.begin},
		{"join", func() error { g.start("worker-new", nil); return g.balance() }},
		{"death", g.die},
		{"rolling restart", g.roll},
		{"full restart", g.again},
		{"leave", func() error { g.end(g.randomMember()); return g.balance() }},
	} {
		before, began := g.table, g.now
		g.step = &step{Name: act.name}
		err := act.do()
		if err == nil {
			err = g.rebalanceAll()
		}
		if err == nil {
			err = g.routeWith(before)
		}
		if err == nil && act.name == "start" {
			err = g.measureRest(f)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", act.name, err)
		}
		g.step.Took = g.now - began
		f.Steps = append(f.Steps, *g.step)
	}
	f.Measured.costs(&g.cost)
	return f, nil
}

// begin starts a group whose log is empty: there is nothing to read.
func (g *group) begin() error {
	if err := g.balance(); err != nil {
		return err
	}
	for _, m := range g.members {
		for p := range m.lags {
			m.lags[p], m.stored[p] = 0, true
		}
		m.cold, m.news = nil, true
	}
	g.step.Cold, g.step.Rebuilt, g.step.Unserved = 0, 0, 0 // it was not served before either
	return nil
}

func (g *group) randomMember() *member { return g.members[g.random.IntN(len(g.members))] }

// die is a kill -9 that peers detect.
func (g *group) die() error {
	g.end(g.randomMember())
	g.step.noticed = deathNoticed
	g.pass(deathNoticed)
	return g.balance()
}

// roll restarts one worker after the other.
func (g *group) roll() error {
	for range min(g.options.Restarts, len(g.members)) {
		m := g.members[0]
		if i := g.restarted; i < len(g.members) {
			m = g.members[i]
		}
		g.restarted++
		g.end(m)
		if err := g.balanceUntilQuiet(); err != nil {
			return err
		}
		g.pass(pause)
		g.start(m.Name, m.stored)
		if err := g.balanceUntilQuiet(); err != nil {
			return err
		}
	}
	return nil
}

func (g *group) balanceUntilQuiet() error {
	if err := g.balance(); err != nil {
		return err
	}
	return g.rebalanceAll()
}

// again stops all workers, and starts all again with their stores.
func (g *group) again() error {
	before := g.members
	g.members = nil
	g.pass(pause)
	for _, m := range before {
		g.start(m.Name, m.stored)
	}
	return g.balance()
}

// measureRest simulates one more rebalance, without changes, and computes the costs of a stable
// group.
func (g *group) measureRest(f *figures) error {
	kept := *g.step
	if err := g.balanceUntilQuiet(); err != nil {
		return err
	}
	*g.step = kept
	if err := f.Measured.router(g, &f.Router); err != nil {
		return err
	}
	f.Measured.TableMemory = held(8, func() *broker.Table { return lookUp(&g.page.Groups[0]) })
	n, followers := float64(len(g.members)), 0
	for _, s := range g.table.Standbys {
		followers += len(s)
	}
	beat := kmsg.NewPtrHeartbeatRequest()
	beat.Version, beat.Group, beat.MemberID, beat.InstanceID = 4, groupName, g.members[0].id, &g.members[0].Name
	answer := kmsg.NewPtrHeartbeatResponse()
	answer.Version = 4
	beats := n / g.options.Heartbeat.Seconds()
	f.Rest = rest{
		Table: g.wire.Table, Wire: g.wire, RecordLimit: recordLimit,
		Heartbeats: beats, HeartbeatBytes: beats * float64(len(beat.AppendTo(nil))+len(answer.AppendTo(nil))+headers),
		WatcherBytes: float64(g.wire.Page),
		ReadFactor:   float64(followers) / float64(g.partitions), Followed: float64(followers) / n,
		Links: len(g.members) * (len(g.members) - 1), LinksEach: 2 * (len(g.members) - 1),
		Pings: n * (n - 1) / pingAfter.Seconds(),
	}
	return nil
}

// headers are those of a request and its answer: length, key, version, number, client.
const headers = 4 + 2 + 2 + 4 + 2 + len("millrace") + 1 + 4 + 4 + 1

// fitsUpTo finds the most partitions with which the record of a stable group stays below Kafka's
// limit, to within 1024.
func fitsUpTo(o options, workers int) (int, error) {
	fits := 0
	for step := 1 << 16; step >= 1024; step /= 2 {
		if fits+step > o.Most {
			continue
		}
		g := newGroup(o, fits+step)
		for i := range workers {
			g.start(fmt.Sprintf("worker-%04d", i), nil)
		}
		if err := g.begin(); err != nil {
			return 0, err
		}
		if _, err := g.exchange(); err != nil {
			return 0, err
		}
		if g.wire.Record <= recordLimit {
			fits += step
		}
	}
	return fits, nil
}

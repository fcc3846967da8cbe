package partitions

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/partitions/core"
)

// TestBrokenContractGivesPartitionsUpByName: while the topic's settings are wrong nothing is owned,
// whatever the group assigns, and callers get the reason; when they are right again, the worker
// takes what the group has assigned.
func TestBrokenContractGivesPartitionsUpByName(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(core.Active)
	right := f.m.options.Topic
	wrong := right
	wrong.Violations = []broker.Violation{{Setting: "retention.ms", Found: "1", Wanted: "-1", Remedy: "set it"}}
	f.m.checkTopic(wrong)
	f.await(core.Standby)
	f.m.assign(broker.AssignmentEvent{Assigned: []int32{0}}) // a rebalance in between
	a := f.submit(command("a", "add x"))
	f.wantError(a, entities.Moved, entities.NotApplied)
	if !strings.Contains(a.err.Error(), "retention.ms is 1, wanted -1: set it") ||
		!strings.Contains(f.p.Status().LastError, "retention.ms") {
		t.Errorf("the caller is told %v, the status says %q", a.err, f.p.Status().LastError)
	}
	if s := f.p.Status().State; s != core.Standby {
		t.Errorf("a partition is %s while the contract is broken", s)
	}
	f.m.checkTopic(right)
	f.await(core.Active)
	f.want(f.submit(command("a", "add y")), "y")
}

// TestContractThatIsFixedTakesWhatIsAssigned: but not what the group took away in between.
func TestContractThatIsFixedTakesWhatIsAssigned(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(core.Active)
	right := f.m.options.Topic
	wrong := right
	wrong.Violations = []broker.Violation{{Setting: "retention.ms"}}
	f.m.checkTopic(wrong)
	f.await(core.Standby)
	f.m.assign(broker.AssignmentEvent{Revoked: []int32{0}})
	f.m.checkTopic(right)
	f.wantError(f.submit(command("a", "add x")), entities.Moved, entities.NotApplied)
}

// TestAnotherTopicHalts while the worker runs, before a write to it, and for good.
func TestAnotherTopicHalts(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(core.Active)
	other := f.m.options.Topic
	other.ID = "another"
	f.m.checkTopic(other)
	f.await(core.Halted)
	f.m.checkTopic(f.m.options.Topic)
	a := f.submit(command("a", "add x"))
	f.wantError(a, entities.Halted, entities.NotApplied)
	if !strings.Contains(a.err.Error(), "now it is another") {
		t.Errorf("the caller is told %v", a.err)
	}
}

// TestWhatHappenedMeanwhileIsLookedAt: after the topic's settings were wrong, a partition is taken
// again only if its log is complete after the store's position. What the log has lost before that
// is reported: the store has it, and no other worker can fold it.
func TestWhatHappenedMeanwhileIsLookedAt(t *testing.T) {
	for name, test := range map[string]struct {
		lose func(*fixture)
		want core.State
		says string
	}{
		"nothing is lost":                     {func(*fixture) {}, core.Active, ""},
		"records that the store has are lost": {func(f *fixture) { f.world.Remove(partition0, 1, 3) }, core.Active, "it has no records at offsets 1 to 2"},
		"a claim that the store has is changed": {func(f *fixture) {
			f.world.Change(partition0, 0, func(r *broker.Record) { r.Headers = foreignClaim(1).Headers })
		}, core.Active, "follows owner 1"},
		"the beginning is lost": {func(f *fixture) { f.world.Trim(partition0, 2) }, core.Active, "it begins at offset 2"},
		"records that the store has not are lost": {func(f *fixture) {
			at := f.world.Inject(partition0, foreignClaim(9), foreignClaim(10))
			f.world.Remove(partition0, at, at+1)
		}, core.Halted, ""},
	} {
		t.Run(name, bubbled(func(t *testing.T) {
			f := start(t, setup{world: alone})
			f.await(core.Active)
			f.want(f.submit(command("a", "add x")), "x")
			f = f.restart()
			f.await(core.Active)
			f.want(f.submit(command("b", "add y")), "y")
			right := f.m.options.Topic
			wrong := right
			wrong.Violations = []broker.Violation{{Setting: "cleanup.policy"}}
			f.m.checkTopic(wrong)
			f.await(core.Standby)
			test.lose(f)
			f.m.checkTopic(right)
			f.await(test.want)
			if test.want == core.Halted {
				return
			}
			f.want(f.submit(command("a", "read")), "x")
			f.want(f.submit(command("b", "add z")), "y z")
			f.until("the log was looked through", func() bool {
				return f.p.Status().Inspection.Over
			})
			damage := f.p.Status().Inspection.Damage
			if test.says == "" {
				if damage != nil {
					t.Errorf("damage is found: %v", damage)
				}
				return
			}
			if damage == nil || !strings.Contains(damage.Error(), test.says) {
				t.Errorf("damage %v; want %q", damage, test.says)
			}
			f.until("an alarm is raised", func() bool {
				return f.p.Counts().Alarms == 1 && f.p.Status().LastError == damage.Error()
			})
		}))
	}
}

// refusingLog fails appends while refusal is set, and counts how often the topic is described.
type refusingLog struct {
	broker.Log
	mu        sync.Mutex
	refusal   error
	failed    int
	described int
}

func (l *refusingLog) Append(p broker.Partition, records []broker.Record, done func(broker.AppendResult)) {
	l.mu.Lock()
	refusal := l.refusal
	if refusal != nil {
		l.failed++
	}
	l.mu.Unlock()
	if refusal == nil {
		l.Log.Append(p, records, done)
		return
	}
	go done(broker.AppendResult{Base: -1, Last: -1, Err: refusal}) // the log never answers on the goroutine of the caller
}

func (l *refusingLog) Describe(ctx context.Context, name string) (broker.TopicInfo, error) {
	l.mu.Lock()
	l.described++
	l.mu.Unlock()
	return l.Log.Describe(ctx, name)
}

func (l *refusingLog) refuse(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refusal = err
}

func (l *refusingLog) counts() (failed, described int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed, l.described
}

// TestAFailedAppendHasTheTopicLookedAt at once, whatever the error of the log: wrong settings are
// the reason, and the partition is given up with their names and does not claim again and again.
// However many appends fail, the topic is described once a second at most.
func TestAFailedAppendHasTheTopicLookedAt(t *testing.T) {
	for _, why := range []error{broker.ErrTooLarge, broker.ErrLimitLowered, errors.New("INVALID_RECORD: a compacted topic takes no record without a key")} {
		t.Run(why.Error(), bubbled(func(t *testing.T) {
			log := &refusingLog{}
			f := start(t, setup{world: alone, log: func(l broker.Log) broker.Log {
				log.Log = l
				return log
			}})
			f.await(core.Active)
			f.world.Violate(topic, broker.Violation{Setting: "cleanup.policy", Found: "compact", Wanted: "delete", Remedy: "set it"})
			log.refuse(why)
			if a := f.submit(command("a", "add x")); a.err == nil {
				t.Error("a command is answered that the log did not take")
			}
			synctest.Wait() // and no time goes by
			if err := f.m.Contract(); err == nil || !strings.Contains(err.Error(), "cleanup.policy is compact") {
				t.Errorf("after a failed append the contract says %v", err)
			}
			if s := f.p.Status().State; s != core.Standby {
				t.Errorf("the partition is %s while its topic refuses what it writes", s)
			}

			f.world.Violate(topic)
			f.until("it claims again, and again", func() bool { failed, _ := log.counts(); return failed > 3 })
			begun, before := log.counts()
			const seconds = 600
			for range 10 * seconds {
				f.pass(time.Second / 10)
			}
			failed, described := log.counts()
			if failed == begun || described-before > seconds+1 {
				t.Errorf("%d appends failed, and the topic was looked at %d times in %d s", failed-begun, described-before, seconds)
			}
			log.refuse(nil)
			f.until("it is active again", func() bool { return f.p.Status().State == core.Active })
		}))
	}
}

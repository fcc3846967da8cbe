package partitions

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions/core"
)

// rows are those of the fold, without the mark of a halted partition.
func (f *fixture) rows() []string {
	f.t.Helper()
	var rows []string
	lower, upper := f.p.image.Address.Range()
	if err := f.store.Scan(lower, upper, func(key, value []byte) bool {
		if key[4] != 'h' {
			rows = append(rows, fmt.Sprintf("%q=%q", key, value))
		}
		return true
	}); err != nil {
		f.t.Fatal(err)
	}
	return rows
}

// restart starts the worker again, on the same log, with the same store.
func (f *fixture) restart() *fixture {
	f.t.Helper()
	if err := f.stop(); err != nil {
		f.t.Fatal(err)
	}
	return start(f.t, setup{world: simlog.Options{SingleProcess: true}, on: f.world, store: f.store, words: f.words})
}

// unfoldable is a valid record whose kind this version does not know.
func unfoldable(env record.Envelope) broker.Record {
	env.Kind, env.Ordinal = record.Kind(99), 1
	return broker.Record{Key: []byte("words/a"), Headers: header(env)}
}

// TestWhatHalts: every case in which acknowledged data is lost or unreadable. The partition refuses
// all callers with the reason, shows it in its status, leaves the rows of its store as they are,
// and a restart changes nothing.
func TestWhatHalts(t *testing.T) {
	// Each begins with a partition whose log has a claim, x of a, y of b and z of c.
	for name, test := range map[string]struct {
		// manual: the log answers nothing by itself.
		manual bool
		happen func(*fixture) *fixture
		cause  error
	}{
		"an acknowledgement below the next offset": {true, func(f *fixture) *fixture {
			f.world.Truncate(partition0, 3)
			caller := f.later(command("a", "add lost"))
			f.world.Deliver(f.op(1).ID)
			f.wantError(f.receive(caller), entities.LostOutcome, entities.Unknown)
			return f
		}, broker.ErrRegressed},
		"a claim below what was read": {true, func(f *fixture) *fixture {
			caller := f.later(command("a", "add x"))
			f.world.Fail(f.op(1).ID, errLog) // the ownership ends
			f.world.Discard(f.world.Pending()[0].ID)
			f.wantError(f.receive(caller), entities.LostOutcome, entities.Unknown)
			f.await(core.CatchingUp)
			f.clock.Advance(time.Second)
			claim := f.op(1)
			f.world.Truncate(partition0, 2)
			f.world.Deliver(claim.ID)
			return f
		}, broker.ErrRegressed},
		"the end of the log is gone": {false, func(f *fixture) *fixture {
			f.world.Truncate(partition0, 2)
			return f.restart()
		}, broker.ErrRegressed},
		"the beginning of the log is gone": {false, func(f *fixture) *fixture {
			store := f.store
			f.store = nil
			f = f.restart() // as the next process
			f.await(core.Active)
			f.want(f.submit(command("d", "add w")), "w")
			f.world.Trim(partition0, int64(len(f.world.Records(partition0)))-1)
			if err := f.stop(); err != nil {
				f.t.Fatal(err)
			}
			f.store = store
			return f.restart()
		}, broker.ErrOutOfRange},
		"the topic is another one": {false, func(f *fixture) *fixture {
			if err := f.stop(); err != nil {
				f.t.Fatal(err)
			}
			f.world.Recreate(topic)
			return f.restart()
		}, materializer.ErrTopicReplaced},
		"a claim of another layout": {false, func(f *fixture) *fixture {
			f.world.Inject(partition0, broker.Record{Headers: header(record.Envelope{
				Kind: record.Claim, Epoch: 9, Nonce: 99,
				Claim: &record.ClaimInfo{Worker: "other", Layout: entities.LayoutOf("app", 4)},
			})})
			return f.restart()
		}, materializer.ErrUnfoldable},
		"a record that cannot be folded": {false, func(f *fixture) *fixture {
			f.world.Inject(partition0, foreignClaim(9), unfoldable(record.Envelope{Epoch: 9, Nonce: 99}))
			return f.restart()
		}, materializer.ErrUnfoldable},
	} {
		t.Run(name, bubbled(func(t *testing.T) {
			f := start(t, setup{world: simlog.Options{Manual: test.manual, SingleProcess: true}})
			if test.manual {
				f.world.Deliver(f.op(1).ID)
			}
			f.await(core.Active)
			for id, word := range map[string]string{"a": "x", "b": "y", "c": "z"} {
				caller := f.later(command(id, "add "+word))
				if test.manual {
					f.world.Deliver(f.op(1).ID)
				}
				f.want(f.receive(caller), word)
			}
			before := f.rows()
			f = test.happen(f)
			f.until("it halts", func() bool { return f.p.Status().State == core.Halted })
			f.wantError(f.submit(command("a", "read")), entities.Halted, entities.NotApplied)
			s := f.p.Status()
			if !errors.Is(s.Halted, test.cause) || s.LastError != s.Halted.Error() {
				t.Errorf("halted because of %v, the status says %q; want %v", s.Halted, s.LastError, test.cause)
			}
			if after := f.rows(); !slices.Equal(before, after) {
				t.Errorf("the rows were\n%s\nand are\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
			}
			if test.manual {
				f.stopWorld() // so that the restarted worker does not wait for this one's appends
			}
			again := f.restart()
			again.until("it halts again", func() bool { return again.p.Status().State == core.Halted })
			if why := again.p.Status().Halted; !errors.Is(why, materializer.ErrHaltedBefore) ||
				!strings.Contains(why.Error(), s.Halted.Error()) {
				t.Errorf("after a restart it is halted because of %v; want the cause of before: %v", why, s.Halted)
			}
		}))
	}
}

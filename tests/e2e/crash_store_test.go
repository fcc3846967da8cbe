package e2e_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
	"github.com/millrace-io/millrace/tests/e2e/harness"
)

// TestCrashOfTheStoreIsNoLoss deletes the store, after an end in order and after a kill: it comes back from the log, and
// shows of every entity what it showed before.
func TestCrashOfTheStoreIsNoLoss(t *testing.T) {
	p := harness.Start(t, harness.Options{})
	l := newLoad(t, loadOptions{conn: p.Dial(t), counters: true, carts: true, mayFail: []codes.Code{codes.Unavailable}})
	l.start()
	l.awaitAnswers()
	l.expectTrouble()
	p.Kill(t) // the log has more than one owner, and the store is behind it
	p.Restart(t)
	l.awaitAnswers()
	l.stop()
	l.check()

	before := look(t, p, l)
	if code := p.Stop(t); code != 0 {
		t.Errorf("stopped in order, the exit code is %d", code)
	}
	loseStore(t, p)
	p.Restart(t)
	before.compare(t, look(t, p, l))

	p.Kill(t)
	loseStore(t, p)
	p.Restart(t)
	before.compare(t, look(t, p, l))
	l.check()
	t.Logf("%d entities and %d records are the same after 2 rebuilds", len(before.entities), before.records())
	l.report(3)
}

func loseStore(t *testing.T, p *harness.Process) {
	t.Helper()
	store := filepath.Join(p.Data(), "store")
	if _, err := os.Stat(store); err != nil {
		t.Fatalf("there is no store to delete: %v", err)
	}
	if err := os.RemoveAll(store); err != nil {
		t.Fatal(err)
	}
}

// sight is what a process shows of its data.
type sight struct {
	// entities has what the store knows of each, by key; journal the records of each partition, in order.
	entities map[string]*adminv1.GetEntityResponse
	journal  map[int32][]*adminv1.TailResponse
}

// look asks for every entity of a load, and reads the journal as `millrace log tail` prints it.
func look(t *testing.T, p *harness.Process, l *load) sight {
	t.Helper()
	s := sight{entities: map[string]*adminv1.GetEntityResponse{}, journal: map[int32][]*adminv1.TailResponse{}}
	admin := adminv1.NewAdminServiceClient(p.DialAdmin(t))
	for _, key := range l.keys() {
		typ, id, _ := strings.Cut(key, "/")
		entity, err := admin.GetEntity(t.Context(), &adminv1.GetEntityRequest{Type: typ, Id: id})
		if err != nil {
			t.Fatalf("get %s: %v", key, err)
		}
		entity.AsOfOffset = 0 // every start adds a claim
		s.entities[key] = entity
	}
	r := harness.Run(t, "log", "tail", "--admin", p.Admin(), "--from-start", "--no-follow")
	if r.Code != 0 {
		t.Fatalf("log tail ended with %d: %s", r.Code, r.Stderr)
	}
	for line := range strings.Lines(r.Stdout) {
		record := &adminv1.TailResponse{}
		if err := protojson.Unmarshal([]byte(line), record); err != nil {
			t.Fatalf("log tail printed %q: %v", line, err)
		}
		s.journal[record.GetPartition()] = append(s.journal[record.GetPartition()], record)
	}
	return s
}

// compare checks that a later sight shows the same. The journal may have grown by what a start and an end add.
func (s sight) compare(t *testing.T, later sight) {
	t.Helper()
	for _, key := range slices.Sorted(maps.Keys(s.entities)) {
		if !proto.Equal(s.entities[key], later.entities[key]) {
			t.Errorf("%s was %v, and is %v", key, s.entities[key], later.entities[key])
		}
	}
	for _, partition := range slices.Sorted(maps.Keys(s.journal)) {
		was, is := s.journal[partition], later.journal[partition]
		if len(is) < len(was) {
			t.Errorf("partition %d had %d records, and has %d", partition, len(was), len(is))
			continue
		}
		for i := range was {
			if !proto.Equal(was[i], is[i]) {
				t.Errorf("a record was %v, and is %v", was[i], is[i])
			}
		}
		for _, r := range is[len(was):] {
			if r.GetKind() != "claim" && r.GetKind() != "release" {
				t.Errorf("nobody wrote, and there is a new record %v", r)
			}
		}
	}
}

func (s sight) records() int {
	n := 0
	for _, records := range s.journal {
		n += len(records)
	}
	return n
}

// keys are those of all entities that a load has certainly written to.
func (l *load) keys() []string {
	var keys []string
	for i, s := range l.shared {
		if s.highest > 0 {
			keys = append(keys, "counter/"+sharedName(i))
		}
	}
	for _, c := range l.callers {
		if c.own.least > 0 {
			keys = append(keys, "counter/"+c.name)
		}
		for _, b := range c.baskets {
			if len(b.items) > 0 {
				keys = append(keys, "cart/"+b.id)
			}
		}
	}
	return keys
}
